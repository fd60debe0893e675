"""The nearest items to a query, to several items, and the label that they vote for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastretrieve._common.arguments import whole
from fastretrieve._common.metric import is_distance
from fastretrieve._common.progress import Progress
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup import finding, grouping, ranking, recommending, wordsearch
from fastretrieve.gallery.lookup.cluster_results import Clustering
from fastretrieve.gallery.lookup.clusters import Within
from fastretrieve.gallery.lookup.conditions import Filter, Where
from fastretrieve.gallery.lookup.matches import Match, Matches, Seconds
from fastretrieve.gallery.lookup.opened import Opened
from fastretrieve.gallery.lookup.queries import Query, worded_query
from fastretrieve.gallery.lookup.questions import plain, question, tasted
from fastretrieve.gallery.lookup.ranking import Order
from fastretrieve.gallery.lookup.recommending import Label
from fastretrieve.gallery.lookup.regions import Region
from fastretrieve.gallery.lookup.words import Words, WordsError, checked_words
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
    text: Any,
    weight: float,
    hybrid: bool,
    k: int,
    where: Where,
    offset: int,
    include_self: bool,
    imagine: Any,
    translate: Any,
    diversity: float,
    region: Region | None,
    within: Any,
) -> Matches:
    """The ``k`` nearest items after the first ``offset``."""
    ranking.check_diversity(diversity)
    if hybrid and text is None:
        raise WordsError(
            'hybrid=True searches with words in two ways, so it needs them: text="a red boot"'
        )
    stay = Within(within, opened.clusters)
    began = _now(opened)
    asked, vectors, drawn = question(
        opened,
        query,
        text=text,
        weight=weight,
        imagine=imagine,
        translate=translate,
        region=region,
    )
    encoded = _now(opened)
    found = _nearest(
        opened,
        vectors,
        k=k,
        where=where,
        offset=offset,
        leave_out=[] if include_self or asked.item_id is None else [asked.item_id],
        order=Order(drawn.fusion, diversity),
        within=stay,
        words=text if hybrid else None,
    )
    seconds = _seconds(began, encoded)
    return _matches(
        opened,
        found,
        asked,
        seconds,
        cluster=stay.cluster,
        imagined=drawn.pictures,
        hybrid=hybrid,
    )


def find(opened: Opened, text: Any, *, k: int, where: Where, offset: int, within: Any) -> Matches:
    """The ``k`` items after the first ``offset`` whose written words fit best."""
    words, stay = Words(checked_words(text), None), Within(within, opened.clusters)
    k = _checked_page(k, offset)
    began = _now(opened)
    with opened.view() as view:
        mask = stay.narrowed(opened.conditions.mask(where, view), None, view)
        hits = wordsearch.ranked(view, words.text, mask=mask, joined="AND")
        ids, scores = (part[offset : offset + k].tolist() for part in hits)
        items = db.fetch_all(view.connection, ids)
    found = [
        Match(item, score, finding.path_of(opened.storage, item), found_in="words")
        for item, score in zip(items, scores, strict=True)
    ]
    asked = worded_query(words, np.zeros(0))
    return _matches(opened, found, asked, _seconds(began, began), cluster=stay.cluster)


def nearest_clusters(opened: Opened, query: Any, *, text: Any, weight: float, k: int) -> Clustering:
    """The clusters whose centres are nearest to a query, to words, or to both."""
    k = whole(k, "k")
    asked, vectors, _ = question(opened, query, text=text, weight=weight)
    with opened.view() as view:
        found = opened.clusters.nearest(vectors[0], view, k=k)
    modality = opened.storage.manifest.modality
    return Clustering(found, modality=modality, query=asked.picture, title=asked.title)


def recommend(
    opened: Opened, like: Any, unlike: Any, *, k: int, diversity: float, where: Where
) -> Matches:
    """Items near to those that are liked and far from those that are not."""
    ranking.check_diversity(diversity)
    manifest = opened.storage.manifest
    began = _now(opened)
    liked, unliked = [
        [tasted(opened, each) for each in finding.several(what)] for what in (like, unlike)
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
        asked, content = plain(opened, query), None
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
        asked_for = item.text or parts.item_file(storage.folder, item.path)
        content, _ = queries.content(asked_for)
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


def _checked_page(k: int, offset: int) -> int:
    """How many items are wanted, unless that page cannot be."""
    k = whole(k, "k")
    if not 0 <= offset <= MAX_RESULTS - k:
        raise GalleryError(
            f"offset is at least 0, and k + offset at most {MAX_RESULTS}; got {offset}, k={k}"
        )
    return k


def _nearest(
    opened: Opened,
    vectors: NDArray[Any],
    *,
    k: int,
    where: Where,
    offset: int,
    leave_out: list[int],
    order: Order = Order(),  # noqa: B008  (never changed)
    within: Within | None = None,
    words: str | None = None,
) -> list[Match]:
    """Items for one vector, or for those [n, dim] of several pictures; for written words, too."""
    k = _checked_page(k, offset)
    with opened.view() as view:
        mask = opened.conditions.mask(where, view)
        if within is not None:
            mask = within.narrowed(mask, vectors[0], view)
        if words is not None:
            order = order._replace(words=wordsearch.listed(view, words, mask=mask))
        places = ranking.ranked(
            view.index,
            np.atleast_2d(vectors),
            k=k,
            offset=offset,
            where=mask,
            leave_out=leave_out,
            order=order,
        )
        items = db.fetch_all(view.connection, [place.item_id for place in places])
    return [
        Match(
            item,
            place.score,
            finding.path_of(opened.storage, item),
            place.found_by,
            place.found_in,
        )
        for item, place in zip(items, places, strict=True)
    ]


def _matches(
    opened: Opened,
    found: list[Match],
    asked: Query,
    seconds: Seconds,
    *,
    cluster: int | None = None,
    imagined: Sequence[Image.Image] = (),
    hybrid: bool = False,
) -> Matches:
    return Matches(
        found,
        query=asked.picture,
        title=asked.title,
        modality=opened.storage.manifest.modality,
        seconds=seconds,
        cluster=cluster,
        imagined=imagined,
        translation=asked.translation,
        words=asked.words,
        hybrid=hybrid,
    )
