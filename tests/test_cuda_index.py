"""A CUDA index lives as a CPU index does: equal rows, files and answers after equal changes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cases
import cuda_backends
import fastretrieve as fr
import oracle
from cuda_backends import KINDS, NEEDS_CUDA, PRESENT, Place
from fastretrieve._backends.cpu import CpuBackend
from fastretrieve._files.tensorfile import read_header
from screens import covered_ids, screened
from search_checks import build, on_cuda

pytestmark = NEEDS_CUDA

CUDA_LAYOUT = "fragment64.1"
DTYPES = ("float32", "float16", "bfloat16")


@pytest.fixture(params=KINDS, ids=lambda tensors: "tensors" if tensors else "numpy")
def there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The last tier, with small plans, once for each kind of memory."""
    return cuda_backends.install(monkeypatch, PRESENT[-1], tensors=request.param, small_plans=True)


def both(rows: np.ndarray, metric: str, **options: Any) -> tuple[Any, Any]:
    """The same index on the CPU and on a GPU."""
    return build(rows, metric, **options), on_cuda(rows, metric, **options)


def assert_same_results(there: Place, wanted: Any, found: Any) -> None:
    """Every array of two results, wherever it is, type and bits."""
    for ours, theirs in zip(found, wanted, strict=True):
        got = there.host(ours)
        assert got.dtype == theirs.dtype
        np.testing.assert_array_equal(got, theirs)


def assert_same_index(there: Place, cpu: Any, cuda: Any, queries: np.ndarray) -> None:
    """Equal rows, ids and answers."""
    assert len(cpu) == len(cuda)
    np.testing.assert_array_equal(cuda.ids, cpu.ids)
    np.testing.assert_array_equal(cuda.get(cuda.ids), cpu.get(cpu.ids))
    wanted = cpu.search(queries, 7, score_dtype="float64")
    assert_same_results(there, wanted, cuda.search(there.put(queries), 7, score_dtype="float64"))


# --- changes --------------------------------------------------------------------------------------


