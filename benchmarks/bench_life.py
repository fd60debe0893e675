"""What a change, a filter or a file costs, beside a search of the same rows without it.

``python benchmarks/bench_life.py`` prints each bar with what was measured, as lines of JSON; a
filter is timed in turns with the unfiltered search, so that a busy machine slows both alike.
``pytest benchmarks/bench_life.py`` checks the answers on small data and times nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastretrieve as fr

DIM, K = 128, 10


class Bar(NamedTuple):
    what: str
    value: float
    limit: float
    unit: str

    def line(self) -> str:
        return json.dumps({**self._asdict(), "met": bool(self.value <= self.limit)})


def best(call: Callable[[], Any], other: Callable[[], Any], turns: int) -> tuple[float, float]:
    """The shortest times of two calls, in turns."""
    times: list[list[float]] = [[], []]
    for _ in range(turns + 1):
        for i, work in enumerate((call, other)):
            start = time.perf_counter()
            work()
            times[i].append(time.perf_counter() - start)
    return min(times[0][1:]), min(times[1][1:])


def filters(n: int) -> Iterator[tuple[str, float, Callable[[int], Any]]]:
    """Name, limit in units of the unfiltered search, and the mask or ids for a batch."""
    random = np.random.default_rng(1)
    half, few = random.random(n) < 0.5, random.random(n) < 0.01
    begin, end = 37 * n // 100, 38 * n // 100
    span = (np.arange(n) >= begin) & (np.arange(n) < end)
    some = random.permutation(n)[: n // 100]
    yield "mask, all rows", 1.15, lambda b: np.ones(n, dtype=bool)
    yield "mask, half of the rows", 1.15, lambda b: half
    yield "mask, 1% here and there", 1.15, lambda b: few
    yield "mask, 1% in one place", 0.03, lambda b: span
    yield "ids, 1% in one place", 0.03, lambda b: np.arange(begin, end)
    yield "ids, 1% here and there", 1.15, lambda b: some
    each = random.random((32, n)) < 0.5
    yield "a mask for each query", 1.15, lambda b: each[:b]


def measure_filters(index: fr.Index, rows: np.ndarray, turns: int) -> Iterator[Bar]:
    for batch in (1, 32):
        queries = rows[:: len(rows) // batch][:batch].copy()
        for name, limit, make in filters(len(index)):
            where = make(batch)
            check(index, rows, queries, where)
            filtered, plain = best(
                lambda: index.search(queries, K, where=where),  # noqa: B023
                lambda: index.search(queries, K),  # noqa: B023
                turns,
            )
            yield Bar(f"{name}, batch {batch}", filtered / plain, limit, "of an unfiltered search")


def check(index: fr.Index, rows: np.ndarray, queries: np.ndarray, where: np.ndarray) -> None:
    """A wrong answer has no speed: compare with an index of the allowed rows alone."""
    first = where[0] if where.ndim == 2 else where
    ids = np.flatnonzero(first) if first.dtype == bool else np.sort(first)
    allowed = fr.Index(rows.shape[1], metric=index.metric)  # type: ignore[arg-type]
    allowed.add(rows[ids], ids=ids)
    expected = allowed.search(queries[:1], K)
    found = index.search(queries, K, where=where)
    np.testing.assert_array_equal(found.ids[:1], expected.ids)
    np.testing.assert_array_equal(found.scores[:1], expected.scores)


def measure_changes(rows: np.ndarray, turns: int) -> Iterator[Bar]:
    # One thread works at all of these: its own time does not count what others do meanwhile.
    n_single = len(rows) // 10
    index = fr.Index(DIM, metric="ip")
    start = time.process_time()
    for row in rows[:n_single]:
        index.add(row)
    seconds = (time.process_time() - start) / n_single * 1_000_000
    yield Bar("adding 1M single vectors", seconds, 10, "s")
    index = fr.Index(DIM, metric="ip")
    index.add(rows)
    for what, change in (
        ("removing a single row of many", lambda i: index.remove([i])),
        ("updating a single row of many", lambda i: index.update([i + 1], rows[i])),
        ("adding a single row after removals", lambda i: index.add(rows[i])),
    ):
        start = time.process_time()
        for i in range(0, 2000, 2):
            change(i)
        yield Bar(what, (time.process_time() - start) / 1000 * 1e6, 100, "us")
    index.remove(index.ids[np.random.default_rng(2).random(len(index)) < 0.2])
    before = index.nbytes
    index.compact()
    fresh = fr.Index(DIM, metric="ip")
    fresh.add(index.get(index.ids))
    compacted, plain = best(
        lambda: index.search(rows[:1], K), lambda: fresh.search(rows[:1], K), turns
    )
    yield Bar("a search after compact()", compacted / plain, 1.05, "of a fresh index")
    yield Bar("memory after compact()", index.nbytes / before, 0.85, "of before, a fifth removed")


def measure_files(index: fr.Index, turns: int) -> Iterator[Bar]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        start = time.perf_counter()
        index.save(path)
        yield Bar("saving", time.perf_counter() - start, 5, "s")
        loading, _ = best(lambda: fr.Index.load(path), lambda: None, turns)
        yield Bar("loading by mmap", loading * 1000, 50, "ms")
        queries = index.get(index.ids[:1])
        mapped = fr.Index.load(path)
        from_file, plain = best(
            lambda: mapped.search(queries, K), lambda: index.search(queries, K), turns
        )
        yield Bar("a search of a mapped index", from_file / plain, 2, "of one in memory")


def measure(n_rows: int, turns: int) -> Iterator[Bar]:
    rows = np.random.default_rng(0).standard_normal((n_rows, DIM), dtype=np.float32)
    index = fr.Index(DIM, metric="ip")
    index.add(rows)
    yield from measure_filters(index, rows, turns)
    yield from measure_files(index, turns)
    del index
    yield from measure_changes(rows, turns)


def test_the_filters_of_the_benchmark_find_what_they_should() -> None:
    assert all(bar.value > 0 for bar in measure(20_000, 1))


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=20)
    options = parser.parse_args()
    for bar in measure(options.rows, options.turns):
        print(bar.line(), flush=True)


if __name__ == "__main__":
    main()
