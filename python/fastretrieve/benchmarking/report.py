"""Show results: a table for people, JSON for comparing two commits."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fastretrieve._common.atomic import replacing
from fastretrieve.benchmarking.bars import Verdict
from fastretrieve.benchmarking.measure import LARGE_K, OURS, Measurement

FORMAT = 1


def as_json(
    environment: dict[str, object], results: Sequence[Measurement], verdicts: Iterable[Verdict]
) -> dict[str, object]:
    """One run as plain data."""
    return {
        "format": FORMAT,
        "environment": environment,
        "results": [result.as_json() for result in results],
        "bars": [{**verdict._asdict(), "verdict": verdict.word} for verdict in verdicts],
    }


def write_json(path: Path, data: dict[str, object]) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(json.dumps(data, indent=1).encode() + b"\n")


def result_table(result: Measurement) -> Table:
    """The contenders of one benchmark, with how many times as long as ours each took."""
    about = f"{result.n_rows:,} x {result.dim}, {result.metric}"
    title = f"{result.name}: {about}" + (f", k={result.k}" if result.k else "")
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("who", no_wrap=True, min_width=len(f"{OURS} k={LARGE_K}"))
    for heading in ("ms", "p10", "p90", "calls", "times us", "recall"):
        table.add_column(heading, justify="right", no_wrap=True)
    for who in result.contenders:
        times = [_milliseconds(ms) for ms in (who.median_ms, who.p10_ms, who.p90_ms)]
        ratio = "" if who.name == OURS else f"{who.ratio:.2f}"
        # Ours is not a recall but equality with the oracle, or there would be no time.
        recall = "exact" if who.name.startswith(OURS) else _optional(who.recall)
        table.add_row(who.name, *times, str(who.calls), ratio, recall)
    return table


FIGURES = {
    "queries_per_second": "{:,.0f} queries/s",
    "scored_per_query": "{:.1f} rows a query scored exactly",
    "query_bytes": "{:,.0f} bytes a query beyond the index",
    "rows_per_second": "{:,.0f} rows/s",
    "bytes_ratio": "{:.3f} of the rows' bytes held",
    "gigabytes_per_second": "{:.3g} GB/s read and written",
}


def figure_line(result: Measurement) -> str:
    """The figures of a result that a person wants to see, in one line."""
    figures = result.figures
    parts = []
    for share, rate, limit, unit in (
        ("share_of_read", "read_rate", "the read rate", "GB/s"),
        ("share_of_int8", "int8_rate", "the int8 peak", "G multiply-adds/s"),
    ):
        if share in figures:
            parts.append(f"{figures[share]:.0%} of {limit}, {figures[rate] / 1e9:.4g} {unit}")
    parts += [text.format(figures[name]) for name, text in FIGURES.items() if name in figures]
    return "; ".join(parts)


def print_result(console: Console, result: Measurement) -> None:
    console.print(result_table(result))
    console.print(figure_line(result), style="dim")
    console.print()


def print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """The bars with PASS or MISS."""
    table = Table(title="bars", title_justify="left", title_style="bold")
    table.add_column("benchmark")
    table.add_column("what")
    table.add_column("wanted", justify="right")
    table.add_column("got", justify="right")
    table.add_column("")
    for verdict in verdicts:
        style = "green" if verdict.passed else "bold red"
        word = f"[{style}]{verdict.word}[/{style}]"
        table.add_row(verdict.benchmark, verdict.what, verdict.wanted, f"{verdict.got:.3g}", word)
    console.print(table)
    passed = sum(verdict.passed for verdict in verdicts)
    console.print(f"{passed} of {len(verdicts)} bars passed")


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _milliseconds(ms: float) -> str:
    return f"{ms:,.0f}" if ms >= 1000 else f"{ms:.3g}"
