"""FAISS's ``IndexIVFFlat``: the same assertions against faiss-cpu and us.

Numbers are small integers, so that float32 sums are exact in any order. A few directions hold most
of what tells the rows apart, so that ours has leaves to keep to.
"""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
from fastretrieve.compat import faiss as ours

DIM, NLIST = 64, 16
LARGEST = np.finfo(np.float32).max
rng = np.random.default_rng(71)
BASIS = rng.integers(-5, 6, (6, DIM))


def drawn(n: int) -> np.ndarray:
    spread = rng.integers(-5, 6, (n, 6)) @ BASIS
    return (spread + rng.integers(-1, 2, (n, DIM))).astype(np.float32)


ROWS, QUERIES = drawn(5000), drawn(30)


def scores(metric: str, rows: np.ndarray = ROWS) -> np.ndarray:
    if metric == "IP":
        return -(QUERIES @ rows.T)
    norms = (QUERIES**2).sum(axis=1)[:, None] + (rows**2).sum(axis=1)
    return norms - 2 * QUERIES @ rows.T


def empty(faiss: ModuleType, metric: str = "L2", dim: int = DIM, nlist: int = NLIST) -> Any:
    flat = getattr(faiss, f"IndexFlat{metric}")(dim)
    kind = faiss.METRIC_L2 if metric == "L2" else faiss.METRIC_INNER_PRODUCT
    return faiss.IndexIVFFlat(flat, dim, nlist, kind)


def trained(faiss: ModuleType, metric: str = "L2") -> Any:
    index = empty(faiss, metric)
    index.train(ROWS[:1000])
    return index


def filled(faiss: ModuleType, metric: str = "L2") -> Any:
    index = trained(faiss, metric)
    index.add(ROWS)
    return index


@pytest.fixture(scope="module")
def optimized() -> ours.IndexIVFFlat:
    """One of ours whose leaves are made; tests that change it copy it."""
    index: ours.IndexIVFFlat = filled(ours)
    index.search(QUERIES, 1)
    return index


@pytest.mark.parametrize("metric", ["L2", "IP"])
def test_all_lists_give_the_exact_answer_and_fewer_give_less(
    faiss: ModuleType, metric: str
) -> None:
    index, exact = filled(faiss, metric), scores(metric)
    wanted = np.sort(exact, axis=1)[:, :10] * (1 if metric == "L2" else -1)
    right = []
    for nprobe in (1, 4, NLIST, 10 * NLIST):
        index.nprobe = nprobe
        D, I = index.search(QUERIES, 10)  # noqa: E741
        assert D.dtype == np.float32
        assert I.dtype == np.int64
        there = I >= 0
        signed = D if metric == "L2" else -D
        of_found = np.take_along_axis(exact, np.maximum(I, 0), axis=1)
        np.testing.assert_array_equal(of_found[there], signed[there])
        right.append(int((wanted == D).sum()))
    assert right[0] <= right[1] <= right[2] == right[3] == wanted.size
    assert right[0] < wanted.size or metric == "IP"  # the largest products lie close together


