"""Adding rows and ``fr.normalize``, each with the library people would use instead."""

from collections.abc import Callable

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import fastretrieve as fr
from fastretrieve.benchmarking.cases import GAUSSIAN, Data
from fastretrieve.benchmarking.measure import OURS, Settings
from fastretrieve.benchmarking.operations import add_rows, check_normalized


@pytest.mark.parametrize("who", [OURS, "faiss"])
def test_add(
    who: str, load: Callable[[str], Data], settings: Settings, benchmark: BenchmarkFixture
) -> None:
    rows = load(GAUSSIAN.name).rows
    benchmark.group = "add gaussian"
    benchmark.extra_info.update({"who": who, "n_rows": len(rows), "dim": rows.shape[1]})
    if who == OURS:
        fr.set_num_threads(settings.threads)
        index = add_rows(GAUSSIAN, rows)
        benchmark.extra_info["bytes"] = index.nbytes
        assert len(index) == len(rows)
        benchmark(add_rows, GAUSSIAN, rows)
    else:
        faiss = pytest.importorskip("faiss")
        benchmark(lambda: faiss.IndexFlatIP(rows.shape[1]).add(rows))


@pytest.mark.parametrize("who", [OURS, "torch"])
def test_normalize(
    who: str, load: Callable[[str], Data], settings: Settings, benchmark: BenchmarkFixture
) -> None:
    rows = load(GAUSSIAN.name).rows
    benchmark.group = "normalize gaussian"
    benchmark.extra_info.update({"who": who, "bytes": 2 * rows.nbytes})
    if who == OURS:
        fr.set_num_threads(settings.threads)
        check_normalized(rows, np.asarray(fr.normalize(rows)))
        benchmark(fr.normalize, rows)
    else:
        torch = pytest.importorskip("torch")
        torch.set_num_threads(settings.threads)
        benchmark(torch.nn.functional.normalize, torch.from_numpy(rows))
