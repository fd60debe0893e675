"""FAISS's documented behaviour of flat indexes: the same assertions against faiss-cpu and us.

Numbers are small integers, so that float32 sums are exact in any order and scores can be compared
for equality.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
from fastretrieve.compat import faiss as ours

LARGEST = np.finfo(np.float32).max


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(51).integers(-50, 50, (300, 12)).astype(np.float32)


@pytest.fixture
def queries() -> np.ndarray:
    return np.random.default_rng(52).integers(-50, 50, (7, 12)).astype(np.float32)


def scores(queries: np.ndarray, rows: np.ndarray, metric: str) -> np.ndarray:
    if metric == "IP":
        return queries @ rows.T
    return ((queries[:, None] - rows[None]) ** 2).sum(axis=2)


def best(exact: np.ndarray, k: int, metric: str) -> np.ndarray:
    return np.sort(exact if metric == "L2" else -exact, axis=1)[:, :k] * (
        1 if metric == "L2" else -1
    )


def filled(faiss: ModuleType, rows: np.ndarray, metric: str = "L2") -> Any:
    index = getattr(faiss, f"IndexFlat{metric}")(rows.shape[1])
    index.add(rows)
    return index


@pytest.mark.parametrize("metric", ["L2", "IP"])
def test_search(faiss: ModuleType, rows: np.ndarray, queries: np.ndarray, metric: str) -> None:
    index = filled(faiss, rows, metric)
    exact = scores(queries, rows, metric)
    D, I = index.search(queries, 10)  # noqa: E741
    assert D.shape == I.shape == (7, 10)
    assert D.dtype == np.float32
    assert I.dtype == np.int64
    np.testing.assert_array_equal(D, best(exact, 10, metric))
    np.testing.assert_array_equal(np.take_along_axis(exact, I, axis=1), D)
    np.testing.assert_array_equal(index.assign(queries, 1).reshape(-1), I[:, 0])


def test_what_an_index_says_of_itself(faiss: ModuleType, rows: np.ndarray) -> None:
    index = filled(faiss, rows)
    assert (index.d, index.ntotal, index.is_trained) == (12, 300, True)
    assert index.metric_type == faiss.METRIC_L2
    assert faiss.IndexFlatIP(3).metric_type == faiss.METRIC_INNER_PRODUCT
    assert (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2) == (0, 1)
    assert faiss.IndexFlat(3).metric_type == faiss.METRIC_L2
    assert faiss.IndexFlat(3, faiss.METRIC_INNER_PRODUCT).metric_type == faiss.METRIC_INNER_PRODUCT
    index.train(rows)
    assert index.ntotal == 300


@pytest.mark.parametrize(("metric", "worst"), [("L2", LARGEST), ("IP", -LARGEST)])
def test_padding(faiss: ModuleType, rows: np.ndarray, metric: str, worst: float) -> None:
    D, I = filled(faiss, rows[:2], metric).search(rows[:1], 5)  # noqa: E741
    assert sorted(I[0, :2]) == [0, 1]
    assert I[0, 2:].tolist() == [-1, -1, -1]
    assert D[0, 2:].tolist() == [worst] * 3
    D, I = filled(faiss, rows[:0], metric).search(rows[:2], 3)  # noqa: E741
    assert (I == -1).all()
    assert (worst == D).all()


def test_no_queries(faiss: ModuleType, rows: np.ndarray) -> None:
    D, I = filled(faiss, rows).search(rows[:0], 4)  # noqa: E741
    assert D.shape == I.shape == (0, 4)


def test_results_go_to_given_arrays(faiss: ModuleType, rows: np.ndarray) -> None:
    D, I = np.empty((3, 2), np.float32), np.empty((3, 2), np.int64)  # noqa: E741
    filled(faiss, rows).search(rows[:3], 2, D=D, I=I)
    assert I[:, 0].tolist() == [0, 1, 2]
    assert D[:, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("metric", ["L2", "IP"])
def test_range_search_leaves_the_radius_itself_out(
    faiss: ModuleType, rows: np.ndarray, queries: np.ndarray, metric: str
) -> None:
    exact = scores(queries, rows, metric)
    radius = float(np.sort(exact.ravel())[exact.size // 10 * (1 if metric == "L2" else 9)])
    assert (exact == radius).any()
    lims, D, I = filled(faiss, rows, metric).range_search(queries, radius)  # noqa: E741
    assert lims.shape == (8,)
    assert lims.dtype == np.uint64
    assert D.dtype == np.float32
    assert I.dtype == np.int64
    for i, of_query in enumerate(exact):
        inside = np.flatnonzero(of_query < radius if metric == "L2" else of_query > radius)
        found = slice(int(lims[i]), int(lims[i + 1]))
        order = np.argsort(I[found])
        np.testing.assert_array_equal(I[found][order], inside)
        np.testing.assert_array_equal(D[found][order], of_query[inside])


def test_remove_shifts_the_numbers(faiss: ModuleType, rows: np.ndarray) -> None:
    index = filled(faiss, rows)
    assert index.remove_ids(np.array([0, 5, 200, 12345])) == 3
    kept = np.delete(rows, [0, 5, 200], axis=0)
    assert index.ntotal == 297
    np.testing.assert_array_equal(index.search(kept, 1)[1][:, 0], np.arange(297))
    np.testing.assert_array_equal(index.reconstruct_n(0, 297), kept)
    index.add(rows[:1])
    assert index.search(rows[:1], 1)[1].tolist() == [[297]]
    assert index.remove_ids(np.array([297])) == 1
    np.testing.assert_array_equal(index.reconstruct(296), kept[296])


def test_reconstruct(faiss: ModuleType, rows: np.ndarray) -> None:
    index = filled(faiss, rows)
    np.testing.assert_array_equal(index.reconstruct(7), rows[7])
    np.testing.assert_array_equal(index.reconstruct_n(3, 4), rows[3:7])
    np.testing.assert_array_equal(index.reconstruct_n(), rows)
    np.testing.assert_array_equal(index.reconstruct_batch(np.array([9, 2])), rows[[9, 2]])
    _, I, R = index.search_and_reconstruct(rows[:4], 2)  # noqa: E741
    np.testing.assert_array_equal(R, rows[I])
    for call in (
        lambda: index.reconstruct(300),
        lambda: index.reconstruct_n(299, 2),
        lambda: index.reconstruct_batch(np.array([0, 300])),
    ):
        with pytest.raises(RuntimeError):
            call()


def test_reset(faiss: ModuleType, rows: np.ndarray) -> None:
    index = filled(faiss, rows)
    index.reset()
    assert index.ntotal == 0
    index.add(rows[5:9])
    assert index.search(rows[6:7], 1)[1].tolist() == [[1]]


def test_wrong_calls(faiss: ModuleType, rows: np.ndarray) -> None:
    index = filled(faiss, rows)
    with pytest.raises(AssertionError):
        index.search(rows[:, :3], 1)
    with pytest.raises(AssertionError):
        index.add(rows[:, :3])
    with pytest.raises(AssertionError):
        index.search(rows, 0)
    with pytest.raises(RuntimeError):
        index.add_with_ids(rows, np.arange(300))


@pytest.mark.parametrize("kind", ["IndexIDMap", "IndexIDMap2"])
def test_own_ids(faiss: ModuleType, rows: np.ndarray, kind: str) -> None:
    flat = faiss.IndexFlatL2(12)
    index = getattr(faiss, kind)(flat)
    ids = np.random.default_rng(6).permutation(1000)[:300]
    index.add_with_ids(rows[:200], ids[:200])
    index.add_with_ids(rows[200:], ids[200:])
    np.testing.assert_array_equal(index.search(rows, 1)[1][:, 0], ids)
    np.testing.assert_array_equal(faiss.vector_to_array(index.id_map), ids)
    assert index.remove_ids(ids[[3, 250]]) == 2
    kept = np.delete(np.arange(300), [3, 250])
    np.testing.assert_array_equal(index.search(rows[kept], 1)[1][:, 0], ids[kept])
    lims, _, found = index.range_search(rows[kept[:5]], 1.0)
    assert lims.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(found, ids[kept[:5]])
    with pytest.raises(RuntimeError):
        index.add(rows)
    if kind == "IndexIDMap2":
        np.testing.assert_array_equal(index.reconstruct(int(ids[7])), rows[7])
        with pytest.raises(RuntimeError):
            index.reconstruct(int(ids[3]))
    index.reset()
    assert index.ntotal == flat.ntotal == 0


def test_id_map_wants_an_empty_index(faiss: ModuleType, rows: np.ndarray) -> None:
    with pytest.raises(RuntimeError):
        faiss.IndexIDMap(filled(faiss, rows))


def test_factory(faiss: ModuleType, rows: np.ndarray) -> None:
    index = faiss.index_factory(12, "Flat", faiss.METRIC_INNER_PRODUCT)
    index.add(rows)
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    mapped = faiss.index_factory(12, "IDMap,Flat")
    mapped.add_with_ids(rows[:1], np.array([77]))
    assert mapped.search(rows[:1], 1)[1].tolist() == [[77]]
    with pytest.raises(RuntimeError):
        faiss.index_factory(12, "Nonsense")


def test_functions(faiss: ModuleType, rows: np.ndarray, queries: np.ndarray) -> None:
    for metric, name in [(faiss.METRIC_L2, "L2"), (faiss.METRIC_INNER_PRODUCT, "IP")]:
        exact = scores(queries, rows, name)
        D, I = faiss.knn(queries, rows, 4, metric=metric)  # noqa: E741
        np.testing.assert_array_equal(D, best(exact, 4, name))
        np.testing.assert_array_equal(np.take_along_axis(exact, I, axis=1), D)
        np.testing.assert_array_equal(faiss.pairwise_distances(queries, rows, metric=metric), exact)
    x = np.concatenate([rows, np.zeros((1, 12), np.float32)])
    faiss.normalize_L2(x)
    norms = np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(norms[:-1], 1, rtol=1e-6)
    assert norms[-1] == 0


def test_threads(faiss: ModuleType) -> None:
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(1)
        assert faiss.omp_get_max_threads() == 1
    finally:
        faiss.omp_set_num_threads(before)


def test_results_of_every_call_go_to_given_arrays(faiss: ModuleType, rows: np.ndarray) -> None:
    index = filled(faiss, rows)
    one, some = np.empty(12, np.float32), np.empty((2, 12), np.float32)
    assert index.reconstruct(4, one) is one
    np.testing.assert_array_equal(one, rows[4])
    assert index.reconstruct_n(4, 2, some) is some
    np.testing.assert_array_equal(some, rows[4:6])
    assert index.reconstruct_batch(np.array([8, 1]), x=some) is some
    np.testing.assert_array_equal(some, rows[[8, 1]])
    labels = np.empty((2, 1), np.int64)
    index.assign(rows[:2], 1, labels=labels)
    assert labels.tolist() == [[0], [1]]
    D, I = np.empty((2, 1), np.float32), np.empty((2, 1), np.int64)  # noqa: E741
    R = np.empty((2, 1, 12), np.float32)
    index.search_and_reconstruct(rows[:2], 1, D=D, I=I, R=R)
    assert (D.ravel().tolist(), I.ravel().tolist()) == ([0, 0], [0, 1])
    np.testing.assert_array_equal(R[:, 0], rows[:2])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64])
def test_arrays_of_any_kind(
    faiss: ModuleType, rows: np.ndarray, queries: np.ndarray, dtype: type, order: Any
) -> None:
    index = faiss.IndexFlatL2(6)
    index.add(rows.astype(dtype, order=order)[:, ::2])
    D, _ = index.search(queries.astype(dtype, order=order)[:, ::2], 3)
    np.testing.assert_array_equal(D, best(scores(queries[:, ::2], rows[:, ::2], "L2"), 3, "L2"))


ALIVE: list[Any] = []


def held(*selectors: Any) -> tuple[Any, ...]:
    """FAISS's selectors do not keep those that they are made of."""
    ALIVE.extend(selectors)
    return selectors


