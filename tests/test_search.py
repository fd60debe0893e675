"""A search returns what the oracle returns: the same ids and the same bits, whatever runs it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import cases
import fastretrieve as fr
import oracle
from fastretrieve import _core
from fastretrieve._backends.snapshot import Mask
from search_checks import (
    SEGMENTS,
    build,
    check_16_bits,
    check_batches,
    check_removed,
    check_segments,
    exact,
    masks_case,
    search,
)

UseThreads = Callable[[int], None]


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("name", cases.MAKERS)
def test_hard_cases(name: str, metric: str, isa: str, use_threads: UseThreads) -> None:
    queries, rows = cases.case(name)
    index = build(rows, metric)
    n = len(rows)
    for threads, k in [(1, 1), (2, 10), (3, 100), (5, 10), (2, n), (1, n + 5)]:
        use_threads(threads)
        expected = oracle.best(exact(name, metric), k, metric)
        oracle.assert_same(search(index, queries, k), expected)


@cache
def by_dim(dim: int, metric: str) -> tuple[cases.Case, np.ndarray]:
    made = cases.gaussian(150 if dim < 4096 else 70, dim, n_queries=11, seed=dim)
    return made, oracle.all_scores(*made, metric)


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("dim", cases.DIMS)
def test_dimensions(dim: int, metric: str, isa: str) -> None:
    (queries, rows), scores = by_dim(dim, metric)
    # A stream of few queries, and tiles of four with a rest.
    check_batches(build(rows, metric), queries, oracle.best(scores, 7, metric), (1, 3, 11))


def test_the_largest_dimension(isa: str) -> None:
    queries, rows = cases.gaussian(65, _core.MAX_DIM, n_queries=1)
    rows = np.sign(rows)  # codes at their limit: the largest sums an int32 ever sees
    queries = np.concatenate([np.sign(queries), rows[:1], np.ones_like(queries)])
    expected = oracle.topk(queries, rows, 3, "ip")
    oracle.assert_same(search(build(rows, "ip"), queries, 3), expected)


BATCHES = (*range(1, 10), 12, 15, 33, 64, 127, 128, 129, 300)


@cache
def batch_case(metric: str) -> tuple[cases.Case, oracle.Best]:
    made = cases.gaussian(3000, 100, n_queries=300, seed=1)
    return made, oracle.topk(*made, 10, metric)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_batch_splits(metric: str, threads: int, isa: str, use_threads: UseThreads) -> None:
    (queries, rows), expected = batch_case(metric)
    index = build(rows, metric, adds=[1000, 900])
    use_threads(threads)
    check_batches(index, queries, expected, BATCHES)


def reasons(n_rows: int, dim: int, threads: int, batches: Any = BATCHES) -> set[str]:
    plans = [_core.cpu_plan(n, n_rows // 64, dim, threads) for n in batches]
    return {re.search('because="(.*)"', plan)[1] for plan in plans}


def test_the_batches_reach_every_branch_of_the_plan() -> None:
    split = {"little work", "threads share the queries", "threads share the rows"}
    assert reasons(2900, 100, 1) == {"one thread"}
    assert reasons(2900, 100, 2) == split
    assert reasons(2900, 100, 3) == split
    assert reasons(2900, 100, 5) == split
    assert reasons(WIDE_ROWS, 392, 3, [1]) == {"threads share the rows"}


def test_a_plan_covers_all_queries_and_all_strips_once() -> None:
    for n_queries in (1, 2, 63, 64, 255, 256, 257, 1000, 5000):
        for n_strips in (0, 1, 15, 16, 17, 1000, 15625):
            for threads in (1, 2, 3, 16, 64):
                plan = _core.cpu_plan(n_queries, n_strips, 128, threads)
                panel, panels, chunk, chunks = map(int, re.findall(r"=(\d+)", plan))
                assert (panels - 1) * panel < n_queries <= panels * panel, plan
                assert (chunks - 1) * chunk <= n_strips <= chunks * chunk or n_strips == 0, plan
                assert panel <= 256, plan


WIDE_ROWS = 11_000


@cache
def wide_case(metric: str) -> tuple[cases.Case, oracle.Best]:
    made = cases.gaussian(WIDE_ROWS, 392, n_queries=10, seed=2)
    return made, oracle.topk(*made, 5, metric)


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean"])
def test_one_query_uses_every_thread(metric: str, isa: str, use_threads: UseThreads) -> None:
    (queries, rows), expected = wide_case(metric)
    index = build(rows, metric)
    use_threads(3)
    check_batches(index, queries, expected, (1, 10))


@pytest.mark.parametrize("own_ids", [False, True])
@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("sizes", SEGMENTS.values(), ids=SEGMENTS)
def test_segments(sizes: list[int], metric: str, own_ids: bool, isa: str) -> None:
    check_segments(sizes, metric, own_ids)


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_stored_in_16_bits(dtype: str, metric: str, isa: str) -> None:
    check_16_bits(dtype, metric)


def as_words(mask: np.ndarray) -> np.ndarray:
    """Booleans [n, n_rows] as bits of 64-bit words: row r is bit r % 64 of word r // 64."""
    padded = np.zeros((len(mask), -(-mask.shape[1] // 64) * 64), bool)
    padded[:, : mask.shape[1]] = mask
    return np.packbits(padded, axis=1, bitorder="little").view(np.uint64)


def masked(index: Any, masks: list[np.ndarray], stride: bool) -> Any:
    """The segments of an index with one mask [n_queries, n_rows] for each."""
    words = [as_words(mask) for mask in masks]
    strides = [w.shape[1] if stride else 0 for w in words]
    where = [int(w.ctypes.data) for w in words]
    return index._state.snapshot.masked(where, strides, Mask(words), ())


def with_booleans(index: Any, masks: list[np.ndarray]) -> Any:
    """The same with masks that are read as they are."""
    where = [int(mask.ctypes.data) for mask in masks]
    strides = [mask.strides[0] for mask in masks]
    return index._state.snapshot.masked(where, strides, Mask(booleans=masks[0]), masks)


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("density", [0.0, 0.003, 0.5, 1.0])
@pytest.mark.parametrize("for_each_query", [False, True])
def test_masks(
    for_each_query: bool, density: float, metric: str, isa: str, use_threads: UseThreads
) -> None:
    (queries, rows), allowed = masks_case(density, for_each_query)
    index = build(rows, metric, adds=[130])
    sizes = [segment.n_rows for segment in index._state.segments]
    masks = np.split(allowed, np.cumsum(sizes)[:-1], axis=1)
    use_threads(3)
    found = [masked(index, masks, for_each_query)]
    if for_each_query:
        found.append(with_booleans(index, masks))
    for n in (1, 6, 70):
        expected = oracle.topk(queries[:n], rows, 10, metric, allowed=allowed[: max(n, 1)])
        for segments in found:
            scores, ids = index._form.backend.search(
                queries[:n], segments, 10, index._counters, True
            )
            oracle.assert_same(fr.Hits(scores, ids), expected)


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("keep", [0, 1, 64, 500])
def test_removed_rows_never_come_back(keep: int, metric: str, isa: str) -> None:
    check_removed(keep, metric)


@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_later_rows_win_ties_with_rows_that_were_scored_first(
    metric: str, k: int, isa: str
) -> None:
    queries, rows = cases.case("equal rows behind the strips")
    ids = np.concatenate([np.arange(640)[::-1], np.arange(640, len(rows))])
    index = build(rows, metric, ids=ids)
    oracle.assert_same(search(index, queries, k), oracle.topk(queries, rows, k, metric, ids=ids))


@pytest.mark.parametrize("k", [1, 2, 5, 10, 20, 64])
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_rows_from_the_best_to_the_worst(metric: str, k: int, isa: str) -> None:
    """With gaps wider than the codes' errors: a threshold that only k - 1 rows reach rules out the
    rest.
    """
    angles = np.linspace(0, np.pi, 128, endpoint=False)
    rows = np.float32(0.9 ** np.arange(128) * [np.cos(angles), np.sin(angles)]).T.copy()
    queries = np.float32([[1, 0]] * 9)  # more than a stream of single queries takes
    for some in (queries, queries[:1]):
        oracle.assert_same(search(build(rows, metric), some, k), oracle.topk(some, rows, k, metric))


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_zero_queries_in_segments_with_ids_in_any_order(metric: str, isa: str) -> None:
    _, rows = cases.gaussian(3000, 8, seed=10)
    ids = np.random.default_rng(11).permutation(3000).astype(np.int64)
    queries = np.zeros((2, 8), np.float32)
    index = build(rows, metric, ids=ids, adds=[1500])
    oracle.assert_same(search(index, queries, 20), oracle.topk(queries, rows, 20, metric, ids=ids))


def test_scores_come_as_float32_of_the_float64_score(isa: str) -> None:
    queries, rows = cases.case("ordinary")
    index = build(rows, "ip")
    narrow, wide = index.search(queries, 10), search(index, queries, 10)
    assert narrow.scores.dtype == np.float32
    np.testing.assert_array_equal(narrow.scores, wide.scores.astype(np.float32))


def test_float32_scores_may_overflow_while_the_order_stands(isa: str) -> None:
    queries, rows = cases.case("as large as float32 goes")
    found = build(rows, "sqeuclidean").search(queries, 5)
    expected = oracle.topk(queries, rows, 5, "sqeuclidean")
    np.testing.assert_array_equal(found.ids, expected.ids)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(found.scores, expected.scores.astype(np.float32))


def test_instruction_sets_are_named_and_forced(isa: str) -> None:
    assert fr.Index(3)._form.backend.name == isa
    with pytest.raises(ValueError, match=r"instruction set 'neon' .* this machine has .*scalar"):
        _core.CpuBackend("neon")