def test_ours_reads_a_share_of_its_leaves(optimized: ours.IndexIVFFlat) -> None:
    index = copy.deepcopy(optimized)
    assert index.leaves == 5000 // 64
    before = index.exact.stats()["rows_scored"]
    for nprobe in (1, 3):
        index.nprobe = nprobe
        probes = -(-index.leaves * nprobe // NLIST)
        wanted = index.exact.search(QUERIES, 10, probes=probes)
        np.testing.assert_array_equal(index.search(QUERIES, 10)[1], wanted.ids)
        per_search = ours.SearchParametersIVF(nprobe=nprobe)
        index.nprobe = NLIST
        np.testing.assert_array_equal(index.search(QUERIES, 10, params=per_search)[1], wanted.ids)
    assert index.exact.stats()["rows_scored"] > before


def test_ours_is_exact_where_there_are_no_leaves() -> None:
    index = ours.index_factory(12, "IVF4,Flat")
    rows = rng.integers(-50, 50, (300, 12)).astype(np.float32)
    index.train(rows)
    index.add(rows)
    np.testing.assert_array_equal(index.search(rows, 1)[1][:, 0], np.arange(300))
    assert index.leaves == 0


def test_ours_makes_leaves_again_when_a_tenth_is_new(optimized: ours.IndexIVFFlat) -> None:
    index = copy.deepcopy(optimized)
    index.add(ROWS[:300])
    index.search(QUERIES, 1)
    assert index.exact.stats()["optimized_rows"] == 4992
    assert 5000 in index.search(ROWS[:1], 2)[1]  # those in no leaf are read
    index.add(ROWS[300:600])
    index.search(QUERIES, 1)
    assert index.exact.stats()["optimized_rows"] == 5600 // 64 * 64


def test_what_an_index_says_of_itself(faiss: ModuleType) -> None:
    index = empty(faiss)
    assert (index.d, index.ntotal, index.nlist, index.nprobe) == (DIM, 0, NLIST, 1)
    assert (index.metric_type, index.code_size) == (faiss.METRIC_L2, 4 * DIM)
    assert not index.is_trained
    index.cp.niter = 5
    index.verbose = False
    index.train(ROWS[:1000])
    assert index.is_trained
    assert index.ntotal == 0
    assert empty(faiss, "IP").metric_type == faiss.METRIC_INNER_PRODUCT
    centres = faiss.IndexFlatL2(DIM)
    centres.add(ROWS[:NLIST])
    assert faiss.IndexIVFFlat(centres, DIM, NLIST).is_trained


def test_wrong_calls(faiss: ModuleType) -> None:
    index = empty(faiss)
    for call in (
        lambda: index.add(ROWS),
        lambda: index.search(QUERIES, 1),
        lambda: index.train(ROWS[: NLIST - 1]),
        lambda: faiss.IndexIVFFlat(faiss.IndexFlatL2(DIM + 1), DIM, NLIST),
    ):
        with pytest.raises(RuntimeError):
            call()
    index.train(ROWS[:1000])
    with pytest.raises(AssertionError):
        index.add(ROWS[:, :3])
    with pytest.raises(AssertionError):
        index.search(QUERIES, 0)
    with pytest.raises(AssertionError):
        index.add_with_ids(ROWS[:2], np.array([1]))
    with pytest.raises(OverflowError):
        index.nprobe = -1
    with pytest.raises(TypeError):
        index.nprobe = 2.5
    index.nprobe = 0
    with pytest.raises(RuntimeError):
        index.search(QUERIES, 1)
    index.nprobe = 1
    with pytest.raises(RuntimeError):
        index.search(QUERIES, 1, params=faiss.SearchParameters(sel=faiss.IDSelectorAll()))
    with pytest.raises(RuntimeError):
        index.search(QUERIES, 1, params=faiss.SearchParametersIVF(nprobe=0))


def test_padding(faiss: ModuleType) -> None:
    index = trained(faiss)
    index.nprobe = NLIST
    for n in (0, 2):
        D, I = index.search(QUERIES, 4)  # noqa: E741
        assert (I[:, n:] == -1).all()
        assert (D[:, n:] == LARGEST).all()
        assert (I[:, :n] >= 0).all()
        index.add(ROWS[:2])
    assert index.search(QUERIES[:0], 4)[1].shape == (0, 4)


def test_ids_stay_when_others_go(faiss: ModuleType) -> None:
    index = trained(faiss)
    ids = rng.permutation(9000)[:1000] - 100
    index.add_with_ids(ROWS[:600], ids[:600])
    index.add_with_ids(ROWS[600:1000], ids[600:].astype(np.int32))
    index.nprobe = NLIST
    np.testing.assert_array_equal(index.search(ROWS[:1000], 1)[0], 0)
    assert index.remove_ids(np.append(ids[[3, 250]], 99_999)) == 2
    assert (
        index.remove_ids(faiss.IDSelectorRange(-100, 0))
        == (ids[4:250] < 0).sum() + (ids[251:] < 0).sum() + (ids[:3] < 0).sum()
    )
    kept = np.setdiff1d(np.arange(1000)[ids >= 0], [3, 250])
    assert index.ntotal == len(kept)
    found = index.search(ROWS[kept], 1)[1][:, 0]
    row_of = {int(i): row for i, row in zip(ids, ROWS[:1000], strict=True)}
    np.testing.assert_array_equal([row_of[i] for i in found.tolist()], ROWS[kept])
    assert set(found.tolist()) <= set(ids[kept].tolist())
    index.reset()
    assert (index.ntotal, index.is_trained) == (0, True)
    index.add(ROWS[:3])
    assert index.search(ROWS[2:3], 1)[1].tolist() == [[2]]


def test_added_vectors_are_numbered_from_their_count(faiss: ModuleType) -> None:
    index = trained(faiss)
    index.add(ROWS[:10])
    index.remove_ids(np.array([0, 1]))
    index.add(ROWS[:1])
    index.nprobe = NLIST
    assert index.search(ROWS[:1], 1)[1].tolist() == [[8]]
    assert index.remove_ids(np.array([8])) == 2  # the one that came later has the same id


def test_ids_may_be_negative_and_shared(faiss: ModuleType) -> None:
    index = trained(faiss)
    index.add_with_ids(ROWS[:3], np.array([-7, 9, 9]))
    index.nprobe = NLIST
    assert index.search(ROWS[:3], 1)[1].tolist() == [[-7], [9], [9]]
    assert index.remove_ids(np.array([9])) == 2
    assert index.ntotal == 1


def test_reconstruct(faiss: ModuleType) -> None:
    index = trained(faiss)
    index.add(ROWS[:100])
    index.make_direct_map()
    np.testing.assert_array_equal(index.reconstruct(7), ROWS[7])
    np.testing.assert_array_equal(index.reconstruct_n(3, 4), ROWS[3:7])
    np.testing.assert_array_equal(index.reconstruct_n(), ROWS[:100])
    np.testing.assert_array_equal(index.reconstruct_batch(np.array([9, 2])), ROWS[[9, 2]])
    index.nprobe = NLIST
    _, I, R = index.search_and_reconstruct(ROWS[:4], 2)  # noqa: E741
    np.testing.assert_array_equal(R, ROWS[I])
    for call in (lambda: index.reconstruct(100), lambda: index.reconstruct_n(99, 2)):
        with pytest.raises(RuntimeError):
            call()
    index.update_vectors(np.array([7, 8]), ROWS[200:202])
    np.testing.assert_array_equal(index.reconstruct(8), ROWS[201])
    assert index.search(ROWS[201:202], 1)[0].tolist() == [[0]]


def test_a_map_of_own_ids(faiss: ModuleType) -> None:
    index = trained(faiss)
    index.add_with_ids(ROWS[:50], np.arange(50) * 7 - 3)
    index.set_direct_map_type(faiss.DirectMap.Hashtable)
    np.testing.assert_array_equal(index.reconstruct(4), ROWS[1])
    with pytest.raises(RuntimeError):
        index.reconstruct(5)
    assert index.remove_ids(np.array([4])) == 1
    with pytest.raises(RuntimeError):
        index.reconstruct(4)


def test_searches_among_selected_vectors(faiss: ModuleType) -> None:
    index = filled(faiss)
    for nprobe in (2, NLIST):
        params = faiss.SearchParametersIVF(nprobe=nprobe, sel=faiss.IDSelectorRange(40, 90))
        D, I = index.search(QUERIES, 3, params=params)  # noqa: E741
        assert ((I == -1) | ((I >= 40) & (I < 90))).all()
    np.testing.assert_array_equal(D, np.sort(scores("L2")[:, 40:90], axis=1)[:, :3])
    lims, _, found = index.range_search(QUERIES, 1e9, params=params)
    assert lims.tolist() == [50 * i for i in range(31)]
    assert set(found.tolist()) == set(range(40, 90))


def test_factory_and_parameters(faiss: ModuleType) -> None:
    index = faiss.index_factory(DIM, "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
    assert type(index).__name__ == "IndexIVFFlat"
    assert (index.nlist, index.metric_type) == (16, faiss.METRIC_INNER_PRODUCT)
    faiss.ParameterSpace().set_index_parameter(index, "nprobe", 4)
    assert faiss.extract_index_ivf(index).nprobe == 4
    faiss.ParameterSpace().set_index_parameters(index, "nprobe=8")
    assert index.nprobe == 8
    flat = faiss.IndexFlatL2(DIM)
    for call in (
        lambda: faiss.index_factory(DIM, "IVF,Flat"),
        lambda: faiss.ParameterSpace().set_index_parameter(index, "nonsense", 4),
        lambda: faiss.ParameterSpace().set_index_parameter(flat, "nprobe", 4),
        lambda: faiss.extract_index_ivf(flat),
    ):
        with pytest.raises(RuntimeError):
            call()


def test_merging(faiss: ModuleType) -> None:
    index = trained(faiss)
    index.add(ROWS[:100])
    other = faiss.clone_index(index)
    other.reset()
    other.add(ROWS[100:150])
    index.merge_from(other, 100)
    assert (index.ntotal, other.ntotal) == (150, 0)
    index.nprobe = NLIST
    np.testing.assert_array_equal(index.search(ROWS[:150], 1)[0], 0)
    assert set(index.search(ROWS[100:150], 1)[1].ravel().tolist()) <= set(range(150))


@pytest.mark.parametrize("how", ["clone_index", "deepcopy", "pickle"])
def test_copies_share_nothing(faiss: ModuleType, how: str) -> None:
    index = trained(faiss)
    index.add(ROWS[:200])
    index.nprobe = NLIST
    copied = {
        "clone_index": lambda: faiss.clone_index(index),
        "deepcopy": lambda: copy.deepcopy(index),
        "pickle": lambda: pickle.loads(pickle.dumps(index)),
    }[how]()
    index.reset()
    assert (copied.ntotal, copied.nprobe, copied.nlist) == (200, NLIST, NLIST)
    assert copied.search(ROWS[9:10], 1)[0].tolist() == [[0]]


def test_our_copies_keep_their_leaves(optimized: ours.IndexIVFFlat) -> None:
    copied = pickle.loads(pickle.dumps(optimized))
    assert copied.leaves == optimized.leaves > 0
    np.testing.assert_array_equal(copied.search(QUERIES, 5)[1], optimized.search(QUERIES, 5)[1])


def test_removing_keeps_our_leaves_and_frees_memory(optimized: ours.IndexIVFFlat) -> None:
    index = copy.deepcopy(optimized)
    stored = index.exact.nbytes
    index.remove_ids(ours.IDSelectorRange(0, 2000))
    assert index.exact.nbytes == pytest.approx(stored, rel=0.01)
    index.remove_ids(ours.IDSelectorRange(2000, 4000))
    assert index.exact.nbytes < 0.5 * stored
    assert index.exact.stats()["optimized_rows"] > 900
    index.nprobe = NLIST
    np.testing.assert_array_equal(
        index.search(QUERIES, 3)[0], np.sort(scores("L2")[:, 4000:], axis=1)[:, :3]
    )
    np.testing.assert_array_equal(index.reconstruct(4999), ROWS[4999])


def test_our_errors_say_what_came() -> None:
    index = empty(ours)
    with pytest.raises(RuntimeError, match="not trained; call train first"):
        index.add(ROWS)
    with pytest.raises(RuntimeError, match="at least nlist, 16, got 3"):
        index.train(ROWS[:3])
    with pytest.raises(RuntimeError, match="nprobe must be at least 1, got 0"):
        trained(ours).search(QUERIES, 1, params=ours.SearchParametersIVF(nprobe=0))
    with pytest.raises(TypeError, match=r"quantizer must be an index of this module, got Index\("):
        ours.IndexIVFFlat(fr.Index(3), 3, 4)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="quantizer must have dimension 3, got 2"):
        ours.IndexIVFFlat(ours.IndexFlatL2(2), 3, 4)
    with pytest.raises(RuntimeError, match="nlist must be at least 1"):
        ours.IndexIVFFlat(ours.IndexFlatL2(2), 2, 0)
    with pytest.raises(TypeError, match="an IndexIVFFlat has add_with_ids itself"):
        ours.IndexIDMap(index)
    with pytest.raises(RuntimeError, match=r"metric and nlist must be .* got"):
        index.merge_from(empty(ours, nlist=3))
    with pytest.raises(RuntimeError, match="wants another IndexIVFFlat"):
        index.merge_from(index)
    with pytest.raises(TypeError, match="no centres that FAISS's file could hold; pickle it"):
        ours.serialize_index(index)


# --- FAISS's files --------------------------------------------------------------------------------


def theirs(n: int, *, nlist: int = 4, kind: int = 0, own_ids: bool = False) -> Any:
    faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    index = empty(faiss, dim=2, nlist=nlist)
    index.train(ROWS[:200, :2])
    if n:
        ids = np.arange(n)[::-1] * 3 if own_ids else np.arange(n)
        index.add_with_ids(ROWS[:n, :2], ids)
    index.set_direct_map_type(kind)
    index.nprobe = nlist
    return index


@pytest.mark.parametrize(
    ("kind", "own_ids"),
    [("NoMap", False), ("NoMap", True), ("Array", False), ("Hashtable", True)],
)
@pytest.mark.parametrize(("n", "nlist"), [(0, 4), (1, 40), (90, 4)])
def test_faiss_lists_are_read(n: int, nlist: int, kind: str, own_ids: bool, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    index = theirs(n, nlist=nlist, kind=getattr(faiss.DirectMap, kind), own_ids=own_ids)
    faiss.write_index(index, str(tmp_path / "a"))
    read = ours.read_index(tmp_path / "a")
    assert isinstance(read, ours.IndexIVFFlat)
    assert (read.d, read.ntotal, read.nlist, read.nprobe) == (2, n, nlist, nlist)
    assert read.is_trained
    np.testing.assert_array_equal(read.quantizer.reconstruct_n(), index.quantizer.reconstruct_n())
    asked = ROWS[:9, :2]
    np.testing.assert_array_equal(read.search(asked, 3)[0], index.search(asked, 3)[0])
    keys, rows = (np.arange(n) * 3, ROWS[:n][::-1]) if own_ids else (np.arange(n), ROWS[:n])
    np.testing.assert_array_equal(read.reconstruct_batch(keys), rows[:, :2])
    np.testing.assert_array_equal(read.exact.get(np.arange(n)), rows[:, :2])  # by their ids


def test_an_untrained_file_is_read() -> None:
    faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    read = ours.deserialize_index(faiss.serialize_index(empty(faiss, "IP", nlist=40)))
    assert (read.is_trained, read.metric_type) == (False, faiss.METRIC_INNER_PRODUCT)


@pytest.mark.parametrize(("n", "nlist", "kind"), [(3, 2, 1), (1, 9, 2)])
def test_every_byte_of_lists_may_be_wrong(n: int, nlist: int, kind: int) -> None:
    faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    data = faiss.serialize_index(theirs(n, nlist=nlist, kind=kind))
    refused = 0
    for at in range(len(data)):
        with pytest.raises(RuntimeError, match="at byte "):
            ours.deserialize_index(data[:at])
        for bits in (0xFF, 0x80, 0x01):
            damaged = data.copy()
            damaged[at] ^= bits
            try:
                ours.deserialize_index(damaged)
            except RuntimeError as error:
                refused += str(error).startswith("at byte ")
            except ValueError as error:  # a number of a vector, which is not finite
                assert "finite" in str(error)  # noqa: PT017
    assert refused > 200
    with pytest.raises(RuntimeError, match="found 1 more bytes"):
        ours.deserialize_index(np.append(data, np.uint8(0)))


def test_lists_may_have_another_metric_than_their_centres() -> None:
    faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(2), 2, 4, faiss.METRIC_INNER_PRODUCT)
    index.train(ROWS[:200, :2])
    index.add(ROWS[:90, :2])
    index.nprobe = 4
    read = ours.deserialize_index(faiss.serialize_index(index))
    assert (read.metric_type, read.quantizer.metric_type) == (0, 1)
    asked = QUERIES[:, :2]
    np.testing.assert_array_equal(read.search(asked, 3)[0], index.search(asked, 3)[0])


def test_sizes_of_lists_are_checked_before_memory_is_taken() -> None:
    faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    data = faiss.serialize_index(theirs(3, nlist=2))
    sizes = data.tobytes().index(b"full") + 12
    data[8:16] = np.array([2**50], "<u8").view(np.uint8)
    data[sizes : sizes + 16] = np.array([2**50, 0], "<u8").view(np.uint8)
    with pytest.raises(RuntimeError, match="expected 1125899906842624 vectors and ids, found the"):
        ours.deserialize_index(data)
