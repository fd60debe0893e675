"""The promises about speed and size, each with a number that a run passes or misses."""

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fastretrieve.benchmarking.cases import CLUSTERED, FASHION, GAUSSIAN, TINY
from fastretrieve.benchmarking.measure import LARGE_K, OURS, Measurement

MEMORY_PER_QUERY = 64 << 10  # bytes: it may grow with the batch and k, never with the rows


@dataclass(frozen=True)
class Bar:
    what: str
    operation: str
    cases: tuple[str, ...]
    n_queries: int | None  # None: every batch size
    wanted: float
    at_least: bool
    value: Callable[[Measurement], float | None]  # None: not measured in this run


class Verdict(NamedTuple):
    benchmark: str
    what: str
    wanted: str
    got: float
    passed: bool

    @property
    def word(self) -> str:
        return "PASS" if self.passed else "MISS"


def _against(prefix: str) -> Callable[[Measurement], float | None]:
    def value(result: Measurement) -> float | None:
        peer = result.best_peer(prefix=prefix)
        return peer.ratio if peer else None

    return value


def _figure(name: str) -> Callable[[Measurement], float | None]:
    return lambda result: result.figures.get(name)


def _large_k(result: Measurement) -> float | None:
    name = f"{OURS} k={LARGE_K}"
    return next((c.ratio for c in result.contenders if c.name == name), None)


def _seconds(result: Measurement) -> float:
    return result.ours.median_ms / 1e3


LARGE = (GAUSSIAN.name, CLUSTERED.name, FASHION.name)

BARS = (
    Bar("times the best peer", "search", LARGE, 1, 3.5, True, _against("")),
    Bar("of the read rate", "search", LARGE, 1, 0.80, True, _figure("share_of_read")),
    Bar("times the best peer", "search", LARGE, 32, 4.0, True, _against("")),
    Bar("times faiss", "search", LARGE, 32, 10.0, True, _against("faiss")),
    Bar("times the best peer", "search", LARGE, 1024, 3.5, True, _against("")),
    Bar("of the int8 peak", "search", LARGE, 1024, 0.70, True, _figure("share_of_int8")),
    Bar("k=100 over k=10", "search", LARGE, None, 1.4, False, _large_k),
    Bar("times faiss", "search", (TINY.name,), 1, 1.0, True, _against("faiss")),
    Bar("bytes a query", "search", LARGE, 1024, MEMORY_PER_QUERY, False, _figure("query_bytes")),
    Bar("seconds", "add", (GAUSSIAN.name,), None, 0.5, False, _seconds),
    Bar("of the rows' bytes", "add", LARGE, None, 1.3, False, _figure("bytes_ratio")),
    Bar("times torch", "normalize", (GAUSSIAN.name,), None, 2.0, True, _against("torch")),
)


def judge(results: Sequence[Measurement]) -> Iterator[Verdict]:
    """Every bar that these results can be held against."""
    for bar in BARS:
        for result in results:
            if result.operation != bar.operation or result.case not in bar.cases:
                continue
            if bar.n_queries not in (None, result.n_queries):
                continue
            got = bar.value(result)
            if got is None:
                continue
            passed = (operator.ge if bar.at_least else operator.le)(got, bar.wanted)
            sign = "≥" if bar.at_least else "≤"
            yield Verdict(result.name, bar.what, f"{sign} {bar.wanted:g}", got, passed)
