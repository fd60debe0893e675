"""What several test modules share: every instruction set, and a number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fastretrieve import _core, runtime


@pytest.fixture(params=_core.instruction_sets())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every index and operation of the test runs on this instruction set."""
    backend = _core.cpu_backend(request.param)
    monkeypatch.setattr(runtime, "cpu_backend", lambda isa="": backend)
    return str(request.param)


@pytest.fixture
def use_threads() -> Iterator[Callable[[int], None]]:
    """Set the number of threads for the rest of the test."""
    before = runtime.num_threads()
    yield runtime.set_num_threads
    runtime.set_num_threads(before)
