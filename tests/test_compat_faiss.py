"""FAISS's documented behaviour of flat indexes: the same assertions against faiss-cpu and us.

Numbers are small integers, so that float32 sums are exact in any order and scores can be compared
for equality.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
from fastretrieve.compat import faiss as ours

LARGEST = np.finfo(np.float32).max


@pytest.fixture(params=["faiss", "fastretrieve.compat.faiss"])
def faiss(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "faiss":
        pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    return importlib.import_module(request.param)


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


def test_remove_by_selectors(faiss: ModuleType, rows: np.ndarray) -> None:
    index = filled(faiss, rows)
    assert index.remove_ids(faiss.IDSelectorRange(10, 20)) == 10
    assert index.remove_ids(faiss.IDSelectorBatch(np.array([0, 1, 290]))) == 2
    kept = np.delete(rows, [*range(10, 20), 0, 1], axis=0)
    np.testing.assert_array_equal(index.reconstruct_n(0, index.ntotal), kept)


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
    mapped = ours.IndexIDMap(ours.IndexFlatL2(1))
    mapped.add_with_ids([[1.0]], [3])
    with pytest.raises(ValueError, match="in the index already"):
        mapped.add_with_ids([[1.0]], [3])
