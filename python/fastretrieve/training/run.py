"""One training run: the loop over epochs and steps, with everything around a step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from fastretrieve.data import DataError, Dataset, Loaded, Loader, Skipped, longest_side
from fastretrieve.data.sampling import balanced_batches, balanced_order, epoch_order
from fastretrieve.encoders.base import batch_length, move_batch
from fastretrieve.encoders.blocks.steps import parameter_groups
from fastretrieve.encoders.blocks.views import Views
from fastretrieve.encoders.protocol import Figure, Trainable
from fastretrieve.training.checkpoint import (
    RunProgress,
    RunState,
    read_checkpoint,
    set_weights,
    weights_of,
    write_checkpoint,
)
from fastretrieve.training.display import Display
from fastretrieve.training.journal import Journal
from fastretrieve.training.options import Plan, TrainingOptions
from fastretrieve.training.pace import Pace, threads
from fastretrieve.training.stepping import DivergedError, Stepper, seed_step
from fastretrieve.training.validation import Validator

_FLUSH_STEPS = 16
_LUCK = 0.25  # the spread of a query's gain, for the standard error of the mean gain
_PER_CLASS = 4  # how many items of a class a batch holds for a loss that compares them


@dataclass
class Run:
    """A training run and its parts; ``fitting.py`` builds it."""

    encoder: Trainable
    dataset: Dataset
    plan: Plan
    options: TrainingOptions
    device: torch.device
    views: Views | None
    validator: Validator
    journal: Journal
    fingerprint: str
    pace: Pace  # threads and precision
    skipped: list[Skipped] = field(default_factory=list)
    progress: RunProgress = field(default_factory=RunProgress)
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        half = self.pace.half
        self.stepper = Stepper(self.encoder, self.plan, device=self.device, half=half)
        self._saved_at = time.perf_counter()
        self._pending: list[dict[str, torch.Tensor]] = []
        self._clock = _now()
        self._is_whole = True  # whether weights, optimizers and progress belong together

    @property
    def monitored(self) -> Figure | None:
        """The figure that picks the best epoch, or None if the last one counts.

        A game has no best epoch: its losses do not say how good its drawings are.
        """
        if self.validator.held_out is None or set(parameter_groups(self.encoder)) != {"loss"}:
            return None
        is_judged = "classify" in self.encoder.capabilities or hasattr(self.encoder, "judge")
        if is_judged and self.validator.judge is not None:
            return Figure(self.validator.judge, "higher")
        figure = self.encoder.progress_figure
        return Figure(f"validation {figure.name}", figure.direction)

    def go(self) -> None:
        """Train to the end, or to where early stopping ends it."""
        if self.options.resume:
            self._resume()
        self._keep_pace()
        with (
            threads(self.pace.threads),
            Display(self.options.progress, self.plan, self.progress) as display,
        ):
            try:
                self._measure_start()
                while not self._is_over():
                    self._epoch(display)
            except KeyboardInterrupt:
                if self._is_whole:  # else the previous checkpoint counts
                    self._save()
                raise
        if self.best:
            set_weights(self.encoder, self.best)

    def _keep_pace(self) -> None:
        """A run that goes on computes as it did before, so that it ends with the same weights."""
        kept = self.progress.pace
        if kept and self.options.precision == "auto":
            self.pace = Pace(max(int(kept["threads"]), 1), bool(kept["bfloat16"]))
            self.stepper.half = self.pace.half
            self.journal.start |= self.pace.facts()
        self.progress.pace = {"threads": self.pace.threads, "bfloat16": self.pace.half}

    def _measure_start(self) -> None:
        """Let an encoder that is useful before training be the one to beat."""
        figure, progress = self.monitored, self.progress
        is_new = progress.step == 0 and not progress.start
        if figure is None or not is_new or not getattr(self.encoder, "useful_at_start", False):
            return
        seed_step(self.options.seed, 0)
        progress.start = self.validator.measure(device=self.device)
        self._note_best(0, progress.start)

    def _epoch(self, display: Display) -> None:
        number = len(self.progress.epochs)
        self._clock = _now()
        done = self.progress.step - number * self.plan.steps_per_epoch
        self.encoder.train()
        with Loader(
            self.dataset,
            self.encoder.preprocess,
            batch_size=self.plan.batch_size,
            workers=self.options.workers,
            size=longest_side(self.encoder),
        ) as loader:
            for loaded in _complete(loader.batches(self._order(number)[done:])):
                self._step(loaded, display)
                self._save_now_and_then()
            self._note_skipped(loader.skipped)
            wait_share = loader.wait_share
        self._flush()
        if self.progress.n_summed == 0:
            raise nothing_read(self.dataset, self.skipped)
        # Unreadable items may have left fewer steps than planned; the schedule goes by the plan.
        self.progress.step = (number + 1) * self.plan.steps_per_epoch
        self._finish_epoch(number, wait_share)
        display.epoch_done(self.progress.epochs[-1], self.validator.metric)

    def _step(self, loaded: Loaded, display: Display) -> None:
        step = self.progress.step
        seed_step(self.options.seed, step)
        batch = move_batch(loaded.batch, self.device)
        if self.views is not None:
            batch = self.views(batch)
        labels = (
            torch.from_numpy(loaded.labels).to(self.device) if self.dataset.is_labelled else None
        )
        self._is_whole = False
        self._pending.append(self.stepper.step(batch, labels, number=step))
        self.progress.step += 1
        self._is_whole = True
        if len(self._pending) >= _FLUSH_STEPS:
            self._flush()
            display.step_done(self.progress.step, self._means())

    def _flush(self) -> None:
        """Fetch the figures of the last steps; doing so at each would keep a GPU waiting."""
        for figures in self._pending:
            for name, tensor in figures.items():
                value = float(tensor)
                if not math.isfinite(value):
                    raise DivergedError(
                        f"{name} became {value} before step {self.progress.step}; train with a "
                        f"smaller lr (it was {self.plan.recipe.lr:g}), or look for extreme values "
                        "in the data"
                    )
                self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value
            self.progress.n_summed += 1
        self._pending.clear()

    def _finish_epoch(self, number: int, wait_share: float) -> None:
        seed_step(self.options.seed, self.progress.step)
        figures = self.validator.measure(device=self.device)
        self._read_clock()
        self._is_whole = False
        self.progress.epochs.append(
            {
                "epoch": number + 1,
                **self._means(),
                **figures,
                "lr": self.plan.lr_at(self.progress.step - 1),
                "seconds": round(self.progress.seconds, 3),
                "cpu_seconds": round(self.progress.cpu_seconds, 3),
                "wait_share": round(wait_share, 4),
            }
        )
        self.progress.sums, self.progress.n_summed = {}, 0
        self._note_best(number + 1, figures)
        self._is_whole = True
        self.journal.write(self.progress.epochs, end=None)
        probe = self.validator.held_out or self.validator.gallery
        self.journal.sheet(self.encoder, probe.first(), epoch=number + 1)
        self._save()

    def _note_best(self, epoch: int, figures: dict[str, float]) -> None:
        figure = self.monitored
        if figure is None:
            return
        value, best = figures[figure.name], self.progress.best_value
        if best is not None and self.progress.best_epoch == 0:
            # The best of many epochs is better than the start by luck alone.
            luck = _LUCK / math.sqrt(max(self.validator.n_held_out, 1))
            best += luck if figure.direction == "higher" else -luck
        is_better = best is None or figure.improved(before=best, after=value)
        self.progress.n_stale = 0 if is_better else self.progress.n_stale + 1
        if is_better or value == best:  # of equals the later one: it has learned longer
            self.progress.best_epoch, self.progress.best_value = epoch, value
            self.best = {name: t.cpu().clone() for name, t in weights_of(self.encoder).items()}

    def _is_over(self) -> bool:
        patience = self.options.patience
        if patience is not None and self.progress.n_stale >= patience:
            return True
        return len(self.progress.epochs) >= self.plan.epochs

    def _order(self, epoch: int) -> list[NDArray[np.int64]]:
        """The batches of an epoch; whole ones only, unless there is but one."""
        seed, size, labels = self.options.seed, self.plan.batch_size, self.dataset.labels
        if getattr(self.encoder, "needs_class_mates", False) and self.dataset.is_labelled:
            # More of each class where the classes are too few to fill a batch.
            n_classes = max(len(np.unique(labels[labels >= 0])), 1)
            per_class = min(max(_PER_CLASS, size // n_classes), size)
            batches: Iterable[NDArray[np.int64]] = balanced_batches(
                labels, batch_size=size, per_class=per_class, seed=seed, epoch=epoch
            )
            return list(batches)[: self.plan.steps_per_epoch]
        if self.options.balanced:
            order = balanced_order(labels, n=len(self.dataset), seed=seed, epoch=epoch)
        else:
            order = epoch_order(len(self.dataset), seed=seed, epoch=epoch)
        return [order[i * size : (i + 1) * size] for i in range(self.plan.steps_per_epoch)]

    def _means(self) -> dict[str, float]:
        return {name: s / max(self.progress.n_summed, 1) for name, s in self.progress.sums.items()}

    def _note_skipped(self, skipped: list[Skipped]) -> None:
        known = set(self.skipped)
        self.skipped += [item for item in skipped if item not in known]

    def _save_now_and_then(self) -> None:
        if time.perf_counter() - self._saved_at > self.options.checkpoint_seconds:
            self._save()

    def _save(self) -> None:
        if self.journal.folder is None:
            return
        self._flush()
        self._read_clock()
        write_checkpoint(
            self.journal.folder / "checkpoint.safetensors",
            run=self.fingerprint,
            state=RunState(self.progress, weights_of(self.encoder), self.best),
            optimizers=self.stepper.optimizers,
        )
        self._saved_at = time.perf_counter()

    def _read_clock(self) -> None:
        """Add the time since the last reading, so that a resumed run counts all its sessions."""
        now = _now()
        self.progress.seconds += now[0] - self._clock[0]
        self.progress.cpu_seconds += now[1] - self._clock[1]
        self._clock = now

    def _resume(self) -> None:
        if self.journal.folder is None:
            return
        state = read_checkpoint(
            self.journal.folder / "checkpoint.safetensors",
            run=self.fingerprint,
            encoder=self.encoder,
            optimizers=self.stepper.optimizers,
        )
        if state is not None:
            set_weights(self.encoder, state.weights)
            self.progress, self.best = state.progress, state.best


def nothing_read(dataset: Dataset, skipped: Sequence[Skipped]) -> DataError:
    """The error for a data set without a readable item."""
    first = [f"{bad.key}: {bad.reason}" for bad in skipped[:3]]
    return DataError(f"none of the {len(dataset)} items could be read; the first: {first}")


def _now() -> tuple[float, float]:
    """Seconds by the clock on the wall, and of computing by all threads."""
    return time.perf_counter(), time.process_time()


def _complete(batches: Iterator[Loaded]) -> Iterator[Loaded]:
    """Leave out batches of one item: batch norm has no spread to learn from."""
    return (loaded for loaded in batches if batch_length(loaded.batch) > 1)
