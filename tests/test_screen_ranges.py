"""Range searches and self-joins through a screen: what the oracle returns, in every bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import cases
import fastretrieve as fr
import oracle
from search_checks import build, rounded
from test_graph import assert_pairs, pairs_of, some_radius
from test_range import assert_same, check_limit, radii, search, within
from test_screen import NAMES, always, exact, has_rows_to_judge, optimized, spectral, wide

UseThreads = Callable[[int], None]
__all__ = ["always"]  # a fixture


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("name", NAMES)
def test_hard_cases(
    name: str, metric: str, isa: str, use_threads: UseThreads, always: None
) -> None:
    queries, rows = map(wide, cases.case(name))
    if not has_rows_to_judge(rows, metric):
        return
    index = optimized(rows, metric)
    scores = exact(name, metric)
    for i, radius in enumerate(radii(scores, metric)):
        use_threads(1 + i % 3)
        assert_same(search(index, queries, radius), within(scores, radius, metric))


@pytest.fixture(scope="module")
def few() -> tuple[cases.Case, dict[str, np.ndarray]]:
    made = spectral(1500, 64, 40)
    return made, {metric: oracle.all_scores(*made, metric) for metric in oracle.METRICS}


Few = tuple[cases.Case, dict[str, np.ndarray]]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_batches(
    metric: str, threads: int, few: Few, isa: str, use_threads: UseThreads, always: None
) -> None:
    (queries, rows), scores = few
    index = optimized(rows, metric, adds=[300, 900])
    use_threads(threads)
    for n in (1, 2, 9, 33, 40):
        for radius in radii(scores[metric][:n], metric)[:3]:
            expected = within(scores[metric][:n], radius, metric)
            assert_same(search(index, queries[:n], radius), expected)
    stats = index.stats()
    assert 0 < stats["rows_compared"] < stats["rows_screened"]
    assert stats["leaves_skipped"] > 0
    assert stats["fell_back"] == 0


@pytest.mark.parametrize("for_each_query", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_masks_and_rows_that_come_and_go(
    metric: str, dtype: str, for_each_query: bool, few: Few, isa: str, always: None
) -> None:
    (queries, rows), _ = few
    index = optimized(rows[:1200], metric, dtype=dtype)
    index.remove(np.arange(0, 1200, 3))
    index.update(np.arange(1, 1200, 30), rows[1200:1240])
    index.add(rows[1240:])
    now = np.concatenate([rows[:1200], rows[1240:]])
    now[1:1200:30] = rows[1200:1240]
    ids = index.ids
    scores = oracle.all_scores(queries, rounded(now, dtype)[ids], metric)
    shape = (len(queries), len(ids)) if for_each_query else (len(ids),)
    mask = np.random.default_rng(4).random(shape) < 0.5
    radius = radii(scores, metric)[0]
    for where in (None, mask):
        found = index.range_search(queries, radius, where=where, score_dtype="float64")
        allowed = np.broadcast_to(True if where is None else where, scores.shape)
        parts = [
            within(scores[i : i + 1], radius, metric, ids=ids, allowed=allowed[i])
            for i in range(len(queries))
        ]
        assert found.offsets.tolist() == np.cumsum([0, *(len(p[1]) for p in parts)]).tolist()
        np.testing.assert_array_equal(found.scores, np.concatenate([p[1] for p in parts]))
        np.testing.assert_array_equal(found.ids, np.concatenate([p[2] for p in parts]))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_pairs(
    metric: str, threads: int, few: Few, isa: str, use_threads: UseThreads, always: None
) -> None:
    (_, rows), _ = few
    use_threads(threads)
    index = optimized(rows[:900], metric, adds=[200, 500])
    index.remove(np.arange(0, 900, 7))
    index.add(rows[900:1000])
    kept = index.ids
    for share in (0.002, 0.2):
        radius = some_radius(rows[kept], metric, share)
        expected = pairs_of(rows[kept], radius, metric, ids=kept)
        assert_pairs(index.pairs(radius, score_dtype="float64"), expected)
    assert index.stats()["rows_screened"] > 0


def test_zero_queries_find_every_row(always: None) -> None:
    (queries, rows) = spectral(700, 64, 3)
    queries[1] = 0
    index = optimized(rows, "ip")
    expected = within(oracle.all_scores(queries, rows, "ip"), -0.5, "ip")
    assert_same(search(index, queries, -0.5), expected)


def test_a_limit_gives_up(use_threads: UseThreads, always: None) -> None:
    queries, rows = spectral(1000, 64, 300)
    check_limit(optimized(rows, "l2"), queries, use_threads)


def test_costs_decide() -> None:
    """A small radius goes through the leaves, a radius that keeps everything does not."""
    queries, rows = spectral(20_000, 256, 64)
    index: fr.Index = build(rows, "l2")
    assert index.optimize().head > 0
    scores = oracle.all_scores(queries, rows, "l2")
    near, far = float(np.sort(scores, axis=1)[:, 5].mean()), float(np.median(scores))
    assert_same(search(index, queries, near), within(scores, near, "l2"))
    stats = index.stats()
    assert stats["rows_screened"] > 0 == stats["fell_back"]
    assert_same(search(index, queries, far), within(scores, far, "l2"))
    assert index.stats()["fell_back"] == 64
