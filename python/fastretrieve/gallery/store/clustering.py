"""Finds the clusters of a gallery: k-means of its vectors, or of a sample where they are many.

The result depends on the vectors, their ids and the seed alone, not on threads or the machine.
The caller holds the writer's lock. All is computed first and committed at once, so whoever is
killed or interrupted leaves the clusters that were there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import fastretrieve as fr
from fastretrieve._common.arguments import whole
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store import clusters
from fastretrieve.gallery.store.writing import Writer

Report = Callable[[str, int, int | None], object]  # (what is being done, done, in all)

SAMPLE, FOR_EACH = 50_000, 100  # vectors that k-means sees: so many, or so many for each cluster
SAMPLE_BYTES = 256 << 20  # that they take at most, unless the centres take more


def make(writer: Writer, n: int, *, seed: int = 0, report: Report = lambda *_: None) -> None:
    """Put all items into ``n`` clusters; those that were there go. Cluster 0 is the largest."""
    n = whole(n, "n")
    with writer.view() as view:
        ids = np.sort(view.index.ids)
        if not len(ids):
            raise GalleryError(
                f"{writer.folder} holds no items, so there is nothing to cluster; add some first"
            )
        most = min(len(ids), clusters.MOST)
        if n > most:
            which = "the number of items" if most == len(ids) else "which is the most"
            raise GalleryError(f"n must be in [1, {most}], {which}; got {n}")
        sample = _sample(view.index, ids, n, seed)
        found = fr.kmeans(
            sample, n, seed=seed, progress=lambda i, total: report("clustering", i, total)
        )
        points = np.asarray(_directed(found.centroids, view.index.metric), np.float32)
        known = clusters.index_of(np.arange(n), points, view.index)
        known, numbers = _assigned(known, view.index, ids, report, by_size=True)
    with writer.transaction():
        clusters.replace(writer.connection, known, ids, numbers)


def remake(writer: Writer, n: int, report: Report = lambda *_: None) -> None:
    """Clusters anew after all vectors changed: ``n`` of them, or as many as there are items."""
    if not n:
        return
    with writer.view() as view:
        n_items = len(view.index)
        none = clusters.index_of(np.zeros(0, np.int64), np.zeros(0, np.float32), view.index)
    if n_items:
        make(writer, min(n, n_items), report=report)
        return
    with writer.transaction():
        clusters.replace(writer.connection, none, none.ids, none.ids)


def recentre(writer: Writer) -> None:
    """Put each centre at the mean of the items that are there, and each item into the nearest
    cluster. Clusters without members go.

    Afterwards no centre holds a part of an item that was there once.
    """
    if not clusters.are_kept(writer.connection):
        return
    with writer.view() as view:
        index = view.index
        ids, numbers = clusters.assignment(view.connection)
        kept, places = np.unique(numbers, return_inverse=True)
        sums = np.zeros((len(kept), index.dim))
        for part, vectors in clusters.chunks(index, ids):
            _add_by_place(sums, places[part], np.asarray(_directed(vectors, index.metric)))
        means = sums / np.bincount(places, minlength=len(kept))[:, None]
        points = np.asarray(_directed(means, index.metric), np.float32)
        known = clusters.index_of(kept, points, index)
        known, numbers = _assigned(known, index, ids, lambda *_: None)
    with writer.transaction():
        clusters.replace(writer.connection, known, ids, numbers)


def _sample(index: fr.Index, ids: NDArray[np.int64], n: int, seed: int) -> NDArray[np.float32]:
    """The vectors of a random part of the items, or of all, as k-means takes them."""
    most = max(min(max(SAMPLE, FOR_EACH * n), SAMPLE_BYTES // (4 * index.dim)), 2 * n)
    if len(ids) > most:
        ids = np.sort(np.random.default_rng(seed).choice(ids, most, replace=False))
    rows = np.empty((len(ids), index.dim), np.float32)
    for part, vectors in clusters.chunks(index, ids):
        rows[part] = _directed(vectors, index.metric)
    return rows


def _directed(rows: NDArray[np.floating], metric: str) -> NDArray[np.floating]:
    """Rows of length one for cosine, which sees nothing else; as they are for other metrics."""
    found: NDArray[np.floating] = fr.normalize(rows) if metric == "cosine" else rows
    return found


def _assigned(
    known: fr.Index,
    index: fr.Index,
    ids: NDArray[np.int64],
    report: Report,
    *,
    by_size: bool = False,
) -> tuple[fr.Index, NDArray[np.int64]]:
    """The centres that have members, and the number of the nearest one for each item. ``by_size``
    numbers them anew, the largest first.
    """
    numbers = np.empty(len(ids), np.int64)
    for part, vectors in clusters.chunks(index, ids):
        numbers[part] = clusters.nearest(known, vectors)
        report("assigning", part.stop, len(ids))
    filled, counts = np.unique(numbers, return_counts=True)
    order = np.argsort(-counts, kind="stable") if by_size else np.arange(len(filled))
    names = np.arange(len(filled)) if by_size else filled
    if by_size:
        place = np.empty(int(filled[-1]) + 1, np.int64)
        place[filled[order]] = names
        numbers = place[numbers]
    return clusters.index_of(names, known.get(filled[order]), index), numbers


def _add_by_place(
    sums: NDArray[np.float64], places: NDArray[np.int64], rows: NDArray[np.floating]
) -> None:
    """Add each row to the sum at its place, in the order of the rows."""
    order = np.argsort(places, kind="stable")
    starts = np.flatnonzero(np.diff(places[order], prepend=-1))
    sums[places[order][starts]] += np.add.reduceat(rows[order].astype(np.float64), starts, axis=0)
