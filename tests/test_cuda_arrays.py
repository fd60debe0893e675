"""Arrays in and out of a CUDA index: where they are, what comes back, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cases
import cuda_backends
import fastretrieve as fr
import oracle
from cuda_backends import NEEDS_CUDA, PRESENT, Place
from fastretrieve._backends import device_memory
from fastretrieve._backends.device_memory import DeviceMemory, usable_device
from search_checks import on_cuda, search

pytestmark = NEEDS_CUDA


def test_queries_that_are_not_finite(there: Place) -> None:
    queries, rows = cases.gaussian(2500, 12, n_queries=4, seed=12)
    queries[1, 3], queries[2, 0] = np.nan, np.inf
    index = on_cuda(rows, "l2")
    with pytest.raises(ValueError, match=r"queries hold a value that is not finite in row 1"):
        search(index, queries, 3)
    sent = there.put(queries)
    with pytest.raises(ValueError, match=r"not finite in row 1"):
        index.search(sent, 3, check=True)
    found = search(index, sent, 3)
    ids, scores = there.host(found.ids), there.host(found.scores)
    assert (ids[1:3] == -1).all()
    assert np.isnan(scores[1:3]).all()
    good = [0, 3]
    expected = oracle.topk(queries[good], rows, 3, "l2")
    oracle.assert_same(fr.Hits(scores[good], ids[good]), expected)
    assert index.stats()["unfit_queries"] == 2


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_tensors_on_the_device_stay_there(dtype: str, there: Place) -> None:
    queries, rows = cases.gaussian(2500, 24, n_queries=4, seed=13)
    kind = getattr(torch, dtype)
    sent_rows, sent = there.put(rows).to(kind), there.put(queries).to(kind)
    index = fr.Index(24, metric="cosine", dtype=dtype, device="cuda")
    index.add(sent_rows)
    found = search(index, sent, 5)
    assert isinstance(found.ids, torch.Tensor)
    wide = [there.host(t.float()) for t in (sent, sent_rows)]
    expected = oracle.topk(*wide, 5, "cosine")
    there.assert_found(found, expected)
    one = search(index, sent[1], 5)
    assert one.ids.shape == (5,)
    np.testing.assert_array_equal(there.host(one.ids), expected.ids[1])
    strided = torch.stack([sent, sent], dim=2)[:, :, 0]
    there.assert_found(search(index, strided, 5), expected)
    there.assert_found(search(index, there.host(sent.float()), 5), expected)  # NumPy back


def test_results_written_to_out(there: Place) -> None:
    queries, rows = cases.gaussian(2500, 24, n_queries=4, seed=14)
    expected = oracle.topk(queries, rows, 5, "ip")
    index = on_cuda(rows, "ip")
    sent = there.put(queries)
    out = (there.put(np.zeros((4, 5))), there.put(np.zeros((4, 5), np.int64)))
    found = index.search(sent, 5, score_dtype="float64", out=out)
    assert found.ids is out[1]
    there.assert_found(fr.Hits(*out), expected)
    where = np.arange(len(rows)) % 2 == 0
    index.search(sent, 5, score_dtype="float64", out=out, where=where)
    there.assert_found(fr.Hits(*out), oracle.topk(queries, rows, 5, "ip", allowed=where))
    numpy = (np.zeros((4, 5)), np.zeros((4, 5), np.int64))
    index.search(queries, 5, score_dtype="float64", out=numpy)
    oracle.assert_same(fr.Hits(*numpy), expected)
    with pytest.raises(ValueError, match="out must be where the queries are"):
        index.search(sent, 5, score_dtype="float64", out=numpy)


def test_a_plan_pins_its_state_and_owns_its_results(there: Place) -> None:
    queries, rows = cases.gaussian(5000, 24, n_queries=8, seed=15)
    index = on_cuda(rows, "ip")
    expected = oracle.topk(queries, rows, 5, "ip")
    plan = index.plan(8, k=5, score_dtype="float64")
    assert "CudaPlan" in repr(plan)
    assert plan.nbytes > 8 * 5 * 16
    index.remove(expected.ids[:, 0].tolist()[:1])
    index.compact()
    sent = there.put(queries)
    found = plan(sent)
    assert found.ids.data_ptr() == plan.ids.data_ptr()
    there.assert_found(found, expected)
    part = plan(sent[:3])
    there.assert_found(part, oracle.Best(expected.scores[:3], expected.ids[:3]))
    oracle.assert_same(plan(queries), expected)  # NumPy in, NumPy out
    with pytest.raises(ValueError, match="the plan is for up to 8 queries, got 16"):
        plan(there.put(np.concatenate([queries, queries])))


def test_the_allocator_knows_all_that_a_stream_uses(
    there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or memory that an index or a plan leaves behind would be given away under a kernel."""
    lent: set[int] = set()
    memory = there.backend.memory
    monkeypatch.setattr(
        memory, "share", lambda tensors: lent.update(t.data_ptr() for t in tensors if t is not None)
    )
    queries, rows = cases.gaussian(300, 24, n_queries=4, seed=16)
    sent = there.put(queries)
    index = on_cuda(rows, "ip", ids=np.arange(300)[::-1] * 3)
    index.remove([6])
    search(index, sent, 5)
    state, counters = index._state, index._counters
    (segment,) = state.segments
    marks = [kept.data_ptr() for kept in state.snapshot.kept]
    assert len(marks) == 2  # ids and who was removed
    used = {
        segment.slab.rows.data_ptr(),
        segment.slab.codes.data_ptr(),
        counters.numbers.data_ptr(),
    }
    used |= {index._form.backend._tables[state.snapshot].numbers.data_ptr(), *marks}
    assert lent >= used
    lent.clear()
    search(index, sent, 5)
    assert not lent  # once for each stream
    index.search(sent, 5, where=np.arange(299) % 2 == 0)
    assert lent >= set(marks)
    plan = index.plan(4, k=5)
    lent.clear()
    plan(sent)
    assert lent == {plan._workspace.data_ptr(), plan.scores.data_ptr(), plan.ids.data_ptr()}


