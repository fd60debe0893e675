"""A part of a picture as the query: checked, cut out, encoded anew.

A region is (left, top, right, bottom) in pixels of the picture as people see it: upright, and of an
item with a box, that box.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

from PIL import Image

from fastretrieve._common.arguments import shown
from fastretrieve.data import DataError, read_item
from fastretrieve.data.images import to_image
from fastretrieve.data.modalities import kind_of
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup import finding
from fastretrieve.gallery.lookup.opened import Opened
from fastretrieve.gallery.store import parts
from fastretrieve.gallery.store.items import Item

Region: TypeAlias = tuple[float, float, float, float]
_FORM = "a region is (left, top, right, bottom) in pixels"


class Pictured(NamedTuple):
    """A picture of the query or of an item, or a part of it, ready to be encoded."""

    content: Any  # what the encoder takes
    title: str
    item: Item | None  # in the gallery
    box: tuple[int, int, int, int] | None = None  # the part, in pixels of the whole

    @property
    def image(self) -> Image.Image:
        return to_image(self.content)


def pictured(
    opened: Opened, asked: Any, region: Region | None = None, *, least: int = 0
) -> Pictured:
    """The picture of a query or an item, or its region.

    A whole picture is decoded for the encoder's size, or for ``least`` pixels a side where that is
    more.
    """
    modality = opened.storage.manifest.modality
    kind = kind_of(modality)
    if not kind.is_picture:
        raise GalleryError(
            f"{opened.storage.folder} holds {kind.items}; regions and explanations are of pictures"
        )
    whole = _whole(opened, asked, least=least if region is None else None)
    if region is None:
        return whole
    image = to_image(whole.content)
    box = checked(region, image.size)
    return Pictured(image.crop(box), f"a part of {whole.title}", whole.item, box)


def checked(region: Any, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The whole pixels of a region of a picture (width, height).

    >>> checked((0.4, 2, 9.6, 10), (20, 10))
    (0, 2, 10, 10)
    """
    sides = _numbers(region)
    left, top, right, bottom = box = (
        math.floor(sides[0]),
        math.floor(sides[1]),
        math.ceil(sides[2]),
        math.ceil(sides[3]),
    )
    width, height = size
    given = ", ".join(f"{side:g}" for side in sides)
    if sides[2] <= sides[0] or sides[3] <= sides[1]:
        raise GalleryError(
            f"the region ({given}) is empty; {_FORM}, with left < right and top < bottom"
        )
    if left < 0 or top < 0 or right > width or bottom > height:
        raise GalleryError(
            f"the region ({given}) is not inside the picture of {width} x {height} pixels; {_FORM}"
        )
    return box


def parsed(text: str) -> Region:
    """A region as it is typed.

    >>> parsed("10,20, 110,220")
    (10.0, 20.0, 110.0, 220.0)
    """
    try:
        return _numbers([float(side) for side in text.split(",")])
    except ValueError as error:
        raise GalleryError(f"{_FORM}, such as 10,20,110,220; got {text!r}") from error


def _numbers(region: Any) -> Region:
    """Four finite numbers."""
    try:
        left, top, right, bottom = (float(side) for side in region)
    except (TypeError, ValueError) as error:
        raise GalleryError(f"{_FORM}; got {shown(region)}") from error
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise GalleryError(f"{_FORM}, all of them finite; got {shown(region)}")
    return left, top, right, bottom


def _whole(opened: Opened, asked: Any, *, least: int | None) -> Pictured:
    """The whole picture; decoded at its full size where ``least`` is None."""
    if not finding.is_item(asked):
        return Pictured(*opened.queries.content(asked, least=least), None)
    storage = opened.storage
    (item_id,) = finding.ids_of(storage, asked)
    item = finding.item(storage, item_id)
    size = opened.queries.side(least)
    try:
        content = read_item(parts.item_file(storage.folder, item.path), size=size, box=item.box)
    except DataError as error:
        raise GalleryError(
            f"item {item_id} has no picture any more: {error}; bring the file back, or remove the "
            "item"
        ) from error
    return Pictured(content, item.origin, item)
