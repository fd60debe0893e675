"""What a change, a filter or a file costs: ours beside an unfiltered search, a fresh index, FAISS.

    make bench-life                    # this and bench_graph.py
    python benchmarks/bench_life.py    # 1,000,000 x 128: two minutes
    pytest benchmarks/bench_life.py    # are the answers right? Times nothing

Contenders take turns, so that a busy machine slows all alike, and every answer is compared with
that of an index which holds the allowed rows alone before anything is timed. The bars and what was
measured are printed and written to ``benchmarks/results/life.json``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from rich.console import Console

import fastretrieve as fr
from comparing import Call, Report, parser, use_threads
from fastretrieve.benchmarking.measure import OURS
from fastretrieve.benchmarking.timing import Timing

DIM, K, SEED = 128, 10, 1
SINGLE_PARTS = 10  # adding rows one by one is measured in so many turns
BATCHES = (1, 32)


class Filter(NamedTuple):
    """A restriction of the rows, and how much of an unfiltered search it may cost."""

    name: str
    limit: float
    where: Callable[[int], np.ndarray]  # of a batch: a mask, ids, or a mask for each query


def filters(n: int) -> Iterator[Filter]:
    random = np.random.default_rng(SEED)
    half, few = random.random(n) < 0.5, random.random(n) < 0.01
    begin, end = 37 * n // 100, 38 * n // 100
    span = (np.arange(n) >= begin) & (np.arange(n) < end)
    some = random.permutation(n)[: n // 100]
    each = random.random((max(BATCHES), n)) < 0.5
    yield Filter("mask, all rows", 1.15, lambda batch: np.ones(n, dtype=bool))
    yield Filter("mask, half of the rows", 1.15, lambda batch: half)
    yield Filter("mask, 1% here and there", 1.15, lambda batch: few)
    yield Filter("mask, 1% in one place", 0.03, lambda batch: span)
    yield Filter("ids, 1% in one place", 0.03, lambda batch: np.arange(begin, end))
    yield Filter("ids, 1% here and there", 1.15, lambda batch: some)
    yield Filter("a mask for each query", 1.15, lambda batch: each[:batch])


def measure_filters(report: Report, index: fr.Index, flat: Any, rows: np.ndarray) -> None:
    for batch in BATCHES:
        queries = rows[:: len(rows) // batch][:batch].copy()
        for name, limit, make in filters(len(rows)):
            where = make(batch)
            check(index, rows, queries, where)
            name = f"{name}, batch {batch}"
            calls: dict[str, Call] = {
                OURS: lambda: index.search(queries, K, where=where),  # noqa: B023 (called here)
                "unfiltered": lambda: index.search(queries, K),  # noqa: B023
            }
            if where.ndim == 1:  # FAISS takes one selector for all queries
                chosen = selector(where)
                calls["faiss"] = lambda: flat.search(queries, K, params=chosen)  # noqa: B023
            timings = report.compare(name, calls)
            ratio = timings[OURS].ratio_to(timings["unfiltered"])
            report.hold(name, "of an unfiltered search", ratio, limit)


def selector(where: np.ndarray) -> Any:
    """FAISS's quickest way to say the same."""
    if where.dtype == bool:
        bits = np.packbits(where, bitorder="little")
        return faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
    return faiss.SearchParameters(sel=faiss.IDSelectorBatch(where))


def check(index: fr.Index, rows: np.ndarray, queries: np.ndarray, where: np.ndarray) -> None:
    """A wrong answer has no speed: compare with an index of the allowed rows alone."""
    found = index.search(queries, K, where=where)
    each: tuple[Any, ...] = (slice(None),) if where.ndim == 1 else (0, len(queries) - 1)
    for i in each:
        one = where if where.ndim == 1 else where[i]
        ids = np.flatnonzero(one) if one.dtype == bool else np.sort(one)
        allowed = fr.Index(rows.shape[1], metric="ip")
        allowed.add(rows[ids], ids=ids)
        expected = allowed.search(queries[i], K)
        np.testing.assert_array_equal(found.ids[i], expected.ids)
        np.testing.assert_array_equal(found.scores[i], expected.scores)


