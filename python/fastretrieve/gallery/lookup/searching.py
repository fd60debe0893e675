"""The nearest items to a query, to several items, and the label that they vote for."""

from __future__ import annotations

import contextlib
import os
import time
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arguments import whole
from fastretrieve._common.metric import is_distance
from fastretrieve._common.progress import Progress
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup import finding, grouping, recommending, translating
from fastretrieve.gallery.lookup.conditions import Filter, Where
from fastretrieve.gallery.lookup.matches import Match, Matches, Seconds
from fastretrieve.gallery.lookup.opened import Opened
from fastretrieve.gallery.lookup.queries import Query, item_query
from fastretrieve.gallery.lookup.recommending import Label
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store import parts
from fastretrieve.gallery.store.items import Item

MAX_RESULTS = 100_000


class _Moment(NamedTuple):
    """A time, and how long the encoder had been loading by then."""

    at: float
    loading: float


def search(
    opened: Opened,
    query: Any,
    *,
    k: int,
    where: Where,
    offset: int,
    include_self: bool,
    translate: Any = None,
) -> Matches:
    """The ``k`` nearest items after the first ``offset``."""
    began = _now(opened)
    asked = (
        _query(opened, query)
        if translate is None
        else translating.translated(opened, query, translate, plain=_query)
    )
    encoded = _now(opened)
    leave_out = [] if include_self or asked.item_id is None else [asked.item_id]
    found = _nearest(opened, asked.vector, k=k, where=where, offset=offset, leave_out=leave_out)
    return _matches(opened, found, asked, _seconds(began, encoded))


def recommend(
    opened: Opened, like: Any, unlike: Any, *, k: int, diversity: float, where: Where
) -> Matches:
    """Items near to those that are liked and far from those that are not."""
    manifest = opened.storage.manifest
    began = _now(opened)
    liked, unliked = [
        [_tasted(opened, each) for each in finding.several(what)] for what in (like, unlike)
    ]
    if not liked:
        raise GalleryError("like names at least one item or picture, got none")
    wanted = recommending.taste(
        np.stack([each.vector for each in liked]),
        np.array([each.vector for each in unliked]).reshape(-1, manifest.dim),
        is_direction=manifest.metric == "cosine",
        sample=_sample(opened) if len(liked) + len(unliked) > 1 else None,
    )
    encoded = _now(opened)
    known = [each.item_id for each in (*liked, *unliked) if each.item_id is not None]
    n = k if diversity == 0 else k * recommending.CANDIDATES
    found = _nearest(opened, wanted, k=n, where=where, offset=0, leave_out=known)
    if diversity > 0 and found:
        picked = recommending.diverse(
            np.array([match.score for match in found]),
            finding.vectors(opened, [match.item.id for match in found]),
            k=k,
            diversity=diversity,
            is_similarity=not is_distance(manifest.metric),
        )
        found = [found[i] for i in picked]
    asked = liked[0]._replace(title=", ".join(each.title for each in liked[:3]))
    return _matches(opened, found, asked, _seconds(began, encoded))


def _sample(opened: Opened) -> NDArray[Any] | None:
    """Vectors of items, evenly spread over the gallery; None where they are too few to say what
    all have in common.
    """
    rows = finding.sample(opened, recommending.MIDDLE_ITEMS)
    return None if len(rows) < recommending.FEWEST else rows


def classify(opened: Opened, query: Any, *, k: int, where: Where, balanced: bool) -> Label:
    """A label by vote of the ``k`` nearest labelled items, and what the encoder's head says."""
    began = _now(opened)
    if finding.is_item(query):
        asked, content = _query(opened, query), None
    else:
        content, title = opened.queries.content(query)
        asked = opened.queries.of_content(content, title)
    encoded = _now(opened)
    leave_out = [] if asked.item_id is None else [asked.item_id]
    found = _nearest(
        opened, asked.vector, k=k, where=_labelled(where), offset=0, leave_out=leave_out
    )
    matches = _matches(opened, found, asked, _seconds(began, encoded))
    shares = recommending.vote(matches, _label_counts(opened, where) if balanced else {})
    return Label(next(iter(shares), None), shares, _head(opened, asked, content), matches)