SELECTORS: dict[str, tuple[Callable[[ModuleType], Any], Callable[[np.ndarray], np.ndarray]]] = {
    "all": (lambda f: f.IDSelectorAll(), lambda ids: ids >= 0),
    "range": (lambda f: f.IDSelectorRange(10, 40), lambda ids: (ids >= 10) & (ids < 40)),
    "two of a range": (lambda f: f.IDSelectorRange(10, 12), lambda ids: (ids == 10) | (ids == 11)),
    "none of a range": (lambda f: f.IDSelectorRange(10, 10), lambda ids: ids < 0),
    "batch": (
        lambda f: f.IDSelectorBatch(np.array([3, 250, 7, 3, 12345])),
        lambda ids: np.isin(ids, [3, 250, 7]),
    ),
    "array": (lambda f: f.IDSelectorArray(np.array([3, 250])), lambda ids: np.isin(ids, [3, 250])),
    "bitmap": (
        lambda f: f.IDSelectorBitmap(np.packbits(np.arange(203) % 7 == 0, bitorder="little")),
        lambda ids: (ids % 7 == 0) & (ids < 203),
    ),
    "not": (
        lambda f: f.IDSelectorNot(*held(f.IDSelectorRange(10, 290))),
        lambda ids: (ids < 10) | (ids >= 290),
    ),
    "and": (
        lambda f: f.IDSelectorAnd(*held(f.IDSelectorRange(10, 40), f.IDSelectorRange(30, 60))),
        lambda ids: (ids >= 30) & (ids < 40),
    ),
    "or": (
        lambda f: f.IDSelectorOr(*held(f.IDSelectorRange(0, 4), f.IDSelectorBatch(np.array([77])))),
        lambda ids: (ids < 4) | (ids == 77),
    ),
    "xor": (
        lambda f: f.IDSelectorXOr(*held(f.IDSelectorRange(10, 40), f.IDSelectorRange(30, 60))),
        lambda ids: ((ids >= 10) & (ids < 30)) | ((ids >= 40) & (ids < 60)),
    ),
}


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("metric", ["L2", "IP"])
def test_searches_among_selected_vectors(
    faiss: ModuleType, rows: np.ndarray, queries: np.ndarray, metric: str, name: str
) -> None:
    make, among = SELECTORS[name]
    index, selector = filled(faiss, rows, metric), make(faiss)
    members = [i for i in range(300) if selector.is_member(i)]
    assert members == np.flatnonzero(among(np.arange(300))).tolist()
    exact = scores(queries, rows, metric)[:, members]
    params = faiss.SearchParameters(sel=selector)
    D, I = index.search(queries, 5, params=params)  # noqa: E741
    n = min(5, len(members))
    np.testing.assert_array_equal(D[:, :n], best(exact, n, metric))
    assert set(I[:, :n].ravel().tolist()) <= set(members)
    assert (I[:, n:] == -1).all()
    assert (D[:, n:] == (LARGEST if metric == "L2" else -LARGEST)).all()
    radius = float(np.median(exact)) if members else 1.0
    lims, _, found = index.range_search(queries, radius, params=params)
    inside = exact < radius if metric == "L2" else exact > radius
    np.testing.assert_array_equal(np.diff(lims.astype(np.int64)), inside.sum(axis=1))
    assert set(found.tolist()) <= set(members)
    np.testing.assert_array_equal(index.search(queries, 5, params=None)[1].shape, (7, 5))