def measure_files(report: Report, index: fr.Index, flat: Any, rows: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, theirs, own = (str(Path(folder) / name) for name in ("index", "faiss", "own ids"))
        report.compare(
            "saving",
            {OURS: lambda: index.save(path), "faiss": lambda: faiss.write_index(flat, theirs)},
        )
        mixed = fr.Index(DIM, metric="ip")
        mixed.add(rows, ids=np.random.default_rng(SEED).permutation(len(rows)))
        mixed.save(own)
        del mixed
        for name, file in (("loading by mmap", path), ("loading by mmap, ids of one's own", own)):
            timings = report.compare(
                name,
                {
                    OURS: lambda: fr.Index.load(file),  # noqa: B023 (called here)
                    "faiss": lambda: faiss.read_index(theirs, faiss.IO_FLAG_MMAP_IFC),
                },
            )
            report.hold(name, "ms", timings[OURS].median * 1e3, 50)
        mapped = fr.Index.load(path)
        np.testing.assert_array_equal(
            mapped.search(rows[:9], K).scores, index.search(rows[:9], K).scores
        )
        report.compare(
            "a search of a mapped index",
            {
                OURS: lambda: mapped.search(rows[:1], K),
                "in memory": lambda: index.search(rows[:1], K),
            },
        )


def measure_single_adds(report: Report, rows: np.ndarray) -> None:
    """One by one, each a call from Python; in turns with FAISS's."""
    index, flat = fr.Index(DIM, metric="ip"), faiss.IndexFlatIP(DIM)
    times: dict[str, list[float]] = {OURS: [], "faiss": []}
    for part in np.array_split(rows, SINGLE_PARTS):
        start = time.perf_counter()
        for row in part:
            index.add(row)
        middle = time.perf_counter()
        for row in part:
            flat.add(row[None])
        times[OURS].append(middle - start)
        times["faiss"].append(time.perf_counter() - middle)
    assert len(index) == flat.ntotal == len(rows)
    np.testing.assert_array_equal(index.get(index.ids[-100:]), rows[-100:])
    report.note(
        f"adding {len(rows) // SINGLE_PARTS:,} single vectors",
        {who: Timing(taken, taken) for who, taken in times.items()},
    )
    total = sum(times[OURS]) * 1_000_000 / len(rows)
    report.hold("adding 1,000,000 single vectors", "s", total, 10)


def measure_changes(report: Report, rows: np.ndarray) -> None:
    index = fr.Index(DIM, metric="ip")
    index.add(rows)
    numbers = iter(range(0, len(rows), 2))
    report.compare(
        "a single row of many",
        {
            "remove": lambda: index.remove([next(numbers)]),
            "update": lambda: index.update([next(numbers) + 1], rows[0]),
            "add": lambda: index.add(rows[0]),
        },
    )
    gone = np.random.default_rng(SEED).random(len(index)) < 0.2
    index.remove(index.ids[gone])
    before = index.nbytes
    index.compact()
    report.hold("compact() with a fifth removed", "of the bytes", index.nbytes / before, 0.85)
    fresh = fr.Index(DIM, metric="ip")
    fresh.add(index.get(index.ids))
    np.testing.assert_array_equal(
        index.search(rows[:9], K).scores, fresh.search(rows[:9], K).scores
    )
    for batch in BATCHES:
        name = f"after compact(), batch {batch}"
        timings = report.compare(
            name,
            {
                OURS: lambda: index.search(rows[:batch], K),  # noqa: B023 (called here)
                "fresh": lambda: fresh.search(rows[:batch], K),  # noqa: B023
            },
        )
        report.hold(name, "of a fresh index", timings[OURS].ratio_to(timings["fresh"]), 1.05)


def measure(report: Report, n_rows: int) -> None:
    """Everything, on gaussian rows."""
    rows = np.random.default_rng(0).standard_normal((n_rows, DIM), dtype=np.float32)
    index, flat = fr.Index(DIM, metric="ip"), faiss.IndexFlatIP(DIM)
    index.add(rows)
    flat.add(rows)
    measure_filters(report, index, flat, rows)
    measure_files(report, index, flat, rows)
    del index, flat
    measure_single_adds(report, rows)
    measure_changes(report, rows)


def test_the_answers_of_the_benchmark_are_right() -> None:
    report = Report(Console(quiet=True), seconds=1e-9)  # a call of each
    measure(report, 20_000)
    assert len(report.verdicts) == 2 * 7 + 2 + 1 + 1 + 2
    assert all(verdict.got > 0 for verdict in report.verdicts)


def main() -> None:
    """Measure everything, print it, write it down."""
    options = parser(__doc__, "life.json", 1_000_000).parse_args()
    use_threads(options.threads)
    report = Report()
    measure(report, options.rows)
    report.finish(options.json, {"n_rows": options.rows, "dim": DIM, "threads": options.threads})


if __name__ == "__main__":
    main()
