"""topk, normalize, fuse and kmeans equal their definitions, whatever runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import cases
import fastretrieve as fr
import oracle
from fastretrieve._backends.cpu import CpuBackend

UseThreads = Callable[[int], None]


def same_bits(found: Any, expected: np.ndarray) -> None:
    assert isinstance(found, np.ndarray)
    assert found.dtype == expected.dtype
    unsigned = np.dtype(f"u{expected.itemsize}")
    np.testing.assert_array_equal(found.view(unsigned), expected.view(unsigned))


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_topk(dtype: str, metric: Any, isa: str) -> None:
    queries, rows = cases.gaussian(300, 33, seed=20)
    sent = torch.from_numpy(rows).to(getattr(torch, dtype))
    found = fr.topk(torch.from_numpy(queries), sent, 6, metric=metric, score_dtype="float64")
    expected = oracle.topk(queries, sent.float().numpy(), 6, metric)
    oracle.assert_same(fr.Hits(found.scores.numpy(), found.ids.numpy()), expected)


def test_topk_defaults_to_ten_by_cosine() -> None:
    queries, rows = cases.gaussian(40, 5, seed=21)
    found = fr.topk(queries, rows)
    np.testing.assert_array_equal(found.ids, oracle.topk(queries, rows, 10, "cosine").ids)


# --- normalize and fuse --------------------------------------------------------------------------

NORMALIZE = {
    "ordinary": lambda: cases.gaussian(1, 67).rows,
    "more rows than a task": lambda: cases.gaussian(3000, 65, seed=22).rows,
    "one column": lambda: cases.gaussian(50, 1, seed=23).rows,
    "wide": lambda: cases.gaussian(3, 70_000, seed=24).rows,
    "zero rows": lambda: cases.case("zero rows and zero queries").rows,
    "subnormals": lambda: cases.case("subnormals").rows,
    "as large as float32 goes": lambda: cases.case("as large as float32 goes").rows,
    "30 decades": lambda: cases.case("row norms 30 decades apart").rows,
    "no rows": lambda: np.zeros((0, 5), np.float32),
    "no columns": lambda: np.zeros((5, 0), np.float32),
}


@pytest.mark.parametrize("name", NORMALIZE)
def test_normalize(name: str, isa: str, use_threads: UseThreads) -> None:
    x = NORMALIZE[name]()
    expected = oracle.normalize(x)
    for threads in (1, 2, 3, 5):
        use_threads(threads)
        same_bits(fr.normalize(x), expected)
    mean = x[:7].mean(axis=0) if len(x) else np.zeros(x.shape[1], np.float32)
    same_bits(fr.normalize(x, mean), oracle.normalize(x, mean))


@pytest.mark.parametrize("dim", cases.DIMS[:10])
def test_fuse(dim: int, isa: str, use_threads: UseThreads) -> None:
    layers = [
        cases.gaussian(130, d, seed=30 + i).rows * 10.0 ** (3 * i)
        for i, d in enumerate((dim, 5, 1))
    ]
    layers = [layer.astype(np.float32) for layer in layers]
    layers[0][3] = 0
    layers[1][5:7] = 0
    for layer in layers:
        layer[9] = 0
    means = [layers[0][0], None, layers[2][1]]
    for weights in ([1.0, 1.0, 1.0], [0.3, -7, 1e-3], [0, 1, 0]):
        for use in (means, [None] * 3):
            expected = oracle.fuse(layers, weights, use)
            for threads in (1, 3):
                use_threads(threads)
                same_bits(fr.fuse(layers, weights, means=use), expected)
    same_bits(fr.fuse(layers), oracle.fuse(layers, [1.0] * 3, [None] * 3))
    same_bits(fr.fuse([layers[0][8]]), oracle.fuse([layers[0][8:9]], [1.0], [None])[0])


def test_large_and_small_weights_mean_their_ratio() -> None:
    layers = [cases.gaussian(5, 8, seed=i).rows for i in range(2)]
    plain = fr.fuse(layers, [1, 3])
    np.testing.assert_allclose(fr.fuse(layers, [1e100 / 3, 1e100]), plain, rtol=1e-6)
    np.testing.assert_allclose(fr.fuse(layers, [1e-100, 3e-100]), plain, rtol=1e-6)


def test_torch_in_torch_out() -> None:
    x = torch.randn(70, 19, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(oracle.normalize(x.numpy()))
    assert torch.equal(fr.normalize(x), expected)
    assert torch.equal(fr.normalize(x[0]), expected[0])
    for dtype in ("float16", "bfloat16"):
        kind = getattr(torch, dtype)
        assert torch.equal(fr.normalize(x, dtype=dtype), expected.to(kind))
        narrow = x.to(kind)
        wide = torch.from_numpy(oracle.normalize(narrow.float().numpy()))
        assert torch.equal(fr.normalize(narrow), wide)
        mean = narrow[3]
        centred = torch.from_numpy(oracle.normalize(x.numpy(), mean.float().numpy()))
        assert torch.equal(fr.normalize(x, mean), centred)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_out_receives_the_result(dtype: Any, isa: str) -> None:
    x = cases.gaussian(50, 21, seed=25).rows
    expected = torch.from_numpy(oracle.normalize(x)).to(getattr(torch, dtype))
    tensor = torch.full((50, 21), 9.0, dtype=getattr(torch, dtype))
    assert fr.normalize(x, dtype=dtype, out=tensor) is tensor
    assert torch.equal(tensor, expected)
    one = torch.zeros(21, dtype=getattr(torch, dtype))
    fr.normalize(x[4], dtype=dtype, out=one)
    assert torch.equal(one, expected[4])
    if dtype != "bfloat16":
        array = np.full((50, 21), 9, dtype)
        assert fr.normalize(x, dtype=dtype, out=array) is array
        np.testing.assert_array_equal(array, expected.numpy())


def test_out_may_be_the_input() -> None:
    x = cases.gaussian(50, 21, seed=26).rows
    expected = oracle.normalize(x)
    fr.normalize(x, out=x)
    same_bits(x, expected)


OUTS = {
    "shape": (np.zeros((2, 3), np.float32), r"out must have shape \(2, 4\), got \(2, 3\)"),
    "rank": (np.zeros(8, np.float32), r"out must have shape \(2, 4\), got \(8,\)"),
    "dtype": (
        np.zeros((2, 4)),
        "contiguous float32 array or tensor on the CPU, got ndarray float64",
    ),
    "order": (np.zeros((4, 2), np.float32).T, "out must be a contiguous float32 array"),
    "kind": ([[0.0] * 4] * 2, "out must be a contiguous float32 array or .*, got list on cpu"),
    "tensor": (torch.zeros(2, 4).half(), "contiguous float32 .*, got Tensor torch.float16 on cpu"),
    "steps": (torch.zeros(4, 2).T, "out must be a contiguous float32 array or tensor on the CPU"),
    "elsewhere": (torch.zeros(2, 4, device="meta"), "got Tensor torch.float32 on meta"),
}


@pytest.mark.parametrize("name", OUTS)
def test_a_wrong_out_is_refused(name: str) -> None:
    out, message = OUTS[name]
    with pytest.raises(ValueError, match=message):
        fr.normalize(np.ones((2, 4), np.float32), out=out)


def test_a_read_only_out_is_refused() -> None:
    out = np.zeros((2, 4), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out must be writeable"):
        fr.normalize(np.ones((2, 4)), out=out)


def test_what_is_not_finite_is_refused_by_row() -> None:
    x = np.ones((500, 3), np.float32)
    x[[77, 300], 1] = np.inf, np.nan
    with pytest.raises(ValueError, match="x holds a value that is not finite in row 77;"):
        fr.normalize(x)
    with pytest.raises(ValueError, match="layers hold a value that is not finite in row 77;"):
        fr.fuse([np.ones((500, 2)), x])
    with pytest.raises(ValueError, match="mean must be finite, got nan"):
        fr.normalize(x[:5], mean=[1, np.nan, 2])


FUSE_ERRORS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "no layers": (lambda: fr.fuse([]), ValueError, "at least one layer"),
    "a layer and no list": (
        lambda: fr.fuse(np.eye(3)),
        TypeError,
        r"layers must be a list .*, got ndarray of shape \(3, 3\); for one layer write \[layer\]",
    ),
    "no list": (lambda: fr.fuse(3.0), TypeError, "layers must be a list .*, got float"),
    "text": (lambda: fr.fuse("ab"), TypeError, "layers must be a list .*, got str"),
    "rows differ": (
        lambda: fr.fuse([[[1]], [[1], [2]]]),
        ValueError,
        r"same number of rows, got \[1, 2\]",
    ),
    "weights": (
        lambda: fr.fuse([[[1]]], [1, 2]),
        ValueError,
        "1 layers need as many weights, got 2",
    ),
    "one weight": (lambda: fr.fuse([[[1]]], 2), TypeError, "weights must be a list .*, got int"),
    "no numbers": (
        lambda: fr.fuse([[[1]]], ["much"]),
        TypeError,
        r"weights must be numbers, got \['much'\]",
    ),
    "means": (lambda: fr.fuse([[[1]]], means=[]), ValueError, "1 layers need as many means, got 0"),
    "mean": (
        lambda: fr.normalize([[1, 2]], [1]),
        ValueError,
        r"mean must have 2 numbers, got shape \(1,\)",
    ),
    "nan weight": (lambda: fr.fuse([[[1]]], [np.nan]), ValueError, "weights must be finite"),
    "huge weight": (lambda: fr.fuse([[[1]]], [1e200]), ValueError, "only their ratios matter"),
    "dtype": (
        lambda: fr.normalize([[1]], dtype="int8"),
        ValueError,
        "dtype must be float32, float16 or bfloat16, got 'int8'",
    ),
    "bfloat16": (lambda: fr.normalize([[1]], dtype="bfloat16"), ValueError, "needs torch tensors"),
}


@pytest.mark.parametrize("name", FUSE_ERRORS)
def test_fuse_errors(name: str) -> None:
    call, kind, message = FUSE_ERRORS[name]
    with pytest.raises(kind, match=message):
        call()


def test_layers_may_be_one_array() -> None:
    layers = [cases.gaussian(5, 8, seed=i).rows for i in range(2)]
    expected = fr.fuse(layers, [1, 3], means=[layers[0][0], layers[1][0]])
    same_bits(
        fr.fuse(np.stack(layers), np.array([1, 3]), means=np.stack([x[0] for x in layers])),
        expected,
    )


@pytest.mark.parametrize("dtype", [np.float16, np.dtype("float16"), torch.float16])
def test_a_dtype_may_be_an_object(dtype: Any) -> None:
    assert fr.normalize([[3, 4]], dtype=dtype).dtype == np.float16


# --- kmeans --------------------------------------------------------------------------------------


def blobs(n_rows: int, dim: int, k: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = random.standard_normal((k, dim)) * 3
    return (centres[np.arange(n_rows) % k] + random.standard_normal((n_rows, dim))).astype(
        np.float32
    )


@pytest.mark.parametrize("k", [1, 2, 7, 40])
def test_kmeans_is_lloyds_algorithm(k: int, isa: str, use_threads: UseThreads) -> None:
    x = blobs(400, 9, 7, seed=40)
    start = fr.kmeans(x, k, seed=3, max_iterations=1).centroids  # assigned once, not yet moved
    centroids, labels, inertia, iterations = oracle.kmeans(x, start, 6)
    for threads in (1, 2, 5):
        use_threads(threads)
        found = fr.kmeans(x, k, seed=3, max_iterations=6)
        same_bits(found.centroids, centroids)
        np.testing.assert_array_equal(found.assignments, labels)
        assert (found.inertia, found.iterations) == (inertia, iterations)


def test_kmeans_is_the_same_on_every_instruction_set(isa: str, use_threads: UseThreads) -> None:
    use_threads(2)
    found = fr.kmeans(blobs(3000, 32, 20, seed=41), 20, seed=1)
    use_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastretrieve._backends.runtime.cpu_backend", lambda isa="": _scalar())
        expected = fr.kmeans(blobs(3000, 32, 20, seed=41), 20, seed=1)
    same_bits(found.centroids, expected.centroids)
    np.testing.assert_array_equal(found.assignments, expected.assignments)
    assert found.inertia == expected.inertia


def _scalar() -> Any:
    return CpuBackend("scalar")


def test_kmeans_fills_empty_clusters() -> None:
    x = np.repeat(np.array([[0.0], [1], [5], [100]], np.float32), 10, axis=0)
    found = fr.kmeans(x, 4, seed=0)
    assert sorted(found.centroids[:, 0].tolist()) == [0, 1, 5, 100]
    assert found.inertia == 0
    more = fr.kmeans(x, 6, seed=0)  # more clusters than different rows
    assert more.inertia == 0
    np.testing.assert_array_equal(more.centroids[more.assignments], x)


def test_kmeans_finds_well_separated_groups() -> None:
    x = blobs(600, 16, 6, seed=42)
    labels = fr.kmeans(x, 6, seed=0).assignments.reshape(-1, 6)
    assert (labels == labels[0]).all()
    assert len(set(labels[0].tolist())) == 6


def test_kmeans_tells_how_far_it_is_and_can_be_stopped() -> None:
    x = blobs(400, 9, 7, seed=40)
    told = []
    found = fr.kmeans(x, 5, max_iterations=50, progress=lambda *done: told.append(done))
    assert told == [(i, 50) for i in range(1, found.iterations + 1)]

    def stop(done: int, total: int) -> None:
        raise InterruptedError(done)

    with pytest.raises(InterruptedError, match="1"):
        fr.kmeans(x, 5, progress=stop)


def test_kmeans_takes_and_returns_tensors() -> None:
    x = torch.from_numpy(blobs(200, 8, 3, seed=43))
    found = fr.kmeans(x, 3)
    assert isinstance(found.centroids, torch.Tensor)
    assert isinstance(found.assignments, torch.Tensor)
    same_bits(found.centroids.numpy(), fr.kmeans(x.numpy(), 3).centroids)
    narrow = fr.kmeans(x.bfloat16(), 3)
    same_bits(narrow.centroids.numpy(), fr.kmeans(x.bfloat16().float().numpy(), 3).centroids)
    half = fr.kmeans(x.half(), 3)
    same_bits(half.centroids.numpy(), fr.kmeans(x.half().float().numpy(), 3).centroids)


def test_kmeans_depends_on_its_seed_alone() -> None:
    x = blobs(500, 4, 9, seed=44)
    first, again, other = fr.kmeans(x, 9), fr.kmeans(x, 9), fr.kmeans(x, 9, seed=1)
    same_bits(first.centroids, again.centroids)
    assert not np.array_equal(first.centroids, other.centroids)


@pytest.mark.parametrize("k", [0, 4, -1])
def test_kmeans_names_the_range_of_k(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k must be .*got {k}"):
        fr.kmeans(np.eye(3), k)


KMEANS_ERRORS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "k": (lambda: fr.kmeans(np.eye(3), 2.0), TypeError, r"k must be a whole number, got 2\.0"),
    "one vector": (
        lambda: fr.kmeans([1.0, 2.0, 9.0], 2),
        ValueError,
        r"the number of rows of x \(shape \(1, 3\)\), got 2",
    ),
    "no columns": (
        lambda: fr.kmeans(np.ones((3, 0)), 2),
        ValueError,
        "x must have at least one col",
    ),
    "iterations": (
        lambda: fr.kmeans(np.eye(3), 2, max_iterations=0),
        ValueError,
        "max_iterations must be at least 1, got 0",
    ),
    "not finite": (
        lambda: fr.kmeans([[0.0], [np.nan]], 1),
        ValueError,
        "x holds a value that is not finite in row 1;",
    ),
    "seed": (
        lambda: fr.kmeans(np.eye(3), 2, seed=-1),
        ValueError,
        "seed must be at least 0, got -1",
    ),
    "no seed": (
        lambda: fr.kmeans(np.eye(3), 2, seed=None),
        TypeError,
        "seed must be a whole number, got None",
    ),
}


@pytest.mark.parametrize("name", KMEANS_ERRORS)
def test_kmeans_errors(name: str) -> None:
    call, kind, message = KMEANS_ERRORS[name]
    with pytest.raises(kind, match=message):
        call()