@pytest.mark.parametrize("name", SELECTORS)
def test_removes_selected_vectors(faiss: ModuleType, rows: np.ndarray, name: str) -> None:
    make, among = SELECTORS[name]
    index, gone = filled(faiss, rows), among(np.arange(300))
    assert index.remove_ids(make(faiss)) == gone.sum()
    assert index.ntotal == (~gone).sum()
    np.testing.assert_array_equal(index.reconstruct_n(), rows[~gone])


def test_removing_what_is_not_there(faiss: ModuleType, rows: np.ndarray) -> None:
    index = filled(faiss, rows)
    assert index.remove_ids(np.array([-1, 2, 2, 300])) == 1
    assert index.remove_ids(np.zeros(0, np.int64)) == 0
    assert index.ntotal == 299


def test_an_id_map_is_searched_among_its_own_ids(
    faiss: ModuleType, rows: np.ndarray, queries: np.ndarray
) -> None:
    index = faiss.IndexIDMap2(faiss.IndexFlatL2(12))
    ids = np.random.default_rng(7).permutation(300) + 5000
    index.add_with_ids(rows, ids)
    chosen = (ids >= 5000) & (ids < 5020)
    params = faiss.SearchParameters(sel=faiss.IDSelectorRange(5000, 5020))
    D, I = index.search(queries, 4, params=params)  # noqa: E741
    np.testing.assert_array_equal(D, best(scores(queries, rows[chosen], "L2"), 4, "L2"))
    np.testing.assert_array_equal(index.reconstruct_batch(I[0]), rows[np.argsort(ids)][I[0] - 5000])


