"""Why a match matched: two pictures, their vectors, and which position of each added what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastretrieve.data import longest_side
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup import finding, wording
from fastretrieve.gallery.lookup.evidence import Covered, Numbers, Summed, score_of
from fastretrieve.gallery.lookup.heat import Explanation, HeatMap
from fastretrieve.gallery.lookup.occluding import POSITIONS, covered, plain, reduced
from fastretrieve.gallery.lookup.opened import Opened
from fastretrieve.gallery.lookup.regions import Pictured, Region, pictured
from fastretrieve.gallery.lookup.words import asked_words

_SAME = 0.99  # the least cosine of an item's vector with the one that its file has now


def explain(
    opened: Opened, query: Any, item: Any, *, text: Any, weight: float, region: Region | None
) -> Explanation:
    """Heat maps on the query, or its region, and on an item; of words alone, on the item."""
    words = asked_words(text, weight=weight, query=query)
    if item is None:
        raise GalleryError(
            "item is the match to explain: explain(query, 17), or explain(item=17, text=...)"
        )
    if query is None and region is not None:
        raise GalleryError("region: words have no picture that it could be a part of; leave it out")
    said = None if words is None else wording.vector_of(opened, words.text).astype(np.float64)
    found = pictured(opened, _named(opened, item))
    pictures = [found] if query is None else [pictured(opened, query, region), found]
    has_parts = "parts" in opened.queries.encoder.capabilities
    metric = opened.storage.manifest.metric
    sides = _in_parts(opened, pictures) if has_parts else _occluded(opened, pictures)
    for one, side in zip(pictures, sides, strict=True):
        _refuse_changed(opened, one, side.vectors()[0])
    theirs = sides[-1].vectors()[0]
    if words is not None and said is not None and query is None:
        asked = said
        ours = HeatMap.of_words(words, score_of(asked, theirs, metric))
    else:
        mix = sides[0]
        if said is not None:
            mix = mix.moved(*wording.mixing(mix.vectors(), said, float(weight)))
        asked = mix.vectors()[0]
        ours = HeatMap.of(pictures[0], mix.evidence(theirs, metric))
    return Explanation(
        ours,
        HeatMap.of(found, sides[-1].evidence(asked, metric)),
        score=score_of(asked, theirs, metric),
        metric=metric,
        method="parts" if has_parts else "occlusion",
        words=words,
    )


def _named(opened: Opened, item: Any) -> Any:
    """An item or its id; of a path or a URL, the item that it names."""
    if finding.is_item(item):
        return item
    ids = finding.ids_of(opened.storage, item)
    if len(ids) != 1:
        raise GalleryError(f"{item} names {len(ids)} items; give the id of one of them")
    return ids[0]


def _in_parts(opened: Opened, pictures: Sequence[Pictured]) -> Sequence[Summed | Covered]:
    contents = [each for one in pictures for each in (one.content, plain(one.image))]
    parts, constants = opened.queries.parts(contents)
    return [Summed.beside(parts[i], constants[i], parts[i + 1]) for i in range(0, len(contents), 2)]


def _occluded(opened: Opened, pictures: Sequence[Pictured]) -> Sequence[Summed | Covered]:
    side = longest_side(opened.queries.encoder)
    contents = []
    for one in pictures:
        small = reduced(one.image, side)  # so that a covered picture differs by its cover alone
        contents += [one.content, small, *covered(small)]
    rows = opened.queries.encode(contents).astype(np.float64)
    return [Covered(each, (POSITIONS, POSITIONS)) for each in np.split(rows, len(pictures))]


def _refuse_changed(opened: Opened, one: Pictured, vector: Numbers) -> None:
    """Raise if an item's file shows something else than its vector says."""
    if one.item is None or one.box is not None:
        return
    stored = finding.vectors(opened, [one.item.id])[0].astype(np.float64)
    if np.any(stored) and score_of(stored, vector, "cosine") < _SAME:
        raise GalleryError(
            f"the file of item {one.item.id} has changed since it was added, so it cannot "
            f"explain the match; gallery.update() encodes it anew"
        )
