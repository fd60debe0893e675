"""What the pytest-benchmark suites share: the options, the cases, and what goes into the JSON.

make bench-suite
pytest-benchmark compare 0001 0002      # two commits, from .benchmarks/
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastretrieve.benchmarking import environment
from fastretrieve.benchmarking.cases import CASES, QUICK_ROWS, CaseUnavailable, Data
from fastretrieve.benchmarking.limits import MachineLimits
from fastretrieve.benchmarking.measure import SearchBench, Settings
from fastretrieve.benchmarking.peers import PEERS

BATCHES = (1, 32, 1024)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="small data: is every answer right?")
    parser.addoption("--threads", type=int, default=environment.usable_cores())


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    commit_info["fastretrieve"] = environment.commit()


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    machine_info["fastretrieve"] = environment.describe()


@pytest.fixture(scope="session")
def settings(request: pytest.FixtureRequest) -> Settings:
    return Settings(threads=request.config.getoption("--threads"), peers=tuple(PEERS))


@pytest.fixture(scope="session")
def limits(settings: Settings) -> MachineLimits:
    """The machine's ceilings, sampled once for the whole run."""
    measured = MachineLimits(settings.threads)
    for _ in range(5):
        measured.sample()
    return measured


@pytest.fixture(scope="module")
def load(request: pytest.FixtureRequest) -> Callable[[str], Data]:
    """The data of a case; only the last one is kept, as two large ones need not fit."""
    kept: dict[str, Data] = {}

    def data(name: str) -> Data:
        if name not in kept:
            kept.clear()
            case = CASES[name]
            if request.config.getoption("--quick"):
                case = case.smaller(QUICK_ROWS)
            try:
                kept[name] = case.load()
            except CaseUnavailable as error:
                pytest.skip(str(error))
        return kept[name]

    return data


@pytest.fixture(scope="module")
def searches(
    load: Callable[[str], Data], settings: Settings
) -> Iterator[Callable[[str], SearchBench]]:
    """A case with its index, its peers and its expected answers; only the last one is kept."""
    kept: dict[str, SearchBench] = {}

    def bench(name: str) -> SearchBench:
        if name not in kept:
            kept.clear()
            data = load(name)
            kept[name] = SearchBench(CASES[name], data, BATCHES, settings)
        return kept[name]

    yield bench
    kept.clear()
