"""One benchmark: build, check against the oracle, time beside the peers, relate to the limits."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import fastretrieve as fr
from fastretrieve import _core
from fastretrieve._backends.runtime import cpu_backend
from fastretrieve.benchmarking import oracle
from fastretrieve.benchmarking.cases import Case, Data, Matrix
from fastretrieve.benchmarking.limits import MachineLimits
from fastretrieve.benchmarking.peers import PEERS, NotApplicable, Search, version_of
from fastretrieve.benchmarking.timing import Timing, interleave

OURS = "fastretrieve"
LARGE_K = 100
CHECKED_QUERIES = 64  # of a large batch: every n-th
READ_BOUND_BATCH = (
    8  # up to here a search is judged by the bytes it reads, from 256 by its arithmetic
)
INT8_BOUND_BATCH = 256


@dataclass(frozen=True)
class Settings:
    threads: int = 2
    seconds: float = 5.0  # for each contender of each benchmark
    peers: tuple[str, ...] = ()
    flush_cache: bool = False


@dataclass
class Contender:
    name: str
    median_ms: float
    p10_ms: float
    p90_ms: float
    calls: int
    ratio: float  # how many times as long as fastretrieve, round by round
    recall: float | None  # None for ours, which must be equal to the oracle
    rounds_ms: list[float]  # the median of each round


@dataclass
class Measurement:
    operation: str
    case: str
    metric: str
    n_rows: int
    dim: int
    n_queries: int
    k: int
    threads: int
    contenders: list[Contender]
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        batch = f" batch {self.n_queries}" if self.n_queries else ""
        return f"{self.operation} {self.case}{batch}"

    @property
    def ours(self) -> Contender:
        return self.contenders[0]

    def best_peer(self, *, prefix: str = "") -> Contender | None:
        """The fastest other library (of those whose name begins with ``prefix``)."""
        peers = [c for c in self.contenders if not c.name.startswith(OURS)]
        peers = [c for c in peers if c.name.startswith(prefix)]
        return min(peers, key=lambda c: c.median_ms, default=None)

    def as_json(self) -> dict[str, object]:
        return {"name": self.name, **asdict(self)}


class SearchBench:
    """A case with its index, its peers and its expected answers, for several batch sizes."""

    def __init__(self, case: Case, data: Data, batches: Sequence[int], settings: Settings) -> None:
        self.case, self.data, self.settings = case, data, settings
        fr.set_num_threads(settings.threads)
        self.index = fr.Index(case.dim, metric=case.metric)
        self.index.add(data.rows)
        self.skipped: dict[str, str] = {}
        self.peers = dict(self._build_peers())
        self._checked = sorted({int(q) for batch in batches for q in _spread(batch)})
        self._k_large = min(LARGE_K, len(data.rows))
        self._expected = oracle.exact_topk(
            data.queries[self._checked], data.rows, k=self._k_large, metric=case.metric
        )

    def _build_peers(self) -> Iterator[tuple[str, Search]]:
        threads = self.settings.threads
        for name in self.settings.peers:
            peer = PEERS[name]
            if version_of(peer.distribution) is None:
                self.skipped[name] = f"{peer.distribution} is not installed"
                continue
            counts = sorted({1, threads} if peer.also_single else {threads})
            for count in counts:
                label = f"{name} x{count}" if len(counts) > 1 else name
                try:
                    yield label, peer.build(self.data, self.case.metric, count)
                except NotApplicable as error:
                    self.skipped[name] = str(error)

    def expected(self, batch: int, k: int) -> tuple[NDArray[np.int64], oracle.Expected]:
        """The checked queries of a batch, and their k best."""
        asked = _spread(batch)
        places = np.searchsorted(self._checked, asked)
        scores, ids = self._expected.scores[places, :k], self._expected.ids[places, :k]
        return asked, oracle.Expected(scores, ids)

    def check(self, queries: Matrix, k: int) -> None:
        """Raise ``WrongAnswer`` unless our answer has the oracle's ids and bits."""
        asked, expected = self.expected(len(queries), k)
        hits = self.index.search(queries, k=k)
        oracle.check_equal(np.asarray(hits.scores)[asked], np.asarray(hits.ids)[asked], expected)

    def run(self, batch: int, *, k: int = 10) -> Measurement:
        """Check, then time, one batch size."""
        queries, settings = self.data.queries[:batch], self.settings
        calls: dict[str, Callable[[], object]] = {}
        for size in (k, self._k_large):
            self.check(queries, size)
            name = OURS if size == k else f"{OURS} k={size}"
            calls[name] = partial(self.index.search, queries, k=size)
        recalls, slow = {}, {}
        for name, search in self.peers.items():
            asked, expected = self.expected(batch, k)
            start = time.perf_counter()
            ids = search(queries, k)
            seconds = time.perf_counter() - start
            recalls[name] = oracle.recall(ids[asked], expected)
            if seconds > settings.seconds:  # once is enough: it would be timed once anyway
                slow[name] = Timing([seconds], [seconds])
            else:
                calls[name] = partial(search, queries, k)

        limits = MachineLimits(settings.threads)
        timings = interleave(
            calls,
            seconds=settings.seconds,
            flush_cache=settings.flush_cache,
            each_round=limits.sample,
        )
        return Measurement(
            operation="search",
            case=self.case.name,
            metric=self.case.metric,
            n_rows=len(self.data.rows),
            dim=self.case.dim,
            n_queries=batch,
            k=k,
            threads=settings.threads,
            contenders=contenders({**timings, **slow}, recalls),
            figures=self._figures(batch, k, limits, timings[OURS]),
        )

    def _scored(self, batch: int, k: int) -> float:
        """How many rows a query scores exactly, because their codes could not rule them out."""
        before = self.index.stats()["rows_scored"]
        self.index.search(self.data.queries[:batch], k=k)
        return (self.index.stats()["rows_scored"] - before) / batch

    def _figures(
        self, batch: int, k: int, limits: MachineLimits, timing: Timing
    ) -> dict[str, float]:
        n_rows, dim = self.data.rows.shape
        scanned = scanned_bytes(n_rows, dim, self.case.metric)
        figures = {
            "scanned_bytes": scanned,
            "read_rate": limits.read_rate,
            "int8_rate": limits.int8_rate,
            "queries_per_second": batch / timing.median,
            "scored_per_query": self._scored(batch, k),
        }
        if batch <= READ_BOUND_BATCH:
            figures["share_of_read"] = limits.share_of_read(scanned, timing)
        if batch >= INT8_BOUND_BATCH:
            figures["share_of_int8"] = limits.share_of_int8(batch * n_rows * dim, timing)
        return figures


