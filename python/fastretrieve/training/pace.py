"""Choose threads and precision by a few steps at the start of a run on a CPU.

On a busy machine two threads wait for each other, and bfloat16 can cost more than it saves: steps
of small networks took ten times as long. The trial works on a copy of the encoder and leaves
random numbers alone, so it changes nothing but what is chosen.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from fastretrieve.data import Loaded
from fastretrieve.encoders.base import move_batch, take_batch
from fastretrieve.encoders.protocol import Trainable
from fastretrieve.training.options import Plan
from fastretrieve.training.stepping import Stepper

FEWEST_STEPS = 200  # of a run; a shorter one ends before a choice pays
_TRIALS = 3  # steps of each kind; the fastest counts, since other programs only delay
_MOST_SECONDS = 2.0  # for the steps of one kind
_WORTH = 1.5  # how much faster another way must be: measured times differ by luck


class Pace(NamedTuple):
    """How a run computes."""

    threads: int
    half: bool  # bfloat16
    tried: tuple[tuple[str, float], ...] = ()  # seconds of a step in each way, for the log

    def facts(self) -> dict[str, Any]:
        """For the log and the checkpoint."""
        tried = {"seconds_per_step": dict(self.tried)} if self.tried else {}
        return {"threads": self.threads, "bfloat16": self.half, **tried}


def choose_pace(encoder: Trainable, plan: Plan, sample: Loaded, *, half: bool) -> Pace:
    """The fastest of: all threads or one, bfloat16 (where ``half``) or float32."""
    usual = Pace(torch.get_num_threads(), half)
    # The usual way first: of equals it is taken.
    halves, counts = sorted({half, False}, reverse=True), sorted({usual.threads, 1}, reverse=True)
    ways = [Pace(n, h) for h in halves for n in counts]
    if len(ways) == 1 or plan.total_steps < FEWEST_STEPS:
        return usual
    size = min(plan.batch_size, len(sample.labels))
    batch = take_batch(sample.batch, slice(0, size))
    known = torch.from_numpy(sample.labels[:size])
    labels = known if bool((known >= 0).any()) else None
    took = {way: _step_seconds(encoder, plan, batch, labels, way) for way in ways}
    best = min(ways, key=lambda way: took[way])
    chosen = best if took[best] * _WORTH < took[usual] else usual
    return chosen._replace(tried=tuple((_title(way), round(took[way], 5)) for way in ways))


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Torch computes with ``n`` threads; the caller's number comes back."""
    before = torch.get_num_threads()
    if n != before:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def _step_seconds(
    encoder: Trainable, plan: Plan, batch: Any, labels: torch.Tensor | None, way: Pace
) -> float:
    """Seconds of the fastest step of a copy."""
    device = torch.device("cpu")
    with threads(way.threads), torch.random.fork_rng(devices=[]):
        trial = copy.deepcopy(encoder)
        trial.train()
        stepper = Stepper(trial, plan, device=device, half=way.half)
        moved, found, began = move_batch(batch, device), [], time.perf_counter()
        for _ in range(_TRIALS + 1):  # the first one also builds what later ones reuse
            start = time.perf_counter()
            stepper.step(moved, labels, number=0)
            found.append(time.perf_counter() - start)
            if time.perf_counter() - began > _MOST_SECONDS:
                break
    return min(found)


def _title(way: Pace) -> str:
    return f"{way.threads} threads, {'bfloat16' if way.half else 'float32'}"
