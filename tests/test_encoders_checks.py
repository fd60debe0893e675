"""``check_encoder`` passes a right encoder and finds every planted fault by the check for it."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from fastretrieve.encoders.models.pixels import PixelsEncoder
from fastretrieve.testing import (
    check_encoder,
    check_names,
    parametrize_checks,
    run_check,
    run_checks,
)
from wrong_encoders import (
    WRONG,
    GreyOnly,
    RightEncoder,
    SeedsNumpy,
    SeedsRandom,
    SeedsTorch,
)


@parametrize_checks(RightEncoder)
def test_a_right_encoder_passes(check):
    check()


@pytest.mark.parametrize("name", check_names())
def test_every_check_has_a_fault_that_it_must_find(name):
    assert WRONG[name]


@pytest.mark.parametrize(
    ("name", "wrong"), [(name, wrong) for name, wrongs in WRONG.items() for wrong in wrongs]
)
def test_a_fault_is_found(name, wrong):
    if name != "protocol":
        assert run_check("protocol", wrong)  # so it is made, and fails for its own reason
    enabled = torch.is_grad_enabled()
    try:
        with pytest.raises((AssertionError, ValueError, RuntimeError, AttributeError)) as caught:
            run_check(name, wrong)
    finally:
        torch.set_grad_enabled(enabled)
    assert str(caught.value)


def test_all_failures_are_listed_together():
    with pytest.raises(AssertionError) as caught:
        check_encoder(WRONG["shape"][0])
    message = str(caught.value)
    assert "the encoder WrongDim fails" in message
    assert "shape: encode returned shape (12, 5), wanted (12, 6)" in message


def test_a_class_gets_no_test_for_what_it_does_not_declare():
    def names(*encoders):
        return {case.id.partition("-")[2] for case in parametrize_checks(*encoders).args[1]}

    assert "trainable" in names(RightEncoder)
    assert names(PixelsEncoder) == names(partial(PixelsEncoder, dim=3))
    assert names(PixelsEncoder) & {"fit", "trainable", "layers"} == {"fit"}
    assert "trainable" in names(lambda: PixelsEncoder())  # only making it can tell


def test_results_tell_what_was_not_declared():
    outcomes = {result.check: result.outcome for result in run_checks("pixels")}
    assert outcomes["fit"] == "passed"
    assert outcomes["trainable"] == "not declared"


def test_an_instance_is_refused_with_the_reason():
    with pytest.raises(TypeError, match="every check starts from a new one"):
        check_encoder(RightEncoder())


def test_a_preprocess_that_raises_is_a_failed_check_with_the_error():
    failed = [result for result in run_checks(GreyOnly) if result.outcome == "failed"]
    assert failed
    assert {result.reason for result in failed} == {"ValueError: colour"}


@pytest.mark.parametrize("wrong", [SeedsTorch, SeedsNumpy, SeedsRandom])
def test_an_encoder_that_always_seeds_alike_is_found_after_other_checks(wrong):
    """It leaves the generators as it found them, where it was the last to touch them."""
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    encoder = wrong()
    encoder.encode(encoder.preprocess([np.zeros((8, 8), np.uint8)]))
    with pytest.raises(AssertionError, match="changed the global random state of"):
        run_check("random state", wrong)
    torch.set_rng_state(before[0])


SCRIPT = """
import torch
from torch import nn
from fastretrieve.encoders.base import TorchEncoder, seeded
from fastretrieve.testing import check_encoder, run_checks

class Mine(TorchEncoder):
    name, capabilities = "mine", frozenset()

    def __init__(self, *, dim=4):
        super().__init__(dim=dim, config={"dim": dim})
        self.image_size, self.channels = (8, 8), 1
        with seeded(0):
            self.layer = nn.Linear(64, dim)

    def embed(self, batch):
        return self.layer(batch.flatten(1))

{call}
"""
UNGUARDED = "print('passed', len(check_encoder(Mine)))"
TWICE = UNGUARDED + "\nclass Other(Mine): pass\nprint(run_checks(Other)[13])"


def test_a_file_without_a_guard_may_call_the_checks(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SCRIPT.replace("{call}", TWICE))
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "passed 25",
        "Result(check='workers', outcome='passed', reason='')",
    ], done.stderr


def test_a_session_without_a_file_is_told_to_write_one():
    done = subprocess.run(
        [sys.executable, "-"],
        input=SCRIPT.replace("{call}", "print(run_checks(Mine)[13].reason)"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "interactive session" in done.stdout
    assert "write it into a file" in done.stdout
