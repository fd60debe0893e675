"""Range search returns what the oracle returns: every row within the radius, to the last bit."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import cases
import fastretrieve as fr
import oracle
from fastretrieve import _core

UseThreads = Callable[[int], None]


def within(
    exact: np.ndarray,  # [n_queries, n_rows]
    radius: float,
    metric: str,
    ids: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(offsets, scores, ids), from the definition."""
    ids = np.arange(exact.shape[1]) if ids is None else ids
    distance = metric in oracle.DISTANCES
    offsets, found_scores, found_ids = [0], [np.zeros(0)], [np.zeros(0, int)]
    for scores in exact:
        inside = scores <= radius if distance else scores >= radius
        rows = np.flatnonzero(inside & (True if allowed is None else allowed))
        order = rows[np.lexsort((ids[rows], scores[rows] if distance else -scores[rows]))]
        found_scores.append(scores[order])
        found_ids.append(ids[order])
        offsets.append(offsets[-1] + len(order))
    return np.array(offsets), np.concatenate(found_scores), np.concatenate(found_ids)


def assert_same(found: fr.InRange, expected: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(found.offsets, expected[0])
    np.testing.assert_array_equal(found.ids, expected[2])
    assert found.scores.dtype == np.float64
    # A score of -0.0 equals one of 0.0, and a distance is never -0.0.
    np.testing.assert_array_equal(found.scores, expected[1])


def build(rows: np.ndarray, metric: str, **options: Any) -> fr.Index:
    index = fr.Index(rows.shape[1], metric=metric, **options)
    index.add(rows)
    return index


def search(index: fr.Index, queries: np.ndarray, radius: float) -> fr.InRange:
    return index.range_search(queries, radius, score_dtype="float64")


def radii(exact: np.ndarray, metric: str) -> list[float]:
    """Equal to a score, a step beside it on both sides, all rows, no row."""
    some = float(np.sort(exact.ravel())[exact.size // 20])
    if metric not in oracle.DISTANCES:
        some = float(np.sort(exact.ravel())[-exact.size // 20])
    beside = [math.nextafter(some, -math.inf), math.nextafter(some, math.inf)]
    return [some, *beside, 0.0, -math.inf, math.inf]


@cache
def exact_scores(name: str, metric: str) -> np.ndarray:
    return oracle.all_scores(*cases.case(name), metric)


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("name", cases.MAKERS)
def test_hard_cases(name: str, metric: str, isa: str, use_threads: UseThreads) -> None:
    queries, rows = cases.case(name)
    index = build(rows, metric)
    exact = exact_scores(name, metric)
    for i, radius in enumerate(radii(exact, metric)):
        use_threads(1 + i % 3)
        assert_same(search(index, queries, radius), within(exact, radius, metric))


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_radius_is_the_score_of_each_row_in_turn(metric: str, isa: str) -> None:
    queries, rows = cases.gaussian(130, 19, n_queries=1, seed=31)
    exact = oracle.all_scores(queries, rows, metric)
    index = build(rows, metric)
    for radius in exact[0]:
        found = search(index, queries, float(radius))
        assert_same(found, within(exact, radius, metric))
        assert radius in found.scores


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n_queries", [1, 3, 8, 64, 129, 700])
def test_batches_and_threads(n_queries: int, threads: int, use_threads: UseThreads) -> None:
    queries, rows = cases.gaussian(3000, 24, n_queries=n_queries, seed=32)
    exact = oracle.all_scores(queries, rows, "l2")
    use_threads(threads)
    index = build(rows, "l2")
    assert_same(search(index, queries, 5.0), within(exact, 5.0, "l2"))


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_segments_own_ids_and_removed_rows(dtype: str, metric: str, isa: str) -> None:
    queries, rows = cases.gaussian(900, 21, seed=33)
    index = fr.Index(21, metric=metric, dtype=dtype)
    ids = np.random.default_rng(3).permutation(5000)[:900]
    for begin, end in [(0, 70), (70, 71), (71, 600), (600, 900)]:
        index.add(rows[begin:end], ids=ids[begin:end])
    gone = np.arange(900) % 5 == 0
    index.remove(ids[gone])
    exact = oracle.all_scores(queries, index.get(ids[~gone]), metric)
    for radius in radii(exact, metric):
        expected = within(exact, radius, metric, ids=ids[~gone])
        assert_same(search(index, queries, radius), expected)


def test_near_duplicates_by_the_thousand(use_threads: UseThreads) -> None:
    _, rows = cases.case("near duplicates overflow the buffer")
    rows = np.repeat(rows, 4, axis=0)
    exact = oracle.all_scores(rows[:3], rows, "cosine")
    use_threads(2)
    index = build(rows, "cosine")
    radius = float(np.median(exact))
    assert_same(search(index, rows[:3], radius), within(exact, radius, "cosine"))


def test_codes_spare_most_rows() -> None:
    queries, rows = cases.gaussian(6400, 64, seed=34)
    index = build(rows, "l2")
    found = search(index, queries, 7.5)
    stats = index.stats()
    assert stats["queries"] == len(queries)
    assert stats["rows_scanned"] == len(queries) * len(rows)
    assert len(found.ids) <= stats["rows_scored"] < len(queries) * len(rows) / 20


def test_empty_index_no_queries_and_only_a_tail() -> None:
    index = fr.Index(3, metric="l2")
    assert search(index, np.zeros((2, 3)), math.inf).offsets.tolist() == [0, 0, 0]
    index.add([[1, 0, 0], [0, 2, 0]])
    none = search(index, np.zeros((0, 3), np.float32), 1.0)
    assert none.offsets.tolist() == [0]
    assert len(none.ids) == len(none.scores) == 0
    assert search(index, np.zeros(3), 1.0).ids.tolist() == [0]


def test_kinds_of_arrays() -> None:
    index = fr.Index(2, metric="l2")
    index.add([[0, 0], [3, 4]])
    found = index.range_search(torch.zeros(1, 2), 5)
    assert isinstance(found.ids, torch.Tensor)
    assert found.scores.dtype == torch.float32
    assert found.scores.tolist() == [0, 5]
    assert index.range_search([[0, 0]], 1).scores.dtype == np.float32


def test_errors_say_what_is_wrong() -> None:
    index = fr.Index(2)
    index.add([[1, 0]])
    with pytest.raises(ValueError, match="radius must be a number, got NaN"):
        index.range_search([[1, 0]], math.nan)
    with pytest.raises(ValueError, match="queries have dimension 3 but the index has dimension 2"):
        index.range_search([[1, 0, 0]], 0.5)
    with pytest.raises(ValueError, match="score_dtype must be float32 or float64, got 'int8'"):
        index.range_search([[1, 0]], 0.5, score_dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not finite in row 1"):
        index.range_search([[1, 0], [math.nan, 0]], 0.5)


def check_limit(index: fr.Index, queries: np.ndarray, use_threads: UseThreads) -> None:
    """One pair fewer than there are is too few."""
    for threads in (1, 2):
        use_threads(threads)
        for n in (1, len(queries)):
            n_pairs = n * len(index)
            args = (queries[:n], index._state.snapshot, math.inf, _core.Counters(), False)
            assert index._form.backend.range(*args, limit=n_pairs - 1) is None
            found = index._form.backend.range(*args, limit=n_pairs)
            assert found is not None
            assert len(found[2]) == n_pairs


def test_a_limit_gives_up(use_threads: UseThreads) -> None:
    queries, rows = cases.gaussian(1000, 8, n_queries=300, seed=35)
    check_limit(build(rows, "l2"), queries, use_threads)


def test_while_rows_are_added_a_search_sees_one_state() -> None:
    index = build(np.ones((64, 4), np.float32), "ip")
    stop = threading.Event()

    def add() -> None:
        while not stop.is_set() and len(index) < 20000:
            index.add(np.ones((7, 4), np.float32))

    thread = threading.Thread(target=add)
    thread.start()
    try:
        for _ in range(200):
            before = len(index)
            found = search(index, np.ones((1, 4), np.float32), 4.0)
            assert before <= len(found.ids) <= len(index)
            assert (len(found.ids) - 64) % 7 == 0
            assert (found.ids == np.arange(len(found.ids))).all()
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("name", cases.MAKERS)
def test_scores_are_canonical(name: str, metric: str, isa: str) -> None:
    queries, rows = cases.case(name)
    found = fr.scores(queries, rows, metric=metric, score_dtype="float64")
    expected = exact_scores(name, metric)
    np.testing.assert_array_equal(found.view(np.uint64), expected.view(np.uint64))


def test_scores_of_other_types_and_wrong_input() -> None:
    queries, rows = cases.gaussian(2100, 9, n_queries=3, seed=36)
    half = rows.astype(np.float16)
    expected = oracle.all_scores(queries, half, "l2")
    np.testing.assert_array_equal(
        fr.scores(queries, half, metric="l2", score_dtype="float64"), expected
    )
    assert fr.scores(queries[0], rows, metric="ip").shape == (2100,)
    assert isinstance(fr.scores(torch.ones(1, 2), [[1, 2]]), torch.Tensor)
    with pytest.raises(ValueError, match="queries have dimension 9 but rows have 8"):
        fr.scores(queries, rows[:, :8])
    with pytest.raises(ValueError, match="rows hold a value that is not finite in row 1"):
        fr.scores([[1.0]], [[1.0], [math.inf], [math.nan]])
    with pytest.raises(ValueError, match="metric must be"):
        fr.scores([[1.0]], [[1.0]], metric="cos")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["mask", "ids", "mask of each query", "exclude"])
def test_filters(given: str, isa: str) -> None:
    queries, rows = cases.gaussian(500, 11, seed=37)
    index = build(rows, "l2")
    index.remove(np.arange(0, 500, 7))
    ids = index.ids
    random = np.random.default_rng(7)
    shape = (len(queries), len(ids)) if "each" in given else (len(ids),)
    allowed = random.random(shape) < 0.3
    how: dict[str, Any] = {"where": allowed}
    if given == "ids":
        how = {"where": ids[allowed]}
    elif given == "exclude":
        how = {"exclude": ids[~allowed]}
    exact = oracle.all_scores(queries, rows[ids], "l2")
    masks = np.broadcast_to(allowed, exact.shape)
    found = index.range_search(queries, 4.5, score_dtype="float64", **how)
    for i in range(len(queries)):
        _, scores, expected = within(exact[i : i + 1], 4.5, "l2", ids=ids, allowed=masks[i])
        part = slice(found.offsets[i], found.offsets[i + 1])
        np.testing.assert_array_equal(found.ids[part], expected)
        np.testing.assert_array_equal(found.scores[part], scores)
