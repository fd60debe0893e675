"""Many threads use one index at once. Run under ThreadSanitizer too (.ci/run tsan)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import cases
import fastretrieve as fr
import oracle


def same(found: Any, expected: oracle.Best) -> bool:
    return bool(
        np.array_equal(found.ids, expected.ids)
        and np.array_equal(found.scores.view(np.uint64), expected.scores.view(np.uint64))
    )


@contextmanager
def meanwhile(*work: Callable[[], object]) -> Iterator[None]:
    """Do this work over and over on threads of its own; what it raises is raised here."""
    stop = threading.Event()

    def loop(once: Callable[[], object]) -> int:
        count = 0
        while not stop.is_set() or count == 0:
            once()
            count += 1
        return count

    with ThreadPoolExecutor(len(work)) as pool:
        futures = [pool.submit(loop, once) for once in work]
        try:
            yield
        finally:
            stop.set()
        for future in futures:
            assert future.result() > 0


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_many_threads_search_one_index(metric: Any, use_threads: Callable[[int], None]) -> None:
    use_threads(3)
    queries, rows = cases.gaussian(4000, 32, n_queries=40, seed=70)
    index = fr.Index(32, metric=metric)
    index.add(rows)
    expected = oracle.topk(queries, rows, 10, metric)

    def search(worker: int) -> bool:
        results = []
        for turn in range(10):  # batches of every size, so that plans of every kind meet
            n = (worker * 7 + turn * 3) % 40 + 1
            found = index.search(queries[:n], 10, score_dtype="float64")
            results.append(same(found, oracle.Best(expected.scores[:n], expected.ids[:n])))
        return all(results)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(search, range(16)))
    sizes = [(worker * 7 + turn * 3) % 40 + 1 for worker in range(16) for turn in range(10)]
    assert index.stats()["queries"] == sum(sizes)


def test_a_search_sees_one_state_while_another_thread_adds(
    use_threads: Callable[[int], None],
) -> None:
    use_threads(2)
    queries, rows = cases.gaussian(3000, 16, n_queries=3, seed=71)
    sizes = [*range(0, 700, 37), *range(700, 3001, 230)]
    exact = oracle.all_scores(queries, rows, "l2")
    valid = [oracle.best(exact[:, :n], 5, "l2") for n in sizes]
    index = fr.Index(16, metric="l2")
    seen: list[int] = []

    def search() -> None:
        found = index.search(queries, 5, score_dtype="float64")
        matches = [n for n, state in enumerate(valid) if same(found, state)]
        assert matches, "the result belongs to no state that the index ever had"
        seen.append(matches[0])

    with meanwhile(search, search):
        for begin, end in pairwise(sizes):
            index.add(rows[begin:end])
    search()
    assert seen[-1] == len(valid) - 1


def test_an_id_is_always_there_while_its_row_is_updated() -> None:
    index = fr.Index(4, metric="l2")
    index.add(np.zeros((300, 4)))
    index.add(np.zeros((300, 4)), ids=np.random.default_rng(0).permutation(300) + 1000)
    ids = np.array([5, 299, 1000, 1299])

    def read() -> None:
        rows = index.get(ids)
        assert len(np.unique(rows)) == 1, "half of an update is visible"
        assert all(int(i) in index for i in ids)
        assert len(index.search(np.zeros((1, 4)), 600).ids[0]) == 600

    with meanwhile(read, read):
        for turn in range(150):
            index.update(ids, np.full((4, 4), turn))
            if turn % 50 == 49:
                index.compact()
    assert (index.get(ids) == 149).all()


def test_writers_wait_for_each_other() -> None:
    index = fr.Index(2)
    with ThreadPoolExecutor(4) as pool:
        given = list(pool.map(lambda i: index.add(np.full((50, 2), i + 1)), range(40)))
    assert sorted(np.concatenate(given).tolist()) == list(range(2000))
    for i, ids in enumerate(given):
        assert (index.get(ids) == i + 1).all()


def test_the_number_of_threads_may_change_during_searches(
    use_threads: Callable[[int], None],
) -> None:
    queries, rows = cases.gaussian(4000, 32, n_queries=30, seed=72)
    index = fr.Index(32)
    index.add(rows)
    expected = oracle.topk(queries, rows, 10, "cosine")

    def search() -> None:
        assert same(index.search(queries, 10, score_dtype="float64"), expected)

    with meanwhile(search, search, lambda: fr.normalize(rows)):
        for turn in range(60):
            use_threads(turn % 4 + 1)


def test_two_indexes_share_the_pool(use_threads: Callable[[int], None]) -> None:
    use_threads(2)
    queries, rows = cases.gaussian(20_000, 64, n_queries=200, seed=73)
    large, small = fr.Index(64), fr.Index(64)
    large.add(rows)
    small.add(rows[:2000])
    finished: list[str] = []
    with meanwhile(lambda: finished.append(f"large {len(large.search(queries, 10).ids)}")):
        for _ in range(20):
            small.search(queries[:8], 10)  # is served although a long search is running
            finished.append("small")
    assert finished.count("small") == 20


def test_an_error_in_one_thread_stays_there(use_threads: Callable[[int], None]) -> None:
    use_threads(3)
    queries, rows = cases.gaussian(5000, 32, n_queries=60, seed=74)
    index = fr.Index(32)
    index.add(rows)
    expected = oracle.topk(queries, rows, 5, "cosine")
    bad = queries.copy()
    bad[17] = np.nan

    def fails() -> None:
        with pytest.raises(ValueError, match="row 17"):
            index.search(bad, 5)

    with meanwhile(fails, fails):
        for _ in range(30):
            assert same(index.search(queries, 5, score_dtype="float64"), expected)
