"""Self-joins and range search beside FAISS: the neighbour graph of all rows, pairs of
near-duplicates, and everything within a radius.

    make bench-life                                              # this and bench_life.py
    python benchmarks/bench_graph.py                             # 100,000 x 128: two minutes
    pytest benchmarks/bench_graph.py --quick --benchmark-disable # are the answers right?

Ours and FAISS's calls take turns; each is what a user would write, Python included. The bars and
what was measured are printed and written to ``benchmarks/results/graph.json``.
"""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import fastretrieve as fr
from comparing import Call, Report, parser, use_threads
from fastretrieve.benchmarking.measure import OURS, Settings

DIM, K, N_ROWS, N_QUICK, N_QUERIES, N_CHECKED = 128, 10, 100_000, 3000, 1024, 50
NEAR, WIDE = 0.01, 150.0  # squared distances: of near-duplicates, of the nearest in ten thousand
GRAPH, PAIRS, RANGE = f"knn_graph k={K}", "pairs of near-duplicates", f"range_search of {N_QUERIES}"
TURNS = {GRAPH: 3, PAIRS: 2, RANGE: 7}


def vectors(n: int) -> np.ndarray:
    """Gaussian rows, of which one in a hundred has a near-duplicate."""
    random = np.random.default_rng(7)
    rows = random.standard_normal((n, DIM), dtype=np.float32)
    copies = random.integers(0, n, n // 100)
    rows[random.permutation(n)[: len(copies)]] = rows[copies] + np.float32(1e-3)
    return rows


def check_graph(index: fr.Index, rows: np.ndarray, some: np.ndarray) -> None:
    exact = fr.scores(rows[some], rows, metric="sqeuclidean", score_dtype="float64")
    exact[np.arange(len(some)), some] = np.inf  # not its own neighbour
    order = np.argsort(exact, axis=1, kind="stable")[:, :K]
    graph = index.knn_graph(K)
    np.testing.assert_array_equal(graph.rows, np.arange(len(rows)))
    np.testing.assert_array_equal(graph.ids[some], order)


def check_pairs(index: fr.Index, rows: np.ndarray, some: np.ndarray) -> None:
    exact = fr.scores(rows[some], rows, metric="sqeuclidean", score_dtype="float64")
    pairs = index.pairs(NEAR)
    assert len(pairs.ids) >= len(rows) // 200
    for i, row in enumerate(some):
        expected = np.flatnonzero(exact[i] <= NEAR)
        touching = pairs.ids[(pairs.ids == row).any(axis=1)]
        np.testing.assert_array_equal(np.union1d(touching, [row]), expected)


def check_range(index: fr.Index, rows: np.ndarray, queries: np.ndarray) -> None:
    exact = fr.scores(queries[:N_CHECKED], rows, metric="sqeuclidean", score_dtype="float64")
    found = index.range_search(queries, WIDE)
    assert int(found.offsets[N_CHECKED]) == int((exact <= WIDE).sum()) > N_CHECKED


def joins(n_rows: int) -> dict[str, tuple[Call, Call, Call]]:
    """Name: ours, FAISS's, and the check of ours."""
    rows = vectors(n_rows)
    queries, some = rows[:N_QUERIES], np.arange(0, n_rows, n_rows // N_CHECKED)
    index, flat = fr.Index(DIM, metric="sqeuclidean"), faiss.IndexFlatL2(DIM)
    index.add(rows)
    flat.add(rows)
    return {
        GRAPH: (
            lambda: index.knn_graph(K),
            lambda: flat.search(rows, K + 1),
            lambda: check_graph(index, rows, some),
        ),
        PAIRS: (
            lambda: index.pairs(NEAR),
            lambda: flat.range_search(rows, NEAR),
            lambda: check_pairs(index, rows, some),
        ),
        RANGE: (
            lambda: index.range_search(queries, WIDE),
            lambda: flat.range_search(queries, WIDE),
            lambda: check_range(index, rows, queries),
        ),
    }


@pytest.fixture(scope="module")
def calls(request: pytest.FixtureRequest, settings: Settings) -> dict[str, tuple[Call, Call, Call]]:
    use_threads(settings.threads)
    return joins(N_QUICK if request.config.getoption("--quick") else N_ROWS)


@pytest.mark.parametrize("who", [OURS, "faiss"])
@pytest.mark.parametrize("name", [GRAPH, PAIRS, RANGE])
def test_joins(
    name: str,
    who: str,
    calls: dict[str, tuple[Call, Call, Call]],
    benchmark: BenchmarkFixture,
) -> None:
    ours, theirs, check = calls[name]
    benchmark.group = name
    benchmark.extra_info.update({"who": who, "dim": DIM})
    if who == OURS:
        check()
    benchmark.pedantic(ours if who == OURS else theirs, rounds=3 if who == OURS else 1)


def main() -> None:
    """Check everything, measure it in turns, print it, write it down."""
    options = parser(__doc__, "graph.json", N_ROWS).parse_args()
    use_threads(options.threads)
    report = Report()
    for name, (ours, theirs, check) in joins(options.rows).items():
        check()
        # FAISS takes 15 s for some of these: so many turns, not so many seconds.
        timings = report.compare(name, {OURS: ours, "faiss": theirs}, rounds=TURNS[name])
        ratio = timings["faiss"].ratio_to(timings[OURS])
        report.hold(name, "times faiss", ratio, 3.0, most=False)
    report.finish(options.json, {"n_rows": options.rows, "dim": DIM, "threads": options.threads})


if __name__ == "__main__":
    main()
