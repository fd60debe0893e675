"""Parts of pictures and explanations for visitors, within the limits of the page."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

from fastretrieve.data.modalities import kind_of
from fastretrieve.gallery import Gallery, GalleryError, Item
from fastretrieve.gallery.lookup.heat import HeatMap
from fastretrieve.gallery.lookup.regions import Region
from fastretrieve.gallery.lookup.words import WordsError
from fastretrieve.server.asking import Why
from fastretrieve.server.limits import Refused
from fastretrieve.server.pictures import check_file
from fastretrieve.server.regions import Shares, in_pixels


def explanation(
    gallery: Gallery, query: Item | Image.Image | None, item: Item, asked: Why, *, limit: int
) -> dict[str, Any]:
    """Why an item matches another one, an upright picture, or words: the heat on both."""
    for each in (query, item):
        if isinstance(each, Item):
            refuse_unseen(gallery, each, limit=limit)
    part = None if query is None or asked.region is None else region_of(query, asked.region)
    with refusing_changed():
        found = gallery.explain(
            query, item, text=asked.text or None, weight=asked.weight, region=part
        )
    about = {"score": found.score, "metric": found.metric, "method": found.method}
    return {**about, "query": _heat(found.query), "item": _heat(found.item)}


def region_of(query: Item | Image.Image, region: Shares) -> Region:
    """The pixels of a part of an item's picture, or of an upright one."""
    width, height = (query.width, query.height) if isinstance(query, Item) else query.size
    if not width or not height:
        raise Refused(422, "this item has no picture with a width and a height")
    return in_pixels(region, (width, height))


def refuse_sequences(gallery: Gallery) -> None:
    if not kind_of(gallery.manifest.modality).is_picture:
        raise Refused(422, "regions and explanations are of pictures; this gallery holds none")


def refuse_unseen(gallery: Gallery, item: Item, *, limit: int) -> None:
    """``Refused`` unless the picture of an item can be decoded within the limit."""
    refuse_sequences(gallery)
    try:
        path = gallery.file_of(item)
    except GalleryError:
        raise Refused(404, "its file is gone") from None
    check_file(path, limit=limit)


@contextlib.contextmanager
def refusing_changed() -> Iterator[None]:
    """What is left of errors is that a file is not what it was; their text names it."""
    try:
        yield
    except WordsError:
        raise
    except GalleryError:
        raise Refused(
            422, "the picture has changed since it was added, or cannot be read any more"
        ) from None


def _heat(one: HeatMap) -> dict[str, Any]:
    shown = one.to_dict()
    return {name: shown[name] for name in ("heat", "parts", "constant")}
