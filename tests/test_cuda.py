"""The CUDA backend finds what the oracle finds, bit for bit: on a GPU, or emulated.

Every test runs on every tier that the device has. ``cramped`` plans let the small cases pass every
stage of a scan; without them few rows are scored and never scanned.
"""

from __future__ import annotations

import numpy as np
import pytest

import cases
import cuda_backends
import oracle
from cuda_backends import NEEDS_CUDA, PRESENT, Place
from search_checks import (
    SEGMENTS,
    check_16_bits,
    check_batches,
    check_removed,
    check_segments,
    exact,
    masks_case,
    on_cuda,
    search,
)

pytestmark = NEEDS_CUDA


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("name", cases.MAKERS)
def test_hard_cases(name: str, metric: str, cramped: Place) -> None:
    queries, rows = cases.case(name)
    index, n = on_cuda(rows, metric), len(rows)
    for k in (1, 10, 100, n, n + 5):
        oracle.assert_same(search(index, queries, k), oracle.best(exact(name, metric), k, metric))


def test_few_rows_are_scored_without_a_scan(place: Place) -> None:
    queries, rows = cases.case("ordinary")
    index = on_cuda(rows[:250], "cosine")
    oracle.assert_same(search(index, queries, 10), oracle.topk(queries, rows[:250], 10, "cosine"))
    assert index.stats()["rows_scanned"] == 0
    index.add(rows[250:300])
    oracle.assert_same(search(index, queries, 10), oracle.topk(queries, rows[:300], 10, "cosine"))
    assert index.stats()["rows_scanned"] == 256 * len(queries)


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean"])
@pytest.mark.parametrize("dim", [1, 2, 3, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 767, 769])
def test_dimensions(dim: int, metric: str, cramped: Place) -> None:
    queries, rows = cases.gaussian(900, dim, n_queries=11)
    expected = oracle.topk(queries, rows, 7, metric)
    check_batches(on_cuda(rows, metric), queries, expected, (1, 3, 11))


@pytest.mark.parametrize("dim", [4096, 16384])
def test_large_dimensions(dim: int, cramped: Place) -> None:
    queries, rows = cases.gaussian(600, dim, n_queries=2)
    rows[::2] = np.sign(rows[::2])  # the largest sums of codes
    queries[0] = np.sign(queries[0])
    rows[500], rows[501] = queries[0], -queries[0]
    for metric in ("ip", "l2"):
        found = search(on_cuda(rows, metric), queries, 3)
        oracle.assert_same(found, oracle.topk(queries, rows, 3, metric))


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_batches_around_the_tiles(metric: str, place: Place) -> None:
    queries, rows = cases.gaussian(3000, 40, n_queries=300, seed=1)
    index = on_cuda(rows, metric, adds=[1000, 900])
    sizes = (1, 7, 8, 9, 16, 17, 33, 64, 65, 129, 256, 257, 300)
    check_batches(index, queries, oracle.topk(queries, rows, 10, metric), sizes)


@pytest.mark.parametrize("k", [500, 1500, 3000])
def test_more_results_than_are_sorted_in_shared_memory(k: int, place: Place) -> None:
    queries, rows = cases.gaussian(14000, 16, n_queries=3, seed=2)
    found = search(on_cuda(rows, "l2"), queries, k)
    oracle.assert_same(found, oracle.topk(queries, rows, k, "l2"))


@pytest.mark.parametrize("own_ids", [False, True])
@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("sizes", SEGMENTS.values(), ids=SEGMENTS)
def test_segments(sizes: list[int], metric: str, own_ids: bool, cramped: Place) -> None:
    check_segments(sizes, metric, own_ids, "cuda")


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_stored_in_16_bits(dtype: str, metric: str, cramped: Place) -> None:
    check_16_bits(dtype, metric, "cuda")


@pytest.mark.parametrize("metric", ["ip", "sqeuclidean"])
@pytest.mark.parametrize("density", [0.0, 0.003, 0.5, 1.0])
@pytest.mark.parametrize("for_each_query", [False, True])
def test_masks(for_each_query: bool, density: float, metric: str, cramped: Place) -> None:
    (queries, rows), allowed = masks_case(density, for_each_query)
    index = on_cuda(rows, metric, adds=[130])
    for n in (1, 6, 70):
        where = allowed[:n] if for_each_query else allowed[0]
        found = index.search(queries[:n], 10, where=where, score_dtype="float64")
        shared = allowed[:n] if for_each_query else allowed
        oracle.assert_same(found, oracle.topk(queries[:n], rows, 10, metric, allowed=shared))


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("keep", [0, 1, 64, 500])
def test_removed_rows_never_come_back(keep: int, metric: str, cramped: Place) -> None:
    check_removed(keep, metric, "cuda")


def test_near_duplicates_overflow_and_stay_exact(place: Place) -> None:
    queries, rows = cases.case("near duplicates overflow the buffer")
    index = on_cuda(rows, "l2")
    oracle.assert_same(search(index, queries, 10), oracle.topk(queries, rows, 10, "l2"))
    stats = index.stats()
    assert stats["overflows"] > 0
    assert stats["queries"] == len(queries)


def test_the_scan_leaves_few_rows_to_score(place: Place) -> None:
    queries, rows = cases.gaussian(20000, 64, n_queries=4, seed=10)
    index = on_cuda(rows, "ip")
    oracle.assert_same(search(index, queries, 10), oracle.topk(queries, rows, 10, "ip"))
    stats = index.stats()
    assert stats["overflows"] == 0
    assert stats["rows_scanned"] >= 4 * 19900
    assert 10 <= stats["rows_scored_per_query"] < 400


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_every_tier_leaves_the_same_rows_to_score(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filters differ, but intervals decide: a filter that drops too much shows here, even where no
    answer needs what it dropped.
    """
    queries, rows = cases.gaussian(3000, 64, n_queries=70, seed=24)
    rows[::7] *= 5
    expected = oracle.topk(queries, rows, 10, metric)
    scored = {}
    for tier in PRESENT:
        cuda_backends.install(monkeypatch, tier, tensors=False)
        index = on_cuda(rows, metric)
        oracle.assert_same(search(index, queries, 10), expected)
        scored[tier] = index.stats()["rows_scored"]
    assert len(set(scored.values())) == 1, scored


def test_an_empty_index_and_an_empty_batch(place: Place) -> None:
    index = on_cuda(np.zeros((0, 5), np.float32), "cosine")
    found = search(index, np.ones((2, 5), np.float32), 3)
    assert np.isnan(found.scores).all()
    assert (found.ids == -1).all()
    index.add(np.ones((3, 5)))
    assert search(index, np.ones((0, 5), np.float32), 3).ids.shape == (0, 3)


def test_the_order_of_lanes_and_blocks_changes_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, rows = cases.case("many ties")
    expected = oracle.topk(queries, rows, 10, "ip")
    wide = cases.gaussian(4000, 33, n_queries=20, seed=11)
    for seed in ("1", "2", "3"):
        monkeypatch.setenv("FR_EMU_SEED", seed)
        oracle.assert_same(search(on_cuda(rows, "ip"), queries, 10), expected)
        found = search(on_cuda(wide.rows, "cosine"), wide.queries, 9)
        oracle.assert_same(found, oracle.topk(*wide, 9, "cosine"))