def test_ids_may_be_negative_and_shared(faiss: ModuleType, rows: np.ndarray) -> None:
    index = faiss.IndexIDMap2(faiss.IndexFlatL2(12))
    index.add_with_ids(rows[:3], np.array([-7, 9, 9], np.int32))
    assert index.search(rows[:3], 1)[1].tolist() == [[-7], [9], [9]]
    np.testing.assert_array_equal(index.reconstruct(9), rows[2])  # the last one
    assert index.remove_ids(np.array([9])) == 2
    assert index.ntotal == 1
    assert faiss.vector_to_array(index.id_map).tolist() == [-7]


def test_the_index_in_an_id_map_numbers_its_vectors(faiss: ModuleType, rows: np.ndarray) -> None:
    flat = faiss.IndexFlatL2(12)
    index = faiss.IndexIDMap(flat)
    index.add_with_ids(rows[:50], np.arange(50)[::-1] * 3)
    assert flat.search(rows[:3], 1)[1].tolist() == [[0], [1], [2]]
    index.add_with_ids(rows[50:60], np.arange(10))
    assert flat.ntotal == 60
    np.testing.assert_array_equal(flat.reconstruct(55), rows[55])
    with pytest.raises(AssertionError):
        index.add_with_ids(rows[:2], np.array([1]))
    assert index.ntotal == 60


