"""What the rest of the package asks of a backend, each backend answers."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import cases
import fastretrieve as fr
from fastretrieve._backends import cuda, runtime
from fastretrieve._backends.cpu import CpuBackend
from fastretrieve._backends.cuda import CudaBackend
from fastretrieve._backends.interface import Backend

CALLS = sorted(
    name for name, what in vars(Backend).items() if inspect.isfunction(what) and name[0] != "_"
)


def keywords(call: Any) -> set[str]:
    """The parameters that a caller may name; mypy compares the rest."""
    parameters = inspect.signature(call).parameters.values()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize("name", CALLS)
def test_every_backend_has_every_call(name: str) -> None:
    assert callable(getattr(CpuBackend, name))
    assert keywords(getattr(CudaBackend, name)) == keywords(getattr(Backend, name))


def test_the_cpu_writes_results_where_it_is_told(isa: str) -> None:
    queries, rows = cases.gaussian(300, 16, n_queries=5, seed=3)
    index = fr.Index(16, metric="ip")
    index.add(rows)
    backend, segments = index._form.backend, index._state.snapshot
    assert (type(backend), backend.name) == (CpuBackend, isa)
    expected = index.search(queries, k=4)
    out = (np.zeros((5, 4), np.float32), np.zeros((5, 4), np.int64))
    found = backend.search(queries, segments, 4, backend.counters(), False, out=out)
    assert found is out
    for got, wanted in zip(out, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("n_rows", [0, 10, 5000])
def test_a_plan_says_how_it_will_search(n_rows: int) -> None:
    index = fr.Index(16)
    index.add(cases.gaussian(n_rows, 16, seed=4).rows if n_rows else [])
    assert f"rows={n_rows}, " in repr(index.plan(8, k=3))
    assert "CpuPlan{panel_queries=8," in repr(index.plan(8, k=3))
    assert index.plan(8, k=3).nbytes == 8 * 3 * 12  # results alone


class MadeBackend:
    """Stands for ``CudaBackend`` where there is no GPU: it keeps what it was made of."""

    def __init__(self, device: str, **options: Any) -> None:
        self.device, self.options = device, options


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A machine with two GPUs of which the first is current; a test may make the other so."""
    now = {"device": 0}
    monkeypatch.setattr(runtime._core, "cuda_state", lambda: (True, False, ""))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: now["device"])
    monkeypatch.setattr(cuda, "CudaBackend", MadeBackend)
    monkeypatch.setattr(
        runtime, "_made_cuda_backend", cache(runtime._made_cuda_backend.__wrapped__)
    )
    return now


def test_cuda_and_its_number_are_one_backend(two_gpus: dict[str, int]) -> None:
    first = runtime.cuda_backend("cuda")
    assert first.device == "cuda:0"
    assert runtime.cuda_backend("cuda:0") is first is runtime.backend_for("cuda:0")
    assert runtime.cuda_backend() is first is runtime.backend_for("cuda")
    forced = runtime.cuda_backend("cuda", "mma")
    assert forced is not first
    assert forced.options == {"tier": "mma", "emulated": False}
    assert runtime.cuda_backend("cuda:0", "mma") is forced


def test_the_current_device_counts(two_gpus: dict[str, int]) -> None:
    first = runtime.cuda_backend("cuda")
    with pytest.raises(ValueError, match="device must be cuda or cuda:0, torch's current one, got"):
        runtime.cuda_backend("cuda:1")
    two_gpus["device"] = 1
    second = runtime.cuda_backend("cuda")
    assert second is not first
    assert second.device == "cuda:1"
    assert runtime.cuda_backend("cuda:1") is second
    with pytest.raises(ValueError, match="device must be cuda or cuda:1, torch's current one, got"):
        runtime.cuda_backend("cuda:0")
    two_gpus["device"] = 0
    assert runtime.cuda_backend("cuda:0") is first
