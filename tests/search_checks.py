"""Checks of a search that every backend must pass: ``test_search.py`` calls them on the CPU,
``test_cuda.py`` on a GPU or its emulation. Each compares with the oracle, in every bit.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch

import cases
import fastretrieve as fr
import oracle

SEGMENTS = {
    "one row at a time": [1] * 70,
    "around a strip": [1, 63, 64, 65, 1000],
    "never a whole strip": [63, 1, 63, 1, 63],
    "whole strips": [64, 128, 64],
    "empty adds between": [0, 10, 0, 0, 100],
}


def build(rows: np.ndarray, metric: str, *, ids: Any = None, adds: Any = (), **options: Any) -> Any:
    """An index that got its rows in pieces of these sizes, and the rest at once."""
    index = fr.Index(rows.shape[1], metric=metric, **options)
    bounds = [0, *np.cumsum(adds, dtype=int).tolist(), len(rows)]
    for begin, end in pairwise(bounds):
        index.add(rows[begin:end], ids=None if ids is None else ids[begin:end])
    return index


def on_cuda(rows: np.ndarray, metric: str, **options: Any) -> Any:
    """The same on a GPU."""
    return build(rows, metric, device="cuda", **options)


def search(index: Any, queries: Any, k: int) -> fr.Hits:
    return index.search(queries, k, score_dtype="float64")


@cache
def exact(name: str, metric: str) -> np.ndarray:
    """The scores of a hard case."""
    return oracle.all_scores(*cases.case(name), metric)


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """The float32 of what is stored."""
    return torch.from_numpy(values).to(getattr(torch, dtype)).float().numpy()


def check_batches(index: Any, queries: np.ndarray, expected: oracle.Best, sizes: Any) -> None:
    """The first queries find what they find among all."""
    k = expected.ids.shape[1]
    for n in sizes:
        found = search(index, queries[:n], k)
        oracle.assert_same(found, oracle.Best(expected.scores[:n], expected.ids[:n]))


def check_segments(sizes: list[int], metric: str, own_ids: bool, device: str = "cpu") -> None:
    """Rows that came in pieces are found as if they had come at once."""
    queries, rows = cases.gaussian(1300, 19, seed=3)
    rows[200:260] = rows[700:760]  # ties between segments, decided by id
    random = np.random.default_rng(4)
    ids = random.permutation(5000)[: len(rows)].astype(np.int64) if own_ids else None
    index = build(rows, metric, ids=ids, adds=sizes, device=device)
    queries = np.concatenate([queries, rows[200:203]])
    oracle.assert_same(search(index, queries, 12), oracle.topk(queries, rows, 12, metric, ids=ids))


def check_16_bits(dtype: str, metric: str, device: str = "cpu") -> None:
    """Scores are those of the stored values, for queries of every type."""
    queries, rows = cases.gaussian(700, 45, n_queries=6, seed=5)
    queries[1], rows[5] = 0, 0
    rows[7] *= 1e-6  # subnormal in float16
    index = build(rows, metric, dtype=dtype, adds=[100, 37], device=device)
    stored = rounded(rows, dtype)
    np.testing.assert_array_equal(index.get(index.ids).astype(np.float32), stored)
    for kind in ("float32", "float16", "bfloat16"):
        sent = torch.from_numpy(queries).to(getattr(torch, kind))
        found = search(index, sent, 9)
        expected = oracle.topk(sent.float().numpy(), stored, 9, metric)
        oracle.assert_same(fr.Hits(found.scores.numpy(), found.ids.numpy()), expected)


def masks_case(density: float, for_each_query: bool) -> tuple[cases.Case, np.ndarray]:
    """Queries, rows, and which rows may be found: [1 or n_queries, n_rows]."""
    queries, rows = cases.gaussian(1200, 21, n_queries=70, seed=6)
    queries[3] = 0
    n = len(queries) if for_each_query else 1
    allowed = np.random.default_rng(7).random((n, len(rows))) < density
    return cases.Case(queries, rows), allowed


def check_removed(keep: int, metric: str, device: str = "cpu") -> None:
    """Rows that were removed never come back, before and after a compaction."""
    queries, rows = cases.gaussian(1000, 17, seed=8)
    queries[0] = 0
    index = build(rows, metric, adds=[64, 65, 300], device=device)
    stay = np.zeros(len(rows), bool)
    stay[np.random.default_rng(9).permutation(len(rows))[:keep]] = True
    index.remove(np.flatnonzero(~stay))
    expected = oracle.topk(queries, rows, 10, metric, allowed=stay)
    oracle.assert_same(search(index, queries, 10), expected)
    index.compact()
    oracle.assert_same(search(index, queries, 10), expected)
