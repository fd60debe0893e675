"""Progress on standard error, if it is a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Report = Callable[[str, int, int | None], None]  # (what is being done, done, in all)


def show_progress(show: bool | None) -> tuple[Report, Callable[[], None]]:
    """A report that draws a bar on standard error, if it is a terminal; and how to end it."""
    if not (sys.stderr.isatty() if show is None else show):
        return lambda text, done, total: None, lambda: None
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    tasks: dict[str, progress.TaskID] = {}
    bar.start()

    def report(text: str, done: int, total: int | None) -> None:
        if text not in tasks:
            tasks[text] = bar.add_task(text, total=total)
        bar.update(tasks[text], completed=done, total=total)

    return report, bar.stop


@contextlib.contextmanager
def progress_of(text: str, show: bool | None) -> Iterator[Callable[[int, int], None]]:
    """A bar for one thing that takes long, called with how much is done and how much there is."""
    report, end = show_progress(show)
    try:
        yield lambda done, total: report(text, done, total)
    finally:
        end()


def in_megabytes(report: Report, text: str) -> Callable[[int, int], None]:
    """A report of bytes, as the files of an index make it."""
    return lambda done, total: report(text, done >> 20, total >> 20)
