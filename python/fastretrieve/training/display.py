"""The progress bar of a run: loss and recall beside it, on standard error if that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)

from fastretrieve.training.checkpoint import RunProgress
from fastretrieve.training.options import Plan


class Display:
    """Shows a bar if ``show`` is True, or None and standard error is a terminal."""

    def __init__(self, show: bool | None, plan: Plan, progress: RunProgress) -> None:
        self._plan = plan
        self._recall = _recall_text(progress.epochs[-1] if progress.epochs else {}, None)
        self._bar: Bar | None = None
        if sys.stderr.isatty() if show is None else show:
            self._bar = Bar(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(
                "training",
                total=plan.total_steps,
                completed=progress.step,
                epoch=self._epoch_text(progress.step),
                figures="",
            )

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step_done(self, step: int, means: Mapping[str, float]) -> None:
        if self._bar is None:
            return
        shown = " ".join(f"{name} {value:.4g}" for name, value in means.items())
        self._bar.update(
            self._task,
            completed=step,
            epoch=self._epoch_text(step - 1),
            figures=f"{shown} {self._recall}",
        )

    def epoch_done(self, figures: Mapping[str, Any], metric: str | None) -> None:
        self._recall = _recall_text(figures, metric)
        if self._bar is not None:
            self._bar.update(self._task, completed=figures["epoch"] * self._plan.steps_per_epoch)

    def _epoch_text(self, step: int) -> str:
        return f"{step // self._plan.steps_per_epoch + 1}/{self._plan.epochs}"


def _recall_text(figures: Mapping[str, Any], metric: str | None) -> str:
    named = metric or next((name for name in figures if name.endswith("recall@1")), "")
    return f"{named} {figures[named]:.4f}" if named in figures else ""
