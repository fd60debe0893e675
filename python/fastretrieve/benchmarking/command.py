"""``fastretrieve bench``: measure on this machine, beside the peers that are installed."""

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from fastretrieve.benchmarking import environment, plots, report
from fastretrieve.benchmarking.bars import judge
from fastretrieve.benchmarking.cases import CASES, QUICK_ROWS, Case
from fastretrieve.benchmarking.measure import Measurement, Settings
from fastretrieve.benchmarking.oracle import WrongAnswer
from fastretrieve.benchmarking.peers import PEERS
from fastretrieve.benchmarking.suite import SWEEP_ROWS, SkippedCase, Suite

BATCHES = (1, 32, 1024)
QUICK_BATCHES = (1, 32)
QUICK_SECONDS = 0.5


# As long as its options are many: typer reads them from the signature.
def bench(
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure the installed peers too.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small data, seconds not minutes.")
    ] = False,
    case: Annotated[
        Optional[list[str]],  # noqa: UP045 (typer reads this at run time on Python 3.10)
        typer.Option(help=f"One of {', '.join(CASES)}; may be given again. Default: all."),
    ] = None,
    batch: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option(min=1, max=1024, help="Queries at a time; may be given again."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every contender.")] = (
        environment.usable_cores()
    ),
    seconds: Annotated[float, typer.Option(help="Time for each contender of a benchmark.")] = 5.0,
    flush_cache: Annotated[
        bool, typer.Option("--flush-cache", help="Empty the cache before every call.")
    ] = False,
    json_path: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", help="Write every figure to this file."),
    ] = None,
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Draw latency against rows: a .png or .svg file."),
    ] = None,
) -> None:
    """Measure on this machine; every answer is checked against a float64 brute force first.

    Example: fastretrieve bench --peers --case gaussian --batch 1 --json results.json
    """
    console = Console()
    settings = Settings(
        threads=threads,
        seconds=min(seconds, QUICK_SECONDS) if quick else seconds,
        peers=tuple(PEERS) if peers else (),
        flush_cache=flush_cache,
    )
    suite = Suite(
        settings,
        cases=_cases(case or list(CASES), quick=quick),
        batches=batch or (QUICK_BATCHES if quick else BATCHES),
        sweep_rows=SWEEP_ROWS if plot else (),
    )
    results = _run(console, suite)
    # The promises hold for the full sizes.
    verdicts = [] if quick else list(judge(results))
    if verdicts:
        report.print_verdicts(console, verdicts)
    about = environment.describe()
    if json_path:
        report.write_json(json_path, report.as_json(about, results, verdicts))
        console.print(f"wrote {json_path}")
    if plot:
        _draw(console, results, plot, caption=f"{about['cpu']}, commit {about['commit']}")


def _cases(names: list[str], *, quick: bool) -> list[Case]:
    unknown = sorted(set(names) - set(CASES))
    if unknown:
        raise typer.BadParameter(f"no case {unknown[0]!r}; the cases are {', '.join(CASES)}")
    chosen = [CASES[name] for name in names]
    return [case.smaller(QUICK_ROWS) for case in chosen] if quick else chosen


def _run(console: Console, suite: Suite) -> list[Measurement]:
    results: list[Measurement] = []
    measured = suite.run()
    while True:
        try:
            with console.status("measuring"):
                item = next(measured, None)
        except WrongAnswer as error:
            console.print(f"[bold red]wrong answer[/bold red]: {error}")
            raise typer.Exit(1) from error
        if item is None:
            return results
        if isinstance(item, SkippedCase):
            console.print(f"skipped {item.what}: {item.reason}", style="yellow")
            continue
        report.print_result(console, item)
        results.append(item)


def _draw(console: Console, results: list[Measurement], path: Path, *, caption: str) -> None:
    try:
        plots.draw_sweep(results, path, caption=caption)
    except plots.PlotUnavailable as error:
        console.print(str(error), style="yellow")
    else:
        console.print(f"wrote {path}")
