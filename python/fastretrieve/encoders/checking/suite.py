"""Run the checks of an encoder, each by itself: the public names of ``fastretrieve.testing``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastretrieve._common.needs import wanting
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import CAPABILITIES
from fastretrieve.encoders.registry import create_encoder

if TYPE_CHECKING:
    import pytest

    from fastretrieve.encoders.checking.tools import Subject

Load = Callable[[Path], Any]
Check = Callable[["Subject"], None]
STEPS = 30  # within which the figure of a trainable encoder must improve


class Result(NamedTuple):
    """The outcome of one check: "passed", "failed", or "not declared" for an absent capability."""

    check: str
    outcome: str
    reason: str = ""


def check_encoder(
    encoder: Any,
    *,
    items: Any = None,
    labels: Any = None,
    load: Load | None = None,
    steps: int = STEPS,
) -> list[Result]:
    """Run every check; an ``AssertionError`` lists all that failed, else the results come back.

    ``encoder`` is a class, a function that makes a new encoder, or a name. ``items`` and ``labels``
    replace the small images or sequences that are used otherwise; ``load`` reads a saved copy back
    where the class needs more than the directory; ``steps`` of training must improve the figure of
    a trainable one. One check encodes in another process. If the class is defined in the file that
    calls this, it runs that file as far as the call: no ``if __name__ == "__main__":`` is needed.

    >>> results = check_encoder("pixels")
    >>> sorted({result.outcome for result in results})
    ['not declared', 'passed']
    """
    results = run_checks(encoder, items=items, labels=labels, load=load, steps=steps)
    failed = [result for result in results if result.outcome == "failed"]
    if failed:
        from fastretrieve.encoders.checking.tools import CheckFailed

        lines = "\n".join(f"  {result.check}: {result.reason}" for result in failed)
        raise CheckFailed(
            f"the encoder {_label(encoder)} fails {len(failed)} of {len(results)} checks:\n{lines}"
        )
    return results


def run_checks(encoder: Any, **options: Any) -> list[Result]:
    """The result of every check; faults of the encoder are not raised. The options are those
    of :func:`check_encoder`.
    """
    refuse_instance(encoder)
    if _is_rehearsed():
        return [Result(name, "passed") for name in check_names()]
    results = []
    for name in check_names():
        try:
            ran = _run_check(name, encoder, **options)
            results.append(Result(name, "passed" if ran else "not declared"))
        except Exception as error:  # an encoder may fail in any way, and the others still run
            is_plain = isinstance(error, (AssertionError, EncoderError))
            reason = str(error) if is_plain else f"{type(error).__name__}: {error}"
            results.append(Result(name, "failed", reason))
    return results


def run_check(name: str, encoder: Any, **options: Any) -> bool:
    """Run one check; False where the encoder does not declare the capability that it is about."""
    return True if _is_rehearsed() else _run_check(name, encoder, **options)


def _run_check(name: str, encoder: Any, **options: Any) -> bool:
    checks, of_capabilities = _checks()
    subject = _subject(encoder, **options)
    if name in checks:
        checks[name](subject)
        return True
    if name not in subject.make().capabilities:
        return False
    of_capabilities[name](subject)
    return True


def check_names() -> list[str]:
    """The names of all checks, in the order in which they run."""
    checks, of_capabilities = _checks()
    return [*checks, *of_capabilities]


def _checks() -> tuple[dict[str, Check], dict[str, Check]]:
    """The checks of every encoder, and those of a capability."""
    with wanting("networks", "checking an encoder"):
        import safetensors  # noqa: F401, what every encoder is saved with

        from fastretrieve.encoders.checking.capabilities import CAPABILITY_CHECKS
        from fastretrieve.encoders.checking.promises import CHECKS
    return CHECKS, CAPABILITY_CHECKS


def _is_rehearsed() -> bool:
    """Whether the worker process of a later check runs the file that asks for this one.

    It ends at the check that it works for: by then the file has defined the class.
    """
    with wanting("networks", "checking an encoder"):
        from fastretrieve.encoders.checking.tools import CheckReached, running
    running.n_checks += 1
    if running.in_worker and running.n_checks >= running.last:
        raise CheckReached
    return running.in_worker


def parametrize_checks(*encoders: Any, **options: Any) -> pytest.MarkDecorator:
    """A pytest parametrisation: ``check()`` is one check of one encoder.

    Encoders and options are those of ``check_encoder``. A capability that a class (or a
    ``functools.partial`` of one) does not declare gets no test; where only making the encoder can
    tell, its test is skipped.
    """
    import pytest

    def bound(name: str, encoder: Any) -> Callable[[], None]:
        def check() -> None:
            if not run_check(name, encoder, **options):
                pytest.skip(f"{_label(encoder)} does not declare {name!r}")

        return check

    return pytest.mark.parametrize(
        "check",
        [
            pytest.param(bound(name, encoder), id=f"{_label(encoder)}-{name.replace(' ', '-')}")
            for encoder in encoders
            for name in check_names()
            if not _surely_undeclared(name, encoder)
        ],
    )


def _surely_undeclared(name: str, encoder: Any) -> bool:
    """Whether the check is of a capability that the class itself says it has not."""
    declared = getattr(_class_of(encoder), "capabilities", None)
    return name in CAPABILITIES and isinstance(declared, (set, frozenset)) and name not in declared


def _class_of(encoder: Any) -> Any:
    return encoder.func if isinstance(encoder, partial) else encoder


def _subject(
    encoder: Any,
    *,
    items: Any = None,
    labels: Any = None,
    load: Load | None = None,
    steps: int = STEPS,
) -> Subject:
    import numpy as np

    from fastretrieve.data.modalities import kind_of
    from fastretrieve.data.samples import Sample
    from fastretrieve.encoders.checking.tools import Subject

    first = _make(encoder)
    if items is None:
        sample = kind_of(first.modality).sample(first)
    else:
        listed = list(items)
        marks = np.arange(len(listed)) % 2 if labels is None else np.asarray(labels)
        sample = Sample(listed, marks.astype(np.int64))

    def make() -> Any:
        made = _make(encoder)
        if "fit" in made.capabilities and not made.is_trained:
            made.fit([made.preprocess(sample.items)])
        return made

    reader = load or (lambda folder: type(first).load(folder))
    return Subject(make=make, sample=sample, load=reader, steps=steps)


def _make(encoder: Any) -> Any:
    if isinstance(encoder, str):
        return create_encoder(encoder)
    refuse_instance(encoder)
    return encoder()


def refuse_instance(encoder: Any) -> None:
    """An encoder itself cannot be checked: a check changes it."""
    is_instance = hasattr(encoder, "encode") and not isinstance(encoder, type)
    if not isinstance(encoder, str) and (is_instance or not callable(encoder)):
        raise TypeError(
            "check_encoder takes a class, a function that makes an encoder, or a name: every check "
            f"starts from a new one; got {type(encoder).__name__}"
        )


def _label(encoder: Any) -> str:
    named = _class_of(encoder)
    return named if isinstance(named, str) else getattr(named, "__name__", repr(named))
