"""Self-joins and range search, each with FAISS beside it: the neighbour graph of all rows, pairs of
near-duplicates, and everything within a radius.

    pytest benchmarks/bench_graph.py --benchmark-only            # 100,000 rows: minutes
    pytest benchmarks/bench_graph.py --quick --benchmark-disable # are the answers right?
"""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import fastretrieve as fr
from fastretrieve.benchmarking.measure import OURS, Settings

DIM, K, N_ROWS, N_QUICK, N_QUERIES = 128, 10, 100_000, 3000, 1024
WHO = (OURS, "faiss")


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> np.ndarray:
    n = N_QUICK if request.config.getoption("--quick") else N_ROWS
    random = np.random.default_rng(7)
    rows = random.standard_normal((n, DIM), dtype=np.float32)
    copies = random.integers(0, n, n // 100)  # one in a hundred has a near-duplicate
    rows[random.permutation(n)[: len(copies)]] = rows[copies] + np.float32(1e-3)
    return rows


@pytest.fixture
def ours(rows: np.ndarray, settings: Settings) -> fr.Index:
    fr.set_num_threads(settings.threads)
    index = fr.Index(DIM, metric="sqeuclidean")
    index.add(rows)
    return index


@pytest.fixture
def faiss_index(rows: np.ndarray, settings: Settings) -> object:
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(settings.threads)
    index = faiss.IndexFlatL2(DIM)
    index.add(rows)
    return index


def describe(benchmark: BenchmarkFixture, group: str, who: str, rows: np.ndarray) -> None:
    benchmark.group = f"{group} {len(rows)} x {DIM}"
    benchmark.extra_info.update({"who": who, "n_rows": len(rows), "dim": DIM})


@pytest.mark.parametrize("who", WHO)
def test_knn_graph(
    who: str, rows: np.ndarray, benchmark: BenchmarkFixture, request: pytest.FixtureRequest
) -> None:
    describe(benchmark, f"knn_graph k={K}", who, rows)
    if who == OURS:
        graph = benchmark.pedantic(request.getfixturevalue("ours").knn_graph, (K,), rounds=3)
        some = np.arange(0, len(rows), len(rows) // 50)
        exact = fr.scores(rows[some], rows, metric="sqeuclidean", score_dtype="float64")
        exact[np.arange(len(some)), some] = np.inf  # not its own neighbour
        order = np.argsort(exact, axis=1, kind="stable")[:, :K]
        np.testing.assert_array_equal(graph.ids[some], order)
    else:
        index = request.getfixturevalue("faiss_index")
        benchmark.pedantic(index.search, (rows, K + 1), rounds=1)


@pytest.mark.parametrize("who", WHO)
def test_pairs(
    who: str, rows: np.ndarray, benchmark: BenchmarkFixture, request: pytest.FixtureRequest
) -> None:
    describe(benchmark, "pairs of near-duplicates", who, rows)
    radius = 0.01
    if who == OURS:
        found = benchmark.pedantic(request.getfixturevalue("ours").pairs, (radius,), rounds=3)
        assert len(found.ids) >= len(rows) // 200
        first, second = found.ids[:100].T
        assert ((rows[first] - rows[second]) ** 2).sum(axis=1).max() <= radius * 1.01
    else:
        index = request.getfixturevalue("faiss_index")
        benchmark.pedantic(index.range_search, (rows, radius), rounds=1)


@pytest.mark.parametrize("who", WHO)
def test_range_search(
    who: str, rows: np.ndarray, benchmark: BenchmarkFixture, request: pytest.FixtureRequest
) -> None:
    describe(benchmark, f"range_search of {N_QUERIES}", who, rows)
    queries = rows[:N_QUERIES]
    radius = 150.0
    if who == OURS:
        index = request.getfixturevalue("ours")
        found = benchmark(index.range_search, queries, radius)
        exact = fr.scores(queries[:20], rows, metric="sqeuclidean", score_dtype="float64")
        assert int(found.offsets[20]) == int((exact <= radius).sum())
    else:
        benchmark(request.getfixturevalue("faiss_index").range_search, queries, radius)
