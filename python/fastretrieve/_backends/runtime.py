"""The backends and instruction sets of this machine, and the number of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from fastretrieve import _core
from fastretrieve._backends import tiers
from fastretrieve._backends.cpu import CpuBackend
from fastretrieve._backends.interface import Backend, BackendUnavailable
from fastretrieve._common.arguments import whole

if TYPE_CHECKING:
    from fastretrieve._backends.cuda import CudaBackend

MAX_THREADS = 1024  # the core's limit
_serving: list[CudaBackend] = []


class BackendInfo(NamedTuple):
    """One row of :func:`backends`: whether a backend can be used here, and why not if it cannot."""

    name: str
    available: bool
    reason: str
    instruction_set: str


def backends() -> list[BackendInfo]:
    """List the backends, available or not.

    >>> fr.backends()[0].name
    'cpu'
    """
    sets = _core.instruction_sets()
    cpu = BackendInfo("cpu", True, f"this machine runs {', '.join(sets)}", cpu_backend().name)
    available, _, reason = _core.cuda_state()
    tier = ""
    if available:
        tier, why, _ = tiers.chosen(0)
        reason = f"{reason}; scans with {tier}: {why}"
    return [cpu, BackendInfo("cuda", available, reason, tier)]


@cache
def cpu_backend(isa: str = "") -> CpuBackend:
    """The CPU backend for an instruction set; by default the best, or what ``FASTRETRIEVE_ISA``
    names.
    """
    return CpuBackend(isa)


def cuda_backend(device: str = "cuda", tier: str = "") -> CudaBackend:
    """The CUDA backend of torch's current device: ``cuda``, or its full name, which gives the same
    backend. The tier is the default, or what ``FASTRETRIEVE_CUDA_TIER`` names.
    """
    available, emulated, reason = _core.cuda_state()
    if not available:
        raise BackendUnavailable(f"cuda: {reason}; use device='cpu'")
    if emulated:
        return _made_cuda_backend("cuda", tier, True)
    from fastretrieve._backends.device_memory import usable_device

    return _made_cuda_backend(usable_device(device), tier, False)


@cache
def _made_cuda_backend(device: str, tier: str, emulated: bool) -> CudaBackend:
    from fastretrieve._backends.cuda import CudaBackend

    return CudaBackend(device, tier=tier, emulated=emulated)


def backend_for(device: str) -> Backend:
    """The backend that serves ``device``.

    >>> backend_for("tpu")
    Traceback (most recent call last):
    ...
    ValueError: device must be cpu or cuda, got 'tpu'
    """
    kind = str(device).partition(":")[0]
    if kind == "cpu":
        return cpu_backend()
    if kind == "cuda":
        return _serving[-1] if _serving else cuda_backend(str(device))
    raise ValueError(f"device must be cpu or cuda, got {device!r}")


@contextmanager
def serving(backend: CudaBackend) -> Iterator[None]:
    """Let ``device="cuda"`` mean this backend inside the block, to prove or measure a tier."""
    _serving.append(backend)
    try:
        yield
    finally:
        _serving.pop()


def usable_cores() -> int:
    """The cores that this process may run on: fewer than the machine's in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_threads() -> int:
    """The number of threads one call may use.

    >>> fr.num_threads() >= 1
    True
    """
    return _core.num_threads()


def set_num_threads(n: int) -> None:
    """Let every call use up to ``n`` threads. Waits for running calls; never changes a result.

    >>> fr.set_num_threads(2)
    >>> fr.num_threads()
    2
    """
    _core.set_num_threads(whole(n, "the number of threads", most=MAX_THREADS))
