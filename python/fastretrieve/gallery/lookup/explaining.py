"""Why a match matched: two pictures, their vectors, and which position of each added what."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastretrieve.data import longest_side
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup import finding
from fastretrieve.gallery.lookup.evidence import (
    Evidence,
    Numbers,
    Summed,
    by_occlusion,
    by_parts,
    score_of,
)
from fastretrieve.gallery.lookup.heat import Explanation, HeatMap
from fastretrieve.gallery.lookup.occluding import POSITIONS, covered, plain, reduced
from fastretrieve.gallery.lookup.opened import Opened
from fastretrieve.gallery.lookup.regions import Pictured, Region, pictured

_SAME = 0.99  # the least cosine of an item's vector with the one that its file has now


def explain(opened: Opened, query: Any, item: Any, *, region: Region | None) -> Explanation:
    """Heat maps on the query, or its region, and on an item."""
    if not finding.is_item(item):  # a path or a URL that names one
        ids = finding.ids_of(opened.storage, item)
        if len(ids) != 1:
            raise GalleryError(f"{item} names {len(ids)} items; give the id of one of them")
        item = ids[0]
    found = pictured(opened, item)
    asked = pictured(opened, query, region)
    has_parts = "parts" in opened.queries.encoder.capabilities
    compared = _by_parts if has_parts else _by_occlusion
    vectors, evidence = compared(opened, asked, found)
    for one, vector in zip((asked, found), vectors, strict=True):
        _refuse_changed(opened, one, vector)
    metric = opened.storage.manifest.metric
    return Explanation(
        HeatMap.of(asked, evidence[0]),
        HeatMap.of(found, evidence[1]),
        score=score_of(*vectors, metric),
        metric=metric,
        method="parts" if has_parts else "occlusion",
    )


_Compared = tuple[tuple[Numbers, Numbers], tuple[Evidence, Evidence]]


def _by_parts(opened: Opened, asked: Pictured, found: Pictured) -> _Compared:
    contents = [each for one in (asked, found) for each in (one.content, plain(one.image))]
    parts, constants = opened.queries.parts(contents)
    q, x = (Summed.beside(parts[i], constants[i], parts[i + 1]) for i in (0, 2))
    metric = opened.storage.manifest.metric
    vectors = q.total(), x.total()
    return vectors, (by_parts(q, vectors[1], metric), by_parts(x, vectors[0], metric))


def _by_occlusion(opened: Opened, asked: Pictured, found: Pictured) -> _Compared:
    side = longest_side(opened.queries.encoder)
    contents = []
    for one in (asked, found):
        small = reduced(one.image, side)  # so that a covered picture differs by its cover alone
        contents += [one.content, small, *covered(small)]
    rows = opened.queries.encode(contents).astype(np.float64)
    metric, shape = opened.storage.manifest.metric, (POSITIONS, POSITIONS)
    ours, theirs = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    evidence = (
        by_occlusion(ours, shape, theirs[0], metric),
        by_occlusion(theirs, shape, ours[0], metric),
    )
    return (ours[0], theirs[0]), evidence


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
