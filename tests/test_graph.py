"""Self-joins: every pair within a radius once, the neighbours of every row, as the oracle says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cases
import fastretrieve as fr
import oracle
from fastretrieve._queries import joins

UseThreads = Callable[[int], None]


def pairs_of(
    rows: np.ndarray, radius: float, metric: str, ids: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(scores, ids) of every pair within the radius, in order of ids."""
    ids = np.arange(len(rows)) if ids is None else ids
    order = np.argsort(ids)
    ids, exact = ids[order], oracle.all_scores(rows[order], rows[order], metric)
    inside = exact <= radius if metric in oracle.DISTANCES else exact >= radius
    first, second = np.nonzero(np.triu(inside, 1))
    return exact[first, second], np.stack([ids[first], ids[second]], axis=1)


def assert_pairs(found: fr.Pairs, expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(found.ids, expected[1])
    np.testing.assert_array_equal(found.scores, expected[0])


def graph_of(
    rows: np.ndarray, k: int, metric: str, ids: np.ndarray, include_self: bool
) -> oracle.Best:
    exact = oracle.all_scores(rows, rows, metric)
    allowed = np.ones_like(exact, dtype=bool) if include_self else ~np.eye(len(rows), dtype=bool)
    return oracle.best(exact, k, metric, ids=ids, allowed=allowed)


def changed_index(metric: str, dtype: str = "float32") -> tuple[fr.Index, np.ndarray, np.ndarray]:
    """Several segments, ids of their own, removed rows; and what is left, in order of index.ids."""
    _, rows = cases.gaussian(700, 13, seed=41)
    rows[100:110] = rows[50]
    index: Any = fr.Index(13, metric=metric, dtype=dtype)  # type: ignore[arg-type]
    ids = np.random.default_rng(4).permutation(4000)[:700]
    for begin, end in [(0, 64), (64, 65), (65, 500), (500, 700)]:
        index.add(rows[begin:end], ids=ids[begin:end])
    index.remove(ids[::6])
    return index, index.get(index.ids), index.ids


def some_radius(rows: np.ndarray, metric: str, share: float) -> float:
    exact = np.sort(oracle.all_scores(rows, rows, metric).ravel())
    return float(exact[int(len(exact) * (share if metric in oracle.DISTANCES else 1 - share))])


SMALL = [name for name in cases.MAKERS if len(cases.case(name).rows) <= 1500]


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("name", SMALL)
def test_pairs_of_hard_cases(name: str, metric: str, isa: str) -> None:
    rows = cases.case(name).rows[:300]
    index = fr.Index(rows.shape[1], metric=metric)
    index.add(rows)
    for radius in (some_radius(rows, metric, 0.05), 0.0, math.inf, -math.inf):
        assert_pairs(index.pairs(radius, score_dtype="float64"), pairs_of(rows, radius, metric))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_pairs_of_a_changed_index(
    metric: str, dtype: str, threads: int, use_threads: UseThreads
) -> None:
    use_threads(threads)
    index, rows, ids = changed_index(metric, dtype)
    for radius in (some_radius(rows, metric, 0.03), math.inf, -math.inf):
        expected = pairs_of(rows, radius, metric, ids)
        assert_pairs(index.pairs(radius, score_dtype="float64"), expected)


@pytest.mark.parametrize("batch", [1, 7, 100, 10**6])
@pytest.mark.parametrize("pair_rows", [1, 50, 65536])
def test_pairs_in_parts(batch: int, pair_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joins, "PAIR_ROWS", pair_rows)
    index, rows, ids = changed_index("l2")
    radius = some_radius(rows, "l2", 0.01)
    parts = list(index.iter_pairs(radius, batch=batch, score_dtype="float64"))
    assert all(1 <= len(part.ids) <= batch for part in parts)
    scores = np.concatenate([part.scores for part in parts])
    together = np.concatenate([part.ids for part in parts])
    order = np.lexsort((together[:, 1], together[:, 0]))
    assert_pairs(fr.Pairs(scores[order], together[order]), pairs_of(rows, radius, "l2", ids))


def test_near_duplicates_by_the_thousand(use_threads: UseThreads) -> None:
    use_threads(2)
    row = np.random.default_rng(5).standard_normal(32).astype(np.float32)
    index = fr.Index(32)
    index.add(np.repeat(row[None], 3000, axis=0))
    largest = total = 0
    for part in index.iter_pairs(0.5, batch=10000):
        assert (part.ids[:, 0] < part.ids[:, 1]).all()
        largest, total = max(largest, len(part.ids)), total + len(part.ids)
    assert total == 3000 * 2999 // 2
    assert largest <= 10000


def test_pairs_compare_each_pair_once() -> None:
    _, rows = cases.gaussian(6400, 16, seed=42)
    index = fr.Index(16, metric="l2")
    index.add(rows)
    index.pairs(0.5)
    assert index.stats()["rows_scanned"] < 0.56 * 6400**2


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("k", [1, 10, 300, 700])
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_graph_of_a_changed_index(metric: str, k: int, include_self: bool, isa: str) -> None:
    index, rows, ids = changed_index(metric)
    found = index.knn_graph(k, include_self=include_self, score_dtype="float64")
    np.testing.assert_array_equal(found.rows, ids)
    oracle.assert_same(found, graph_of(rows, k, metric, ids, include_self))


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("name", SMALL)
def test_graph_of_hard_cases(name: str, metric: str, include_self: bool) -> None:
    rows = cases.case(name).rows[:200]
    index = fr.Index(rows.shape[1], metric=metric)
    index.add(rows)
    found = index.knn_graph(5, include_self=include_self, score_dtype="float64")
    oracle.assert_same(found, graph_of(rows, 5, metric, np.arange(len(rows)), include_self))


@pytest.mark.parametrize("batch", [1, 64, 100, 10**6])
def test_graph_in_parts(batch: int) -> None:
    index, _, _ = changed_index("cosine")
    whole = index.knn_graph(4)
    parts = list(index.iter_knn_graph(4, batch=batch))
    assert all(1 <= len(part.rows) <= batch for part in parts)
    for field in range(3):
        np.testing.assert_array_equal(np.concatenate([p[field] for p in parts]), whole[field])


def test_an_iterator_keeps_the_state_it_began_with() -> None:
    index = fr.Index(1, metric="l2")
    index.add(np.arange(200.0)[:, None])
    pairs, graph = index.iter_pairs(1, batch=50), index.iter_knn_graph(1, batch=50)
    index.remove(np.arange(0, 200, 2))
    index.add(np.arange(200.0)[:, None])
    assert sum(len(part.ids) for part in pairs) == 199
    assert np.concatenate([part.rows for part in graph]).tolist() == list(range(200))


def test_progress_reaches_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joins, "PAIR_ROWS", 64)
    monkeypatch.setattr(joins, "GRAPH_ROWS", 64)
    index, _, ids = changed_index("l2")
    seen: list[tuple[int, int]] = []
    index.knn_graph(2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(ids), len(ids))
    assert len(seen) > 5
    seen.clear()
    index.pairs(0.1, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (700, 700)  # removed rows are walked past
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_empty_and_single() -> None:
    index = fr.Index(2)
    assert index.pairs(0.5).ids.shape == (0, 2)
    assert index.pairs(0.5).scores.dtype == np.float32
    assert index.knn_graph(3).ids.shape == (0, 3)
    index.add([[1, 2]])
    assert len(index.pairs(-1).ids) == 0
    assert index.knn_graph(2).ids.tolist() == [[-1, -1]]
    assert index.knn_graph(2, include_self=True).ids.tolist() == [[0, -1]]
    index.remove([0])
    assert list(index.iter_pairs(-1)) == []
    assert list(index.iter_knn_graph(2)) == []


def test_errors_come_at_the_call_and_not_at_the_first_part() -> None:
    index = fr.Index(2)
    with pytest.raises(ValueError, match="radius must be a number, got NaN"):
        index.iter_pairs(math.nan)
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        index.iter_pairs(0.5, batch=0)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        index.iter_knn_graph(0)
    with pytest.raises(ValueError, match="score_dtype must be"):
        index.knn_graph(1, score_dtype="float16")  # type: ignore[arg-type]
