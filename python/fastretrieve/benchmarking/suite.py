"""Which benchmarks make up a run, in which order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fastretrieve.benchmarking import cases as known
from fastretrieve.benchmarking.cases import Case, CaseUnavailable, Data
from fastretrieve.benchmarking.measure import Measurement, SearchBench, Settings, extra_bytes
from fastretrieve.benchmarking.operations import bench_add, bench_normalize

SWEEP_ROWS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
SWEEP_PEERS = ("faiss",)


@dataclass(frozen=True)
class SkippedCase:
    """Something that was not measured, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class Suite:
    settings: Settings
    cases: Sequence[Case]
    batches: Sequence[int]
    sweep_rows: Sequence[int] = ()

    def run(self) -> Iterator[Measurement | SkippedCase]:
        """Every benchmark, each as soon as it is measured."""
        for case in self.cases:
            try:
                data = case.load()
            except CaseUnavailable as error:
                yield SkippedCase(case.name, str(error))
                continue
            yield from self._searches(case, data)
            if case.name != known.TINY.name:
                yield bench_add(case, data.rows, self.settings)
            if case.name == known.GAUSSIAN.name:
                yield bench_normalize(case, data.rows, self.settings)
                yield from self._sweep(case, data)

    def _searches(self, case: Case, data: Data) -> Iterator[Measurement | SkippedCase]:
        batches = (1,) if case.name == known.TINY.name else self.batches
        bench = SearchBench(case, data, batches, self.settings)
        for name, reason in bench.skipped.items():
            yield SkippedCase(f"{name} on {case.name}", reason)
        for batch in batches:
            result = bench.run(batch)
            queries = data.queries[:batch]
            extra = extra_bytes(lambda: bench.index.search(queries, k=10))  # noqa: B023 (called here)
            if extra is not None:
                result.figures["query_bytes"] = extra / batch
            yield result

    def _sweep(self, case: Case, data: Data) -> Iterator[Measurement]:
        """One query against ever more rows: where the call ends and the memory begins."""
        peers = tuple(name for name in SWEEP_PEERS if name in self.settings.peers)
        settings = replace(self.settings, peers=peers, seconds=min(2.0, self.settings.seconds))
        for n_rows in self.sweep_rows:
            if n_rows <= len(data.rows):
                part = Data(data.rows[:n_rows], data.queries)
                result = SearchBench(case.smaller(n_rows), part, (1,), settings).run(1)
                result.operation = "sweep"
                yield result