def test_errors_say_what_was_wrong(there: Place) -> None:
    index = fr.Index(4, device="cuda")
    rows = np.ones((100, 4), np.float32)
    rows[70, 2] = np.nan
    for sent in (rows, there.put(rows)):
        with pytest.raises(ValueError, match="not finite in float32 in row 70; nothing was added"):
            index.add(sent)
    assert len(index) == 0
    with pytest.raises(ValueError, match="queries have dimension 5 but the index has dimension 4"):
        index.search(there.put(np.ones((2, 5), np.float32)))
    with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64"):
        index.search(there.put(np.ones((2, 4), np.int64)))
    with pytest.raises(ValueError, match="one or two dimensions"):
        index.search(there.put(np.ones((2, 2, 4), np.float32)))


def test_a_tier_is_forced_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastretrieve._backends.cuda import CudaBackend

    for tier in PRESENT:
        monkeypatch.setenv("FASTRETRIEVE_CUDA_TIER", tier)
        assert CudaBackend(emulated=cuda_backends.emulated()).name == tier
    monkeypatch.setenv("FASTRETRIEVE_CUDA_TIER", "warp")
    with pytest.raises(ValueError, match="CUDA tier must be dp4a, mma or wgmma, got 'warp'"):
        CudaBackend(emulated=cuda_backends.emulated())


def test_backends_say_emulated_or_what_device_it_is() -> None:
    row = next(backend for backend in fr.backends() if backend.name == "cuda")
    assert row.available
    assert ("emulated" in row.reason) == cuda_backends.emulated()


# --- the device -----------------------------------------------------------------------------------


def test_a_torch_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(fr.BackendUnavailable, match=r"cuda: torch .* finds no GPU; install torch"):
        usable_device("cuda")


def test_an_index_lives_on_the_current_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert usable_device("cuda") == usable_device("cuda:1") == "cuda:1"
    with pytest.raises(ValueError, match=r"cuda:1, torch's current one, got 'cuda:0'; choose"):
        usable_device("cuda:0")
    with pytest.raises(RuntimeError, match=r"on cuda:0 but this thread's current device is cuda:1"):
        _ = DeviceMemory("cuda:0").stream


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.uint8, np.int64])
def test_memory_of_a_file_is_copied_in_parts(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_memory, "COPY_BYTES", 100)
    memory = DeviceMemory("cpu")
    for shape in ((0, 3), (1, 3), (40, 3), (40,)):
        array = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
        array.setflags(write=False)
        there = memory.placed(array)
        assert not np.shares_memory(memory.to_host(there), array)
        np.testing.assert_array_equal(memory.to_host(there), array)
