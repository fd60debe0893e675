"""What several test modules share: every instruction set and CUDA tier, and a number of threads."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

import cuda_backends
from fastretrieve import _core
from fastretrieve._backends import runtime
from fastretrieve._backends.cpu import CpuBackend


@pytest.fixture(params=_core.instruction_sets())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every index and operation of the test runs on this instruction set."""
    backend = CpuBackend(request.param)
    monkeypatch.setattr(runtime, "cpu_backend", lambda isa="": backend)
    return str(request.param)


@pytest.fixture
def use_threads() -> Iterator[Callable[[int], None]]:
    """Set the number of threads for the rest of the test."""
    before = runtime.num_threads()
    yield runtime.set_num_threads
    runtime.set_num_threads(before)


@pytest.fixture(params=["faiss", "fastretrieve.compat.faiss"])
def faiss(request: pytest.FixtureRequest) -> ModuleType:
    """FAISS itself, and what stands in for it."""
    if request.param == "faiss":
        pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    return importlib.import_module(request.param)


@pytest.fixture(params=cuda_backends.PRESENT)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> cuda_backends.Place:
    """Every CUDA tier, with host arrays in and out."""
    return cuda_backends.install(monkeypatch, request.param, tensors=False)


@pytest.fixture(params=cuda_backends.PRESENT)
def cramped(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> cuda_backends.Place:
    """Every CUDA tier, with plans that let few rows pass every stage."""
    return cuda_backends.install(monkeypatch, request.param, tensors=False, small_plans=True)


@pytest.fixture(params=cuda_backends.PRESENT[:1])
def there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> cuda_backends.Place:
    """The first CUDA tier, with tensors on the device."""
    return cuda_backends.install(monkeypatch, request.param, tensors=True)
