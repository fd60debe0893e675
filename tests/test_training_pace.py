"""Threads and precision are chosen by a few steps, which change nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastretrieve.data import Loaded
from fastretrieve.training import launching, pace
from fastretrieve.training.options import TrainingOptions, make_plan
from fastretrieve.training.pace import Pace
from fastretrieve.training.run import Run
from training_helpers import SIDE, fit, log_of, same_weights, small


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run of any length chooses, between two threads and one."""
    monkeypatch.setattr(pace, "FEWEST_STEPS", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def slow_with_two(encoder: Any, plan: Any, batch: Any, labels: Any, way: Pace) -> float:
    return 10.0 if way.threads > 1 else 1.0


def test_a_way_that_is_much_faster_is_taken_for_the_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_step_seconds", slow_with_two)
    seen = []
    step = Run._step
    monkeypatch.setattr(
        Run, "_step", lambda *args: (seen.append(torch.get_num_threads()), step(*args))[1]
    )
    fit(small(), out=tmp_path)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2
    assert log_of(tmp_path)[0]["threads"] == 1
    assert log_of(tmp_path)[0]["seconds_per_step"]["2 threads, float32"] == 10.0


@pytest.mark.parametrize(("one", "chosen"), [(0.9, 2), (0.5, 1)])
def test_a_little_faster_is_luck(one: float, chosen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_step_seconds", lambda *args: 1.0 if args[4].threads > 1 else one)
    plan = make_plan(small(), TrainingOptions(epochs=1), n_items=64)
    sample: Any = Loaded(torch.zeros(8, 1), np.zeros(8, np.int64), np.arange(8))
    assert pace.choose_pace(small(), plan, sample, half=False).threads == chosen


def test_bfloat16_that_is_slower_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_step_seconds", lambda *args: 9.0 if args[4].half else 1.0)
    plan = make_plan(small(), TrainingOptions(epochs=1), n_items=64)
    sample: Any = Loaded(torch.zeros(8, 1), np.zeros(8, np.int64), np.arange(8))
    assert pace.choose_pace(small(), plan, sample, half=True)[:2] == (2, False)
    assert pace.choose_pace(small(), plan, sample, half=False)[:2] == (2, False)


def test_a_given_precision_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(launching, "choose_pace", lambda *args, **kw: pytest.fail("it measures"))
    fit(small(), precision="float32")


def test_the_trial_changes_neither_weights_nor_random_numbers() -> None:
    encoder = small()
    plan = make_plan(encoder, TrainingOptions(epochs=1), n_items=64)
    before = torch.get_rng_state()
    pace._step_seconds(encoder, plan, torch.rand(8, 1, SIDE, SIDE), None, Pace(1, False))
    torch.rand(8, 1, SIDE, SIDE)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    torch.rand(8, 1, SIDE, SIDE)
    torch.rand(8, 1, SIDE, SIDE)
    assert torch.equal(torch.get_rng_state(), after)
    assert same_weights(encoder, small())


def test_a_run_that_goes_on_computes_as_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_step_seconds", slow_with_two)
    finish = Run._finish_epoch

    def stop(self: Run, number: int, wait_share: float) -> None:
        finish(self, number, wait_share)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Run, "_finish_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(small(), out=tmp_path)
    first = log_of(tmp_path)[0]
    other = Pace(2, not first["bfloat16"])
    monkeypatch.setattr(launching, "choose_pace", lambda *args, **kw: other)
    fit(small(), out=tmp_path)
    again = log_of(tmp_path)[0]
    assert (again["threads"], again["bfloat16"]) == (first["threads"], first["bfloat16"])
    assert first["threads"] == 1
