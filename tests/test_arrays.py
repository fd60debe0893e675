"""Every kind of array that may come in: read as it is, converted by the stated rule, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import cases
import fastretrieve as fr
import oracle
from fastretrieve._common.arrays import as_rows

QUERIES, ROWS = cases.gaussian(150, 12, seed=50)


def expected(metric: Any = "cosine", rows: np.ndarray = ROWS) -> oracle.Best:
    return oracle.topk(QUERIES, rows, 5, metric)


def in_every_other_column(x: np.ndarray) -> np.ndarray:
    wide = np.full((len(x), 2 * x.shape[1]), np.nan, x.dtype)
    wide[:, ::2] = x
    return wide[:, ::2]


def with_a_margin(x: np.ndarray) -> np.ndarray:
    wide = np.full((len(x) + 2, x.shape[1] + 7), np.nan, x.dtype)
    wide[1:-1, 3:-4] = x
    return wide[1:-1, 3:-4]


def unaligned(x: np.ndarray) -> np.ndarray:
    raw = np.zeros(x.nbytes + 1, np.uint8)
    raw[1:] = x.reshape(-1).view(np.uint8)
    return raw[1:].view(x.dtype).reshape(x.shape)


def packed_in_records(x: np.ndarray) -> np.ndarray:
    records = np.zeros(len(x), dtype=[("tag", np.uint8), ("vector", x.dtype, x.shape[1])])
    records["vector"] = x
    return records["vector"]


def read_only(x: np.ndarray) -> np.ndarray:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


class OnlyDLPack:
    """An array of a library that we have never heard of."""

    def __init__(self, x: np.ndarray) -> None:
        self._x = x

    def __dlpack__(self, **options: Any) -> Any:
        return self._x.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._x.__dlpack_device__()


class OnlyArray:
    def __init__(self, x: np.ndarray) -> None:
        self._x = x

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self._x


LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "as it is": lambda x: x,
    "a list": lambda x: x.tolist(),
    "a list of arrays": list,
    "float64": lambda x: x.astype(np.float64),
    "long double": lambda x: x.astype(np.longdouble),
    "the other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "columns first": np.asfortranarray,
    "every other column": in_every_other_column,
    "a window in a larger array": with_a_margin,
    "rows from the end": lambda x: x[::-1].copy()[::-1],
    "columns from the end": lambda x: x[:, ::-1].copy()[:, ::-1],
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "unaligned": unaligned,
    "packed in records": packed_in_records,
    "read-only": read_only,
    "only __array__": OnlyArray,
    "only DLPack": OnlyDLPack,
    "a tensor": lambda x: torch.from_numpy(x.copy()),
    "a tensor with a gradient": lambda x: torch.from_numpy(x.copy()).requires_grad_(),
    "a transposed tensor": lambda x: torch.from_numpy(x.T.copy()).T,
    "a parameter": lambda x: torch.nn.Parameter(torch.from_numpy(x.copy())),
    "a subclass": lambda x: x.view(Subclass),
}


class Subclass(np.ndarray):
    pass


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_rows_and_queries(name: str) -> None:
    make = LAYOUTS[name]
    index = fr.Index(12)
    index.add(make(ROWS))
    np.testing.assert_array_equal(index.get(index.ids), ROWS)
    found = index.search(make(QUERIES), 5, score_dtype="float64")
    oracle.assert_same(fr.Hits(*(np.asarray(part) for part in found)), expected())
    normal = np.asarray(fr.normalize(make(ROWS)))
    np.testing.assert_array_equal(normal, oracle.normalize(ROWS))


def test_queries_are_not_copied() -> None:
    for x in (QUERIES, with_a_margin(QUERIES), QUERIES[::-1], QUERIES.astype(np.float16)):
        assert np.shares_memory(as_rows(x, name="queries"), x)
    tensor = torch.from_numpy(QUERIES).bfloat16()
    assert as_rows(tensor, name="queries").ctypes.data == tensor.data_ptr()


def test_broadcast_rows() -> None:
    one = ROWS[:1]
    index = fr.Index(12, metric="ip")
    index.add(np.broadcast_to(one, (200, 12)))
    index.add(torch.from_numpy(one).expand(70, 12))
    queries = np.broadcast_to(QUERIES[:1], (9, 12))
    rows = np.repeat(one, 270, axis=0)
    oracle.assert_same(
        index.search(queries, 4, score_dtype="float64"), oracle.topk(queries, rows, 4, "ip")
    )


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_float64_is_rounded_to_float32_first(metric: Any) -> None:
    rows = np.random.default_rng(51).standard_normal((100, 12))
    index = fr.Index(12, metric=metric)
    index.add(rows)
    found = index.search(QUERIES.astype(np.float64), 5, score_dtype="float64")
    oracle.assert_same(found, expected(metric, rows.astype(np.float32)))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_integers(dtype: Any) -> None:
    rows = np.random.default_rng(52).integers(0, 100, (100, 12)).astype(dtype)
    index = fr.Index(12, metric="l2")
    index.add(rows)
    np.testing.assert_array_equal(index.get(index.ids), rows)
    oracle.assert_same(
        index.search(QUERIES, 5, score_dtype="float64"), expected("l2", rows.astype(np.float32))
    )


def test_integers_that_float32_cannot_hold_are_refused_by_position() -> None:
    index = fr.Index(2)
    index.add([[2**24, -(2**24)]])
    for value in (2**24 + 1, -(2**24) - 1, 2**63 - 1):
        with pytest.raises(
            ValueError, match=rf"vectors must be integers .*, got {value} at \(1, 0\)"
        ):
            index.add([[1, 2], [value, 3]])
    with pytest.raises(ValueError, match=r"got 4294967295 at \(0, 1\)"):
        index.add(np.array([[1, 2**32 - 1]], np.uint32))
    assert len(index) == 1


REFUSED = {
    "bool": (np.ones((1, 2), bool), "got dtype bool"),
    "complex": (np.ones((1, 2), complex), "got dtype complex128"),
    "object": (np.array([[None, 1]]), "got dtype object"),
    "text": ([["a", "b"]], "got dtype <U1"),
    "dates": (np.zeros((1, 2), "M8[s]"), "got dtype datetime64"),
    "a boolean tensor": (torch.ones(1, 2).bool(), "got dtype bool"),
    "a complex tensor": (torch.ones(1, 2, dtype=torch.complex64).conj(), "got dtype complex64"),
    "a sparse tensor": (torch.eye(2).to_sparse(), "must be a dense tensor, got layout torch.spars"),
    "a tensor of 8 bits": (torch.ones(1, 2).to(torch.float8_e4m3fn), "got dtype torch.float8_e4m3"),
    "nothing": (None, "must be an array of numbers, got NoneType"),
    "a word": ("word", "must be an array of numbers, got str"),
    "a generator": ((i for i in range(2)), "must be an array of numbers, got generator"),
    "masked": (np.ma.array([[1.0, 2.0]], mask=[[0, 1]]), "must not be masked"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_types_are_refused(name: str) -> None:
    value, message = REFUSED[name]
    index = fr.Index(2)
    with pytest.raises(TypeError, match="vectors must .*" + message.removeprefix("must ")):
        index.add(value)
    with pytest.raises(TypeError, match="queries must .*" + message.removeprefix("must ")):
        index.search(value)
    assert len(index) == 0


class OnAnotherDevice:
    """An array whose bytes NumPy cannot reach."""

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("unsupported device")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


def test_an_array_that_numpy_cannot_read_is_refused() -> None:
    with pytest.raises(TypeError, match=r"queries cannot be read .* unsupported device; convert"):
        fr.Index(2).search(OnAnotherDevice())


def test_a_tensor_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match=r"queries are on meta but this works on the CPU"):
        fr.Index(2).search(torch.ones(1, 2, device="meta"))


SHAPES: dict[str, tuple[Any, str]] = {
    "a number": (1.0, r"one or two dimensions, got shape \(\)"),
    "three dimensions": (np.zeros((2, 2, 2)), r"one or two dimensions, got shape \(2, 2, 2\)"),
    "ragged": ([[1.0, 2], [3]], "must be rows of equal length"),
    "another dimension": (np.zeros((4, 3)), "have dimension 3 but the index has dimension 2"),
    "no columns": (np.zeros((4, 0)), "have dimension 0 but the index has dimension 2"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_do_not_fit(name: str) -> None:
    value, message = SHAPES[name]
    with pytest.raises(ValueError, match="vectors (must have )?" + message):
        fr.Index(2).add(value)
    with pytest.raises(ValueError, match="queries (must have )?" + message):
        fr.Index(2).search(value)


# --- what comes back -----------------------------------------------------------------------------


def test_one_vector_in_one_row_of_results_out() -> None:
    index = fr.Index(12)
    assert index.add(ROWS[0]).shape == (1,)
    index.add(ROWS[1:])
    want = expected()
    for one in (QUERIES[0], QUERIES[0].tolist(), torch.from_numpy(QUERIES[0])):
        found = index.search(one, 5)
        assert tuple(found.scores.shape) == tuple(found.ids.shape) == (5,)
        assert np.asarray(found.ids).tolist() == want.ids[0].tolist()
    assert fr.normalize([3.0, 4.0]).shape == (2,)


def test_the_same_kind_of_array_comes_back() -> None:
    index = fr.Index(12)
    index.add(ROWS)
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        found = index.search(torch.from_numpy(QUERIES).to(dtype), 5)
        assert isinstance(found.scores, torch.Tensor)
        assert (found.scores.dtype, found.ids.dtype) == (torch.float32, torch.int64)
    found = index.search(QUERIES.tolist(), 5)
    assert type(found.scores) is type(found.ids) is np.ndarray


def test_bfloat16_of_numpy() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rows = ROWS.astype(ml_dtypes.bfloat16)
    index = fr.Index(12, metric="ip")
    index.add(rows)
    want = expected("ip", rows.astype(np.float32))
    oracle.assert_same(index.search(QUERIES, 5, score_dtype="float64"), want)


def test_ids_may_be_tensors() -> None:
    index = fr.Index(12)
    ids = torch.tensor([5, 3])
    np.testing.assert_array_equal(index.add(ROWS[:2], ids=ids), [5, 3])
    np.testing.assert_array_equal(index.get(torch.tensor([3])), ROWS[1:2])
    index.remove(torch.tensor([5]))
    assert index.ids.tolist() == [3]


def test_empty_index_and_empty_batch() -> None:
    index = fr.Index(12)
    found = index.search(QUERIES, 3)
    assert np.isnan(found.scores).all()
    assert (found.ids == -1).all()
    assert index.search(QUERIES[:0], 3).ids.shape == (0, 3)
    assert index.add(np.zeros((0, 12))).tolist() == []
    index.add(ROWS)
    for none in (np.zeros((0, 12)), np.zeros((12, 0), np.float32).T, QUERIES[:0], QUERIES[5:2:1]):
        found = index.search(none, 3)
        assert found.scores.shape == found.ids.shape == (0, 3)
    assert index.search(torch.zeros(0, 12), 3).ids.shape == (0, 3)
    assert index.get([]).shape == (0, 12)
    index.remove([])
    index.update([], np.zeros((0, 12)))
    assert len(index) == len(ROWS)


@pytest.fixture
def flushed() -> Any:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormals to zero")
    yield
    torch.set_flush_denormal(False)


def subnormal_results(queries: np.ndarray, rows: np.ndarray) -> list[bytes]:
    parts = [fr.normalize(rows), fr.fuse([rows, rows[:, :3]], [1, 2])]
    for metric in oracle.METRICS:
        for width in ("float32", "float64"):
            parts += fr.topk(queries, rows, 7, metric=metric, score_dtype=width)
    small = np.float32([[2.0**-60]])
    parts += fr.topk(small, np.float32([[2.0**-80], [2.0**-89]]), 2, metric="ip")
    assert parts[-2].min() == np.float32(2.0**-149)
    return [part.tobytes() for part in parts]


def test_flushing_subnormals_changes_no_bit(
    request: pytest.FixtureRequest, isa: str, use_threads: Callable[[int], None]
) -> None:
    use_threads(2)
    rows = cases.case("subnormals").rows
    queries = np.concatenate([rows[:4], np.float32(2.0**-130) * QUERIES])
    want = subnormal_results(queries, rows)
    request.getfixturevalue("flushed")
    assert subnormal_results(queries, rows) == want
