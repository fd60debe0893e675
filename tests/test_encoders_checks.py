"""``check_encoder`` passes a right encoder and finds every planted fault by the check for it."""

from functools import partial

import pytest
import torch

from fastretrieve.encoders.pixels import PixelsEncoder
from fastretrieve.testing import (
    check_encoder,
    check_names,
    parametrize_checks,
    run_check,
    run_checks,
)
from wrong_encoders import WRONG, GreyOnly, RightEncoder


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
