"""A search at every batch size, ours and each peer's, in one group."""

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from conftest import BATCHES
from fastretrieve.benchmarking import oracle
from fastretrieve.benchmarking.cases import CASES, TINY
from fastretrieve.benchmarking.limits import MachineLimits
from fastretrieve.benchmarking.measure import OURS, SearchBench, scanned_bytes

K = 10
LARGE_K = 100
WHO = (OURS, f"{OURS} k={LARGE_K}", "faiss x1", "faiss x2", "usearch", "torch", "scikit-learn")
PLACES = [(case, batch) for case in CASES for batch in BATCHES if case != TINY.name or batch == 1]


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(("case", "batch"), PLACES)
def test_search(
    case: str,
    batch: int,
    who: str,
    searches: Callable[[str], SearchBench],
    limits: MachineLimits,
    benchmark: BenchmarkFixture,
) -> None:
    bench = searches(case)
    queries = bench.data.queries[:batch]
    benchmark.group = f"{case} batch {batch}"
    n_rows, dim = bench.data.rows.shape
    benchmark.extra_info.update(
        {"who": who, "n_rows": n_rows, "dim": dim, "n_queries": batch, "metric": bench.case.metric}
    )
    if who.startswith(OURS):
        k = LARGE_K if who.endswith(str(LARGE_K)) else K
        bench.check(queries, k)
        benchmark(bench.index.search, queries, k=k)
        _relate(benchmark, bench, batch, limits)
        return
    search = bench.peers.get(who)
    if search is None:
        pytest.skip(bench.skipped.get(who.split(" x")[0], f"{who} is not measured here"))
    asked, expected = bench.expected(batch, K)
    benchmark.extra_info["recall"] = oracle.recall(search(queries, K)[asked], expected)
    benchmark(search, queries, K)


def _relate(
    benchmark: BenchmarkFixture, bench: SearchBench, batch: int, limits: MachineLimits
) -> None:
    """How far from what the machine can do."""
    n_rows, dim = bench.data.rows.shape
    n_bytes = scanned_bytes(n_rows, dim, bench.case.metric)
    info = {"bytes": n_bytes, "read_rate": limits.read_rate, "int8_rate": limits.int8_rate}
    if benchmark.stats is not None:  # None under --benchmark-disable
        seconds = benchmark.stats.stats.median
        info["share_of_read"] = n_bytes / limits.read_rate / seconds
        info["share_of_int8"] = batch * n_rows * dim / limits.int8_rate / seconds
    benchmark.extra_info.update(info)