def scanned_bytes(n_rows: int, dim: int, metric: str) -> int:
    """What one pass of the scan reads: the codes with the scales and norms of their rows."""
    strips = -(-n_rows // _core.STRIP_ROWS)
    return strips * int(cpu_backend().strip_bytes(dim, metric))


def contenders(timings: dict[str, Timing], recalls: dict[str, float]) -> list[Contender]:
    """The timings in milliseconds and relative to ours, ours first."""
    ours = timings[OURS]
    return [
        Contender(
            name=name,
            median_ms=timing.median * 1e3,
            p10_ms=timing.percentile(10) * 1e3,
            p90_ms=timing.percentile(90) * 1e3,
            calls=len(timing.calls),
            ratio=timing.ratio_to(ours),
            recall=recalls.get(name),
            rounds_ms=[seconds * 1e3 for seconds in timing.rounds],
        )
        for name, timing in timings.items()
    ]


def extra_bytes(call: Callable[[], object]) -> int | None:
    """How far the process's peak memory rises above what it holds during ``call`` (Linux only)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is held now
        held = _status_bytes("VmRSS")
        call()
        return max(0, _status_bytes("VmHWM") - held)
    except OSError:
        return None


def _status_bytes(field_name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field_name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field_name} in /proc/self/status")


def _spread(batch: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, batch - 1, min(batch, CHECKED_QUERIES)).astype(np.int64))
