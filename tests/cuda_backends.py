"""The CUDA backends that this build and machine have, for tests to run on each.

In an emulated build a backend keeps its arrays as NumPy, or (``tensors``) as torch tensors that
stand for those of a device, so that the code for device tensors runs without a GPU.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import fastretrieve as fr
import oracle
from fastretrieve import _core
from fastretrieve._backends import runtime
from fastretrieve._common import arrays
from fastretrieve._queries import searching

TIERS = ("dp4a", "mma", "wgmma")


class Place(NamedTuple):
    """A backend, and how a test puts arrays where it works."""

    backend: Any
    tensors: bool

    def put(self, array: np.ndarray) -> Any:
        """A tensor on the device; NumPy where the backend works on NumPy."""
        return self.backend.memory.placed(array) if self.tensors else array

    def host(self, array: Any) -> np.ndarray:
        return array.cpu().numpy() if arrays.is_tensor(array) else array

    def assert_found(self, hits: Any, expected: oracle.Best) -> None:
        """Hits that may be on the device are those of the oracle, in every bit."""
        oracle.assert_same(fr.Hits(self.host(hits.scores), self.host(hits.ids)), expected)


def reason() -> str:
    """Why there is no CUDA backend; empty if there is one."""
    available, _, why = _core.cuda_state()
    return "" if available else why


def emulated() -> bool:
    return bool(_core.cuda_state()[1])


def tiers() -> list[str]:
    """The tiers that the device can run."""
    found = []
    for tier in TIERS:
        try:
            _core.CudaBackend(tier)
        except ValueError:
            continue
        found.append(tier)
    return found


NEEDS_CUDA = pytest.mark.skipif(bool(reason()), reason=f"no CUDA backend: {reason()}")
PRESENT = [] if reason() else tiers()
KINDS = [True, False] if reason() or emulated() else [True]  # tensors on the device, or NumPy


def stand_in(array: object) -> str:
    """The device of an array where every tensor stands for one of a GPU."""
    return "cuda" if arrays.is_tensor(array) else "cpu"


def install(
    monkeypatch: pytest.MonkeyPatch, tier: str, *, tensors: bool, small_plans: bool = False
) -> Place:
    """Let ``device="cuda"`` mean this tier for the rest of a test."""
    from fastretrieve._backends import device_memory
    from fastretrieve._backends.cuda import CudaBackend

    backend = CudaBackend("cuda", tier=tier, emulated=emulated(), small_plans=small_plans)
    if emulated() and tensors:
        backend.memory = device_memory.DeviceMemory("cpu")
        for module in (arrays, device_memory, searching):  # each has the name for itself
            monkeypatch.setattr(module, "device_of", stand_in)
    monkeypatch.setattr(runtime, "cuda_backend", lambda device="cuda", tier="": backend)
    return Place(backend, tensors)
