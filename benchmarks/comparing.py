"""Contenders that take turns, the bars they are held to, a table and JSON.

What ``bench_life.py`` and ``bench_graph.py`` share. The clock and the words are those of
``fastretrieve bench``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

import fastretrieve as fr
from fastretrieve.benchmarking import environment
from fastretrieve.benchmarking.bars import Verdict
from fastretrieve.benchmarking.report import print_verdicts, write_json
from fastretrieve.benchmarking.timing import Timing, interleave

FORMAT = 1
RESULTS = Path(__file__).parent / "results"

Call = Callable[[], object]


@dataclass
class Report:
    """What was measured so far, printed as it comes."""

    console: Console = field(default_factory=Console)
    seconds: float = 1.0  # for each contender of each comparison
    results: list[dict[str, object]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def compare(
        self, name: str, calls: Mapping[str, Call], *, rounds: int | None = None
    ) -> dict[str, Timing]:
        """Time the calls in turns, until each has had its seconds or for so many rounds."""
        if rounds is None:
            timings = interleave(calls, seconds=self.seconds)
        else:
            timings = interleave(calls, seconds=math.inf, max_rounds=rounds)
        self.note(name, timings)
        return timings

    def note(self, name: str, timings: Mapping[str, Timing]) -> None:
        """Keep timings that were taken elsewhere."""
        contenders = [
            {
                "name": who,
                "median_ms": timing.median * 1e3,
                "p10_ms": timing.percentile(10) * 1e3,
                "p90_ms": timing.percentile(90) * 1e3,
                "calls": len(timing.calls),
                "rounds_ms": [seconds * 1e3 for seconds in timing.rounds],
            }
            for who, timing in timings.items()
        ]
        self.results.append({"name": name, "contenders": contenders})
        times = ", ".join(f"{who} {timing.median * 1e3:.4g} ms" for who, timing in timings.items())
        self.console.print(f"{name}: {times}", style="dim", highlight=False)

    def hold(self, name: str, what: str, got: float, wanted: float, *, most: bool = True) -> None:
        """Judge a figure: ``most`` means that it must not exceed what is wanted."""
        passed = got <= wanted if most else got >= wanted
        self.verdicts.append(Verdict(name, what, f"{'≤' if most else '≥'} {wanted:g}", got, passed))

    def finish(self, path: Path | None, about: Mapping[str, object]) -> None:
        """The table of the bars, and everything in a file."""
        print_verdicts(self.console, self.verdicts)
        if path is not None:
            bars = [{**verdict._asdict(), "verdict": verdict.word} for verdict in self.verdicts]
            facts = {**environment.describe(), **about}
            results = {"results": self.results, "bars": bars}
            write_json(path, {"format": FORMAT, "environment": facts, **results})
            self.console.print(f"written to {path}")


def parser(about: str | None, name: str, rows: int) -> argparse.ArgumentParser:
    """The options of both scripts."""
    kind = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(description=about, formatter_class=kind)
    made.add_argument("--rows", type=int, default=rows)
    made.add_argument("--threads", type=int, default=environment.usable_cores())
    made.add_argument("--json", type=Path, default=RESULTS / name, help="where the figures go")
    return made


def use_threads(n: int) -> None:
    """Let everybody use as many threads."""
    fr.set_num_threads(n)
    if environment.version_of("faiss-cpu") is not None:
        import faiss

        faiss.omp_set_num_threads(n)