CHANGES: dict[str, Callable[[Any, np.random.Generator], object]] = {
    "add": lambda index, r: index.add(r.standard_normal((r.integers(1, 90), 12))),
    "add with ids": lambda index, r: index.add(
        r.standard_normal((5, 12)), ids=index.ids.max() + 1 + 3 * r.permutation(5)
    ),
    "remove": lambda index, r: index.remove(r.choice(index.ids, 20, replace=False)),
    "update": lambda index, r: index.update(
        r.choice(index.ids, 9, replace=False), r.standard_normal((9, 12))
    ),
    "reserve": lambda index, r: index.reserve(int(r.integers(1, 200))),
    "compact": lambda index, r: index.compact(),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", [1, 2])
def test_any_changes_leave_the_same_index(seed: int, dtype: Any, there: Place) -> None:
    queries, rows = cases.gaussian(400, 12, n_queries=6, seed=seed)
    cpu, cuda = both(rows, "l2", dtype=dtype)
    order = np.random.default_rng(seed)
    for step in range(14):
        name = order.choice(list(CHANGES))
        for index in (cpu, cuda):
            CHANGES[name](index, np.random.default_rng([seed, step]))
        assert_same_index(there, cpu, cuda, queries)
    assert cuda.nbytes > 0


def test_vectors_and_ids_may_come_as_tensors_of_the_device(there: Place) -> None:
    queries, rows = cases.gaussian(300, 12, n_queries=4, seed=3)
    ids = np.random.default_rng(4).permutation(900)[:300].astype(np.int64)
    cpu, cuda = fr.Index(12, metric="ip"), fr.Index(12, metric="ip", device="cuda")
    for index, put in ((cpu, np.asarray), (cuda, there.put)):
        index.add(put(rows), ids=put(ids))
        index.remove(put(ids[:30]))
        index.update(put(ids[40:50]), put(rows[:10]))
    assert_same_index(there, cpu, cuda, queries)
    assert int(ids[60]) in cuda
    assert int(ids[0]) not in cuda
    wanted = cpu.search_ids(ids[50:60], 3, exclude=ids[60:90])
    assert_same_results(
        there, wanted, cuda.search_ids(there.put(ids[50:60]), 3, exclude=ids[60:90])
    )


def test_a_change_that_fails_leaves_the_index_as_it_was(there: Place) -> None:
    queries, rows = cases.gaussian(300, 12, seed=5)
    cpu, cuda = both(rows, "cosine")
    bad = rows[:100].copy()
    bad[77, 3] = np.inf
    for failing, message in (
        (lambda: cuda.add(there.put(bad)), "not finite in float32 in row 77; nothing was added"),
        (lambda: cuda.update(np.arange(100), there.put(bad)), "not finite in float32 in row 77"),
        (lambda: cuda.remove([5, 300]), "1 of 2 ids are not in the index: 300"),
        (lambda: cuda.add(rows[:2], ids=[400, 7]), "1 of 2 ids are in the index already: 7"),
        (lambda: cuda.get([1, 900]), "1 of 2 ids are not in the index: 900"),
    ):
        with pytest.raises((ValueError, KeyError), match=message):
            failing()
    assert_same_index(there, cpu, cuda, queries)


# --- filters and joins ----------------------------------------------------------------------------


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_filters_equal_the_cpu(metric: str, there: Place) -> None:
    queries, rows = cases.gaussian(700, 12, n_queries=5, seed=6)
    cpu, cuda = both(rows, metric, adds=[100, 65])
    random = np.random.default_rng(7)
    filters: dict[str, Any] = {
        "a mask": random.random(700) < 0.3,
        "ids": random.permutation(900)[:60],
        "a mask for each query": random.random((5, 700)) < 0.1,
        "ids for each query": random.integers(-1, 700, (5, 20)),
    }
    for chosen in filters.values():
        for where, exclude in ((chosen, None), (None, chosen), (chosen, np.arange(0, 700, 3))):
            wanted = cpu.search(queries, 9, where=where, exclude=exclude)
            sent = None if where is None else torch.from_numpy(where)
            found = cuda.search(there.put(queries), 9, where=sent, exclude=exclude)
            assert_same_results(there, wanted, found)


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_joins_equal_the_cpu(metric: str, there: Place) -> None:
    queries, rows = cases.gaussian(330, 9, n_queries=70, seed=18)
    queries[3], rows[10:20] = 0, rows[30:40]
    radius = {"ip": 4.0, "cosine": 0.8, "l2": 2.0, "sqeuclidean": 4.0}[metric]
    where = np.random.default_rng(19).random((70, 320)) < 0.5
    results = []
    indexes = both(rows, metric, adds=[100, 65])
    for index, sent in zip(indexes, (queries, there.put(queries)), strict=True):
        index.remove(np.arange(50, 60))
        parts = list(index.iter_pairs(radius, batch=7))
        graphs = list(index.iter_knn_graph(4, batch=50, include_self=True))
        results.append(
            [
                *index.range_search(sent, radius, score_dtype="float64"),
                *index.range_search(sent, radius, where=where, score_dtype="float64"),
                *index.range_search(sent, radius, exclude=[1, 2, 3]),
                *index.range_search(sent[0], radius),
                *index.pairs(radius, score_dtype="float64"),
                *index.knn_graph(3, score_dtype="float64"),
                *(np.concatenate(column) for column in zip(*parts, strict=True)),
                *(np.concatenate(column) for column in zip(*graphs, strict=True)),
            ]
        )
    assert_same_results(there, *results)


def test_range_of_everything_and_of_nothing(there: Place) -> None:
    queries, rows = cases.gaussian(130, 5, n_queries=3, seed=20)
    cpu, cuda = both(rows, "l2")
    for radius in (-1.0, 0.0, np.inf):
        wanted = cpu.range_search(queries, radius)
        assert_same_results(there, wanted, cuda.range_search(there.put(queries), radius))
    with pytest.raises(ValueError, match="radius must be a number, got NaN"):
        cuda.range_search(there.put(queries), np.nan)
    assert cuda.stats()["rows_scored"] == 3 * 3 * 130


# --- files ----------------------------------------------------------------------------------------


def layout_in(path: Path) -> str | None:
    return read_header(path.read_bytes()).metadata.get("codes")


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("state", ["one block", "several blocks", "rows removed", "own ids"])
def test_files_are_read_on_both_devices(
    state: str, dtype: Any, mmap: bool, there: Place, tmp_path: Path
) -> None:
    queries, rows = cases.gaussian(500, 21, n_queries=4, seed=8)
    ids = np.random.default_rng(9).permutation(900)[:500] if state == "own ids" else None
    adds = () if state == "one block" else (70, 300)
    cpu, cuda = both(rows, "ip", dtype=dtype, adds=adds, ids=ids)
    if state == "rows removed":
        for index in (cpu, cuda):
            index.remove(np.arange(40, 90))
    cuda.save(tmp_path / "cuda.index")
    cpu.save(tmp_path / "cpu.index")
    assert layout_in(tmp_path / "cuda.index") == CUDA_LAYOUT
    assert layout_in(tmp_path / "cpu.index") == CpuBackend().layout
    for name in ("cuda.index", "cpu.index"):
        for device in ("cuda", "cpu"):
            path = tmp_path / name
            loaded = fr.Index.load(path, device=device, mmap=mmap, verify=True)
            assert loaded.device == device
            put = there.put if device == "cuda" else np.asarray
            wanted = cpu.search(queries, 7, score_dtype="float64")
            assert_same_results(
                there, wanted, loaded.search(put(queries), 7, score_dtype="float64")
            )
            np.testing.assert_array_equal(loaded.get(cpu.ids), cpu.get(cpu.ids))


def test_codes_in_a_file_are_those_of_the_device_and_may_be_left_out(
    there: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, rows = cases.gaussian(500, 21, n_queries=4, seed=10)
    cpu, cuda = both(rows, "cosine")
    cuda.save(tmp_path / "with")
    cuda.save(tmp_path / "without", codes=False)
    assert layout_in(tmp_path / "without") is None
    assert (tmp_path / "without").stat().st_size < (tmp_path / "with").stat().st_size
    calls: list[int] = []
    encode = there.backend.encode
    monkeypatch.setattr(
        there.backend, "encode", lambda *a, **k: (calls.append(1), encode(*a, **k))[1]
    )
    assert_same_index(there, cpu, fr.Index.load(tmp_path / "with", device="cuda"), queries)
    assert calls == []
    assert_same_index(there, cpu, fr.Index.load(tmp_path / "without", device="cuda"), queries)
    assert calls == [1]


def test_the_screen_of_a_file_stays_and_is_not_read(there: Place, tmp_path: Path) -> None:
    queries, rows = cases.gaussian(500, 21, n_queries=4, seed=12)
    cpu = screened(build(rows, "ip"))
    cpu.save(tmp_path / "a")
    cuda = fr.Index.load(tmp_path / "a", device="cuda", verify="codes")
    assert cuda.optimize()[:2] == (0, 0)
    for index in (cpu, cuda):
        index.remove(np.arange(40, 90))
    assert_same_index(there, cpu, cuda, queries)
    assert cuda.stats()["optimized_rows"] == 0
    for index in (cpu, cuda):
        index.compact()
    assert_same_index(there, cpu, cuda, queries)
    cuda.save(tmp_path / "b")
    again = fr.Index.load(tmp_path / "b", verify="codes")
    assert covered_ids(again) == covered_ids(cpu) == [*range(40), *range(90, 448)]


def test_a_loaded_index_can_be_changed(there: Place, tmp_path: Path) -> None:
    queries, rows = cases.gaussian(500, 21, n_queries=4, seed=11)
    cpu, cuda = both(rows, "l2")
    cuda.save(tmp_path / "a")
    loaded = fr.Index.load(tmp_path / "a", device="cuda")
    for index in (cpu, loaded):
        index.add(rows[:100] + 1)
        index.remove(np.arange(0, 300, 2))
        index.update([1, 3], rows[:2])
    assert_same_index(there, cpu, loaded, queries)
    loaded.compact()
    assert_same_index(there, cpu, loaded, queries)
    empty = fr.Index(21, device="cuda")
    empty.save(tmp_path / "empty")
    assert len(fr.Index.load(tmp_path / "empty", device="cuda")) == 0


def test_pickles_and_copies_stay_on_the_device(there: Place) -> None:
    queries, rows = cases.gaussian(300, 21, n_queries=4, seed=12)
    cpu, cuda = both(rows, "l2", adds=[100])
    cuda.remove([3])
    cpu.remove([3])
    for made in (pickle.loads(pickle.dumps(cuda)), copy.deepcopy(cuda)):
        assert made.device == "cuda"
        assert_same_index(there, cpu, made, queries)


def test_to_and_from_faiss(there: Place) -> None:
    pytest.importorskip("faiss")
    queries, rows = cases.gaussian(300, 21, n_queries=4, seed=13)
    cpu, cuda = both(rows, "ip", ids=np.random.default_rng(14).permutation(900)[:300])
    made = fr.Index.from_faiss(cuda.to_faiss(), device="cuda")
    assert_same_index(there, cpu, made, queries)