def _labelled(where: Where) -> Where:
    """The condition, for items that have a label."""
    if isinstance(where, str) and where.strip():
        return f"({where}\n) AND label IS NOT NULL"
    return [*(where or ()), Filter("label", "is not empty")]


def _label_counts(opened: Opened, where: Where) -> dict[str, int]:
    """How many items of each label may vote."""
    with opened.view() as view:
        voters = opened.conditions.ids(_labelled(where), view.connection)
        return db.label_counts(view.connection, voters.tolist())


def _head(opened: Opened, asked: Query, content: Any) -> dict[str, float] | None:
    """The probabilities of the encoder's head, if it has one; an item's file is read for them."""
    queries, storage = opened.queries, opened.storage
    if not queries.has_head:
        return None
    if asked.item_id is not None:
        item = finding.item(storage, asked.item_id)
        content, _ = queries.content(parts.item_file(storage.folder, item.path))
    return queries.probabilities(content)


def duplicates(opened: Opened, threshold: float, progress: Progress) -> list[list[Item]]:
    """Groups of items that are linked by scores within the threshold, the largest group first."""
    with opened.view() as view:
        groups = grouping.groups(view.index, threshold, progress)
        items = iter(db.fetch_all(view.connection, [i for group in groups for i in group]))
    return [list(islice(items, len(group))) for group in groups]


def _now(opened: Opened) -> _Moment:
    return _Moment(time.perf_counter(), opened.queries.load_seconds)


def _seconds(began: _Moment, encoded: _Moment) -> Seconds:
    """Where the time went of a search that ends now."""
    loading = encoded.loading - began.loading
    return Seconds(encoded.at - began.at - loading, time.perf_counter() - encoded.at, loading)


def _nearest(
    opened: Opened,
    vector: NDArray[Any],
    *,
    k: int,
    where: Where,
    offset: int,
    leave_out: list[int],
) -> list[Match]:
    k = whole(k, "k")
    if not 0 <= offset <= MAX_RESULTS - k:
        raise GalleryError(
            f"offset is at least 0, and k + offset at most {MAX_RESULTS}; got {offset}, k={k}"
        )
    with opened.view() as view:
        mask = opened.conditions.mask(where, view)
        wanted = min(k + offset + len(leave_out), max(len(view.index), 1))
        hits = view.index.search(vector, k=wanted, where=mask)
        pairs = [
            (int(item_id), float(score))
            for item_id, score in zip(hits.ids.tolist(), hits.scores.tolist(), strict=True)
            if item_id >= 0 and item_id not in leave_out
        ][offset : offset + k]
        items = db.fetch_all(view.connection, [item_id for item_id, _ in pairs])
    return [
        Match(item, score, finding.path_of(opened.storage, item))
        for item, (_, score) in zip(items, pairs, strict=True)
    ]


def _matches(opened: Opened, found: list[Match], asked: Query, seconds: Seconds) -> Matches:
    return Matches(
        found,
        query=asked.picture,
        title=asked.title,
        modality=opened.storage.manifest.modality,
        seconds=seconds,
        translation=asked.translation,
    )


def _query(opened: Opened, query: Any) -> Query:
    if not finding.is_item(query):
        return opened.queries.query(query)
    storage = opened.storage
    (item_id,) = finding.ids_of(storage, query)
    item = finding.item(storage, item_id)
    try:
        vector = finding.vectors(opened, [item_id])[0]
    except KeyError as error:
        raise GalleryError(
            f"{storage.folder}: item {item_id} has no vector; restore the gallery, or "
            "index the images again"
        ) from error
    return item_query(item, vector, finding.path_of(storage, item), storage.manifest.modality)


def _tasted(opened: Opened, what: Any) -> Query:
    """As a query; a path that is in the gallery is the item there."""
    if isinstance(what, (str, os.PathLike)):
        with contextlib.suppress(GalleryError):
            known = finding.ids_named(opened.storage, os.fspath(what))
            what = known[0] if len(known) == 1 else what
    return _query(opened, what)