def test_merging(faiss: ModuleType, rows: np.ndarray) -> None:
    index, other = filled(faiss, rows[:100]), filled(faiss, rows[100:])
    index.merge_from(other)
    assert (index.ntotal, other.ntotal) == (300, 0)
    np.testing.assert_array_equal(index.reconstruct_n(), rows)
    with pytest.raises(RuntimeError):
        index.merge_from(filled(faiss, rows[:1]), 5)
    mapped, more = (faiss.IndexIDMap(faiss.IndexFlatL2(12)) for _ in range(2))
    mapped.add_with_ids(rows[:5], np.arange(5))
    more.add_with_ids(rows[5:9], np.arange(4))
    mapped.merge_from(more, 100)
    assert (mapped.ntotal, more.ntotal) == (9, 0)
    assert mapped.search(rows[5:9], 1)[1].ravel().tolist() == [100, 101, 102, 103]


@pytest.mark.parametrize("how", ["clone_index", "deepcopy", "pickle"])
def test_copies_share_nothing(faiss: ModuleType, rows: np.ndarray, how: str) -> None:
    index = filled(faiss, rows)
    copied = {
        "clone_index": lambda: faiss.clone_index(index),
        "deepcopy": lambda: copy.deepcopy(index),
        "pickle": lambda: pickle.loads(pickle.dumps(index)),
    }[how]()
    index.reset()
    assert copied.ntotal == 300
    assert copied.search(rows[9:10], 1)[1].tolist() == [[9]]


def test_ours_is_exact_and_ties_go_to_the_smaller_id() -> None:
    index = ours.IndexFlatL2(3)
    index.add(np.ones((200, 3), np.float32))
    index.remove_ids(np.array([0, 1]))
    D, I = index.search(np.ones((1, 3), np.float32), 4)  # noqa: E741
    assert I.tolist() == [[0, 1, 2, 3]]
    assert D.tolist() == [[0, 0, 0, 0]]
    assert isinstance(index.exact, fr.Index)


def test_our_errors_say_what_came() -> None:
    index = ours.IndexFlatL2(3)
    with pytest.raises(AssertionError, match=r"shape \(n, 3\), got \(2, 2\)"):
        index.add(np.eye(2))
    with pytest.raises(RuntimeError, match=r"key 5 is not in \[0, 0\)"):
        index.reconstruct(5)
    with pytest.raises(RuntimeError, match="metric must be METRIC_L2"):
        ours.IndexFlat(3, 9)
    with pytest.raises(TypeError, match="wants one of the flat indexes"):
        ours.IndexIDMap(fr.Index(3))  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="D must be float32"):
        index.search(np.eye(3), 1, D=np.empty((3, 1)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ids must be integers, got dtype float64"):
        ours.IndexIDMap(index).add_with_ids(np.eye(3), np.ones(3))
    with pytest.raises(TypeError, match="ids must be integers, got dtype float64"):
        index.remove_ids(np.ones(3))
    with pytest.raises(TypeError, match=r"np.packbits\(mask"):
        ours.IDSelectorBitmap(np.ones(3))
    with pytest.raises(TypeError, match=r"fname must be .* got IndexFlatL2\(d=3, ntotal=0\)"):
        ours.write_index("a.index", index)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sel must be an IDSelector of this module"):
        ours.SearchParameters(sel=[1, 2])  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="dimension and metric must be"):
        index.merge_from(ours.IndexFlatL2(4))
    with pytest.raises(RuntimeError, match="wants another flat index"):
        index.merge_from(index)


ABSENT = {
    "IndexHNSWFlat": "IndexFlatL2 or IndexFlatIP takes its place, .* or IndexIVFFlat where speed",
    "StandardGpuResources": r"Index\(dim, device='cuda'\)",
    "Kmeans": r"fastretrieve.kmeans\(x, k\)",
    "METRIC_L1": "docs/adapters.md",
}


@pytest.mark.parametrize("name", ABSENT)
def test_what_is_not_there_is_named_with_what_is(name: str) -> None:
    assert not hasattr(ours, name)
    with pytest.raises(AttributeError, match=f"has no '{name}'; .*{ABSENT[name]}"):
        getattr(ours, name)
