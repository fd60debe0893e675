"""The answer, computed the slow and obvious way. Imports nothing from fastretrieve.

Every definition here is a line of ``docs/exactness.md``: scores are float64, summed in 8
interleaved lanes and then pairwise; the better score comes first, equal scores by the smaller id.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LANES = 8
METRICS = ("ip", "cosine", "sqeuclidean", "l2")
DISTANCES = ("sqeuclidean", "l2")

Float64s = NDArray[np.float64]


class Best(NamedTuple):
    scores: Float64s  # [n_queries, k], NaN where there are fewer rows
    ids: NDArray[np.int64]  # [n_queries, k], -1 there


def lane_sum(terms: Float64s) -> Float64s:
    """Sum the last axis: term i goes to lane i % 8, in order; then the lanes pairwise."""
    sums = np.zeros((*terms.shape[:-1], LANES))
    for start in range(0, terms.shape[-1], LANES):
        chunk = terms[..., start : start + LANES]
        sums[..., : chunk.shape[-1]] += chunk
    while sums.shape[-1] > 1:
        sums = sums[..., 0::2] + sums[..., 1::2]
    return np.asarray(sums[..., 0])


def norm(rows: NDArray[Any]) -> Float64s:
    wide = rows.astype(np.float64)
    return np.sqrt(lane_sum(wide * wide))


def scores(query: NDArray[Any], rows: NDArray[Any], metric: str) -> Float64s:
    """The canonical score of one query with each row."""
    q, x = query.astype(np.float64), rows.astype(np.float64)
    if metric in DISTANCES:
        squared = lane_sum((q - x) * (q - x))
        return squared if metric == "sqeuclidean" else np.sqrt(squared)
    products = lane_sum(q * x)
    if metric == "ip":
        return products
    norms = norm(q) * norm(x)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)


def all_scores(queries: NDArray[Any], rows: NDArray[Any], metric: str) -> Float64s:
    return np.stack([scores(q, rows, metric) for q in queries])


def best(
    exact: Float64s,  # [n_queries, n_rows]
    k: int,
    metric: str,
    *,
    ids: NDArray[np.int64] | None = None,  # of the rows; None: their numbers
    allowed: NDArray[np.bool_] | None = None,  # [n_rows] or [n_queries, n_rows]
) -> Best:
    """The best ``k`` rows for each query, in the canonical order."""
    n_queries, n_rows = exact.shape
    ids = np.arange(n_rows) if ids is None else ids
    allowed = np.broadcast_to(True if allowed is None else allowed, exact.shape)
    found = Best(np.full((n_queries, k), np.nan), np.full((n_queries, k), -1))
    sign = 1 if metric in DISTANCES else -1
    for i in range(n_queries):
        rows = np.flatnonzero(allowed[i])
        order = rows[np.lexsort((ids[rows], sign * exact[i, rows]))][:k]
        found.scores[i, : len(order)] = exact[i, order]
        found.ids[i, : len(order)] = ids[order]
    return found


def topk(
    queries: NDArray[Any],
    rows: NDArray[Any],
    k: int,
    metric: str,
    *,
    ids: NDArray[np.int64] | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> Best:
    return best(all_scores(queries, rows, metric), k, metric, ids=ids, allowed=allowed)


def normalize(x: NDArray[Any], mean: NDArray[Any] | None = None) -> NDArray[np.float32]:
    """``float32(float64(x - mean) / norm)``; a zero row stays zero."""
    return fuse([x], None, [mean])


def fuse(
    layers: list[NDArray[Any]],
    weights: list[float] | None,
    means: list[NDArray[Any] | None],
) -> NDArray[np.float32]:
    """Each layer centred, and with weights normalised and weighed; joined; the whole normalised."""
    joined = []
    for i, (layer, mean) in enumerate(zip(layers, means, strict=True)):
        part = layer.astype(np.float64)
        if mean is not None:
            part = part - mean.astype(np.float64)
        if weights is not None:
            size = norm(part)[:, None]
            part = np.divide(part, size, out=part.copy(), where=size > 0)
            part = np.where(size > 0, part * weights[i], part)
        joined.append(part)
    whole = np.concatenate(joined, axis=1)
    size = norm(whole)[:, None]
    return np.divide(whole, size, out=np.zeros_like(whole), where=size > 0).astype(np.float32)


def kmeans(
    x: NDArray[np.float32], centroids: NDArray[np.float32], max_iterations: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], float, int]:
    """Lloyd's iterations from given centroids; an empty cluster moves to the farthest row."""
    k, labels = len(centroids), np.full(len(x), -1)
    for iteration in range(1, max_iterations + 1):
        found = topk(x, centroids, 1, "sqeuclidean")
        distances, nearest = found.scores[:, 0], found.ids[:, 0]
        settled = (nearest == labels).all()
        labels = nearest
        if settled or iteration == max_iterations:
            break
        centroids = centroids.copy()
        far = iter(sorted(range(len(x)), key=lambda i: (-distances[i], i)))
        for c in range(k):
            members = x[labels == c].astype(np.float64)
            if len(members) == 0:
                centroids[c] = x[next(far)]
                continue
            total = np.zeros(x.shape[1])
            for member in members:  # in order of row
                total += member
            centroids[c] = total / len(members)
    inertia = 0.0
    for distance in distances:
        inertia += distance
    return centroids, labels, inertia, iteration


def assert_same(found: Any, expected: Best) -> None:
    """Ids equal and scores equal in every bit."""
    np.testing.assert_array_equal(found.ids, expected.ids)
    assert found.scores.dtype == np.float64
    np.testing.assert_array_equal(found.scores.view(np.uint64), expected.scores.view(np.uint64))
