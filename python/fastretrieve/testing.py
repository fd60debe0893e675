"""Check an encoder against the protocol: in one call, or as one test for each promise.

A package with an encoder has this test::

    from fastretrieve.testing import parametrize_checks
    from my_package import MyEncoder

    @parametrize_checks(MyEncoder)
    def test_encoder(check):
        check()

The promises are in ``encoders/checking``.
"""

from __future__ import annotations

from fastretrieve.encoders.checking.suite import (
    STEPS,
    Result,
    check_encoder,
    check_names,
    parametrize_checks,
    refuse_instance,
    run_check,
    run_checks,
)

__all__ = [
    "STEPS",
    "Result",
    "check_encoder",
    "check_names",
    "parametrize_checks",
    "refuse_instance",
    "run_check",
    "run_checks",
]
