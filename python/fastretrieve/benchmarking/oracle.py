"""The right answer for data too large for the slow and obvious way.

A float64 matrix product finds every row whose score could be among the best k, with a margin above
its rounding error; those few are scored again in the defined lane order (docs/exactness.md) and
ordered. It shares no code with the engine, and ``tests/test_benchmarking.py`` compares it with a
brute force that has no shortcut.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LANES = 8
CHUNK_VALUES = 1 << 24  # float64 values of rows at a time: 128 MiB


class Expected(NamedTuple):
    scores: NDArray[np.float64]  # [n_queries, k]
    ids: NDArray[np.int64]  # [n_queries, k]


class WrongAnswer(AssertionError):
    """A search did not return the answer of the float64 brute force."""


def lane_sum(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum the last axis in 8 interleaved lanes, then pairwise."""
    sums = np.zeros((*terms.shape[:-1], LANES))
    for start in range(0, terms.shape[-1], LANES):
        chunk = terms[..., start : start + LANES]
        sums[..., : chunk.shape[-1]] += chunk
    while sums.shape[-1] > 1:
        sums = sums[..., 0::2] + sums[..., 1::2]
    return np.asarray(sums[..., 0])


def canonical(
    query: NDArray[np.float64], rows: NDArray[np.float64], metric: str
) -> NDArray[np.float64]:
    """The defined score of one query with each row."""
    if metric in ("l2", "sqeuclidean"):
        squared = lane_sum((query - rows) ** 2)
        return squared if metric == "sqeuclidean" else np.asarray(np.sqrt(squared))
    scores = lane_sum(query * rows)
    if metric == "ip":
        return scores
    norms = np.sqrt(lane_sum(query * query)) * np.sqrt(lane_sum(rows * rows))
    return np.asarray(np.divide(scores, norms, out=np.zeros_like(scores), where=norms > 0))


def _near_scores(
    queries: NDArray[np.float64], rows: NDArray[np.float64], metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores where larger is better, and per query how far rounding may have moved them."""
    unit = rows.shape[1] * 2.0**-50  # a few times the error of any order of summation
    q2 = np.einsum("ij,ij->i", queries, queries)[:, None]
    x2 = np.einsum("ij,ij->i", rows, rows)[None, :]
    products = queries @ rows.T
    largest = np.sqrt(x2.max())
    if metric in ("l2", "sqeuclidean"):
        return 2 * products - q2 - x2, unit * (np.sqrt(q2) + largest) ** 2
    if metric == "ip":
        return products, unit * np.sqrt(q2) * largest
    norms = np.sqrt(q2) * np.sqrt(x2)
    cosine = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return cosine, np.full_like(q2, unit)


def exact_topk(
    queries: NDArray[np.float32], rows: NDArray[np.float32], *, k: int, metric: str
) -> Expected:
    """The k best rows for each query: better score first, then the smaller row number."""
    k = min(k, len(rows))
    wide = queries.astype(np.float64)
    best = np.full((len(queries), k), -np.inf)
    candidates: list[list[NDArray[np.int64]]] = [[] for _ in queries]
    chunk_rows = max(k, CHUNK_VALUES // rows.shape[1])
    for start in range(0, len(rows), chunk_rows):
        chunk = rows[start : start + chunk_rows].astype(np.float64)
        near, slack = _near_scores(wide, chunk, metric)
        best = -np.partition(-np.concatenate([best, near], axis=1), k - 1, axis=1)[:, :k]
        reach = near >= best.min(axis=1, keepdims=True) - 2 * slack
        for query, kept in enumerate(candidates):
            kept.append(start + np.flatnonzero(reach[query]))

    scores = np.empty((len(queries), k))
    ids = np.empty((len(queries), k), np.int64)
    sign = 1.0 if metric in ("l2", "sqeuclidean") else -1.0
    for query, kept in enumerate(candidates):
        rows_kept = np.concatenate(kept)
        exact = canonical(wide[query], rows[rows_kept].astype(np.float64), metric)
        order = np.lexsort((rows_kept, sign * exact))[:k]
        scores[query], ids[query] = exact[order], rows_kept[order]
    return Expected(scores, ids)


def check_equal(scores: NDArray[np.floating], ids: NDArray[np.int64], expected: Expected) -> None:
    """Raise ``WrongAnswer`` unless ids and scores are equal, the scores to the last bit."""
    if ids.shape != expected.ids.shape:
        raise WrongAnswer(f"ids have shape {ids.shape}, expected {expected.ids.shape}")
    wanted = expected.scores.astype(scores.dtype)
    wrong = np.argwhere((ids != expected.ids) | (scores != wanted))
    if len(wrong):
        query, rank = (int(i) for i in wrong[0])
        raise WrongAnswer(
            f"{len(wrong)} of {ids.size} results are wrong; first at query {query}, rank {rank}: "
            f"id {ids[query, rank]} with score {scores[query, rank]!r}, "
            f"expected id {expected.ids[query, rank]} with {wanted[query, rank]!r}"
        )


def recall(ids: NDArray[np.int64], expected: Expected) -> float:
    """The share of the expected ids that were found, in any order."""
    found = (ids[:, :, None] == expected.ids[:, None, :]).any(axis=1)
    return float(found.mean())
