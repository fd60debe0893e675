"""Search, normalise, fuse and cluster without keeping an index.

Tensors on a GPU are worked on there, by the same definitions and to the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from fastretrieve import arrays
from fastretrieve.arrays import (
    DTYPES,
    DType,
    Rows,
    address,
    as_rows,
    is_tensor,
    like,
    storage_dtype,
    whole,
)
from fastretrieve.index import Index, Metric
from fastretrieve.memory import HOST, HostMemory
from fastretrieve.results import Hits, is_double
from fastretrieve.runtime import backend_for

# Squares of weighed values stay normal float64 numbers.
MIN_WEIGHT, MAX_WEIGHT = 1e-100, 1e100


def topk(
    queries: Any,
    rows: Any,
    k: int = 10,
    *,
    metric: Metric = "cosine",
    score_dtype: Literal["float32", "float64"] = "float32",
) -> Hits:
    """Return the exact top ``k`` of ``rows`` for each query; the ids are row numbers.

    >>> fr.topk([[1, 0]], [[0, 1], [2, 0]], k=1, metric="ip").ids
    array([[1]])
    """
    device = arrays.device_of(rows)
    matrix = _rows_on(device, rows, "rows")
    if matrix.shape[1] == 0:
        raise ValueError("rows must have at least one column")
    index = Index(matrix.shape[1], metric=metric, device=device)
    index.add(
        rows if device == "cpu" and matrix.dtype == np.uint16 else matrix
    )  # bits of bfloat16 look like integers
    return index.search(queries, k, score_dtype=score_dtype)


def scores(
    queries: Any,
    rows: Any,
    *,
    metric: Metric = "cosine",
    score_dtype: Literal["float32", "float64"] = "float32",
) -> Any:
    """Return the canonical score of every query with every row, as a matrix: to rank candidates
    from elsewhere again, or to check a search. A search needs no such matrix.

    >>> fr.scores([[3, 4]], [[3, 4], [0, 2]], metric="ip")
    array([[25.,  8.]], dtype=float32)
    """
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be cosine, ip, l2 or sqeuclidean, got {metric!r}")
    device = _common_device([queries, rows], ["queries", "rows"])
    q, x = _rows_on(device, queries, "queries"), _rows_on(device, rows, "rows")
    if q.shape[1] != x.shape[1]:
        raise ValueError(f"queries have dimension {q.shape[1]} but rows have {x.shape[1]}")
    exact = backend_for(device).scores(q, x, metric=metric)
    if is_double(score_dtype):
        result = exact
    else:
        result = exact.float() if is_tensor(exact) else exact.astype(np.float32)
    return like(result[0] if np.ndim(queries) == 1 else result, queries)


def normalize(x: Any, mean: Any = None, *, dtype: DType | None = None, out: Any = None) -> Any:
    """Return the rows of ``x``, less ``mean``, divided by their L2 norms; a zero row stays zero.

    Everything is float64 inside: ``float32(float64(x - mean) / norm)``. ``dtype`` is that of the
    result (float32). ``out`` receives it: an array of the right shape and type, adjacent in memory.

    >>> fr.normalize([[3, 4]])
    array([[0.6, 0.8]], dtype=float32)
    """
    return _fused([x], [mean], [1.0], weigh=False, dtype=dtype, out=out)


def fuse(
    layers: Sequence[Any],
    weights: Sequence[float] | None = None,
    *,
    means: Sequence[Any] | None = None,
    dtype: DType | None = None,
    out: Any = None,
) -> Any:
    """Join several layers of features: normalise each, weigh it, join them and normalise the whole,
    in one pass.

    >>> fr.fuse([[[2, 0]], [[0, 5]]], weights=[3, 4])
    array([[0.6, 0. , 0. , 0.8]], dtype=float32)
    """
    if len(layers) == 0:
        raise ValueError("there must be at least one layer to fuse")
    weights = [1.0] * len(layers) if weights is None else [float(w) for w in weights]
    means = [None] * len(layers) if means is None else means
    if len(weights) != len(layers) or len(means) != len(layers):
        raise ValueError(
            f"{len(layers)} layers need as many weights and means, "
            f"got {len(weights)} and {len(means)}"
        )
    if not np.isfinite(weights).all():
        raise ValueError(f"weights must be finite, got {weights}")
    if any(w != 0 and not MIN_WEIGHT <= abs(w) <= MAX_WEIGHT for w in weights):
        raise ValueError(
            f"weights must be zero or between {MIN_WEIGHT} and {MAX_WEIGHT} in size, "
            f"got {weights}; only their ratios matter"
        )
    return _fused(layers, means, weights, weigh=True, dtype=dtype, out=out)


def _fused(
    layers: Sequence[Any],
    means: Sequence[Any],
    weights: Sequence[float],
    *,
    weigh: bool,
    dtype: DType | None,
    out: Any,
) -> Any:
    names = [f"layer {i}" if weigh else "x" for i in range(len(layers))]
    device = _common_device(layers, names)
    rows = [_rows_on(device, layer, name) for layer, name in zip(layers, names, strict=True)]
    counts = {len(r) for r in rows}
    if len(counts) > 1:
        raise ValueError(f"layers must have the same number of rows, got {[len(r) for r in rows]}")
    kind = dtype or "float32"
    if kind not in DTYPES:
        raise ValueError(f"dtype must be float32, float16 or bfloat16, got {dtype!r}")
    backend = backend_for(device)
    shape = (len(rows[0]), sum(r.shape[1] for r in rows))
    target = _target(shape, kind, out, device, _memory_of(backend))
    parts = [
        (r, None if m is None else _mean(m, r.shape[1]), w)
        for r, m, w in zip(rows, means, weights, strict=True)
    ]
    backend.fuse(parts, weigh=weigh, out=address(target), dtype=kind)
    if out is not None:
        return out
    return _returned(target, kind, layers[0])


def _memory_of(backend: Any) -> HostMemory:
    memory: HostMemory = getattr(backend, "memory", HOST)
    return memory


def _rows_on(device: str, array: Any, name: str) -> Any:
    """Rows where the backend of the device reads them: NumPy on the CPU, else a tensor there."""
    if device == "cpu":
        return as_rows(array, name=name)
    return backend_for(device).as_rows(array, name=name)


def _common_device(parts: Sequence[Any], names: Sequence[str]) -> str:
    devices = [arrays.device_of(part) for part in parts]
    for device, name in zip(devices, names, strict=True):
        if device != devices[0]:
            raise ValueError(
                f"{names[0]} are on {devices[0]} but {name} are on {device}; put them on one device"
            )
    return devices[0]


def _mean(mean: Any, dim: int) -> NDArray[np.float32]:
    if arrays.device_of(mean) != "cpu":
        mean = mean.cpu()
    row = as_rows(mean, name="mean")
    if row.shape != (1, dim):
        raise ValueError(f"mean must have {dim} numbers, got shape {np.shape(mean)}")
    if row.dtype == np.uint16:
        row = (row.astype(np.uint32) << 16).view(np.float32)
    if not np.isfinite(row).all():
        raise ValueError(f"mean must be finite, got {row.flat[np.argmin(np.isfinite(row))]}")
    return row.astype(np.float32, copy=False)


def _target(shape: tuple[int, int], kind: DType, out: Any, device: str, memory: HostMemory) -> Any:
    """Memory for the result: new, or that of ``out``."""
    if out is None:
        return memory.empty(shape, storage_dtype(kind))
    if device != "cpu":
        return _target_there(shape, kind, out, device)
    if is_tensor(out):
        if not out.is_contiguous() or str(out.dtype) != f"torch.{kind}" or out.device.type != "cpu":
            raise ValueError(
                f"out must be a contiguous {kind} tensor on the CPU, "
                f"got {out.dtype} on {out.device}"
            )
        bits = out.view(_torch_int16()) if kind == "bfloat16" else out
        array: Rows = bits.detach().numpy()
        array = array.view(np.uint16) if kind == "bfloat16" else array
    else:
        array = out
    if (
        not isinstance(array, np.ndarray)
        or array.dtype != storage_dtype(kind)
        or not array.flags.c_contiguous
    ):
        raise ValueError(
            f"out must be a contiguous {kind} array, "
            f"got {type(out).__name__} {getattr(out, 'dtype', '')}"
        )
    if array.shape != shape and (shape[0] != 1 or array.shape != shape[1:]):
        raise ValueError(f"out must have shape {shape}, got {array.shape}")
    if not array.flags.writeable:
        raise ValueError("out must be writeable")
    return array


def _target_there(shape: tuple[int, int], kind: DType, out: Any, device: str) -> Any:
    place = arrays.device_of(out)
    right = is_tensor(out) and str(out.dtype) == f"torch.{kind}" and place == device
    if not right or not out.is_contiguous():
        raise ValueError(
            f"out must be a contiguous {kind} tensor on {device}, "
            f"got {getattr(out, 'dtype', type(out).__name__)} on {place}"
        )
    if tuple(out.shape) != shape and (shape[0] != 1 or tuple(out.shape) != shape[1:]):
        raise ValueError(f"out must have shape {shape}, got {tuple(out.shape)}")
    return out


def _torch_int16() -> Any:
    import torch

    return torch.int16


def _returned(result: Rows, kind: DType, original: Any) -> Any:
    shaped = result[0] if np.ndim(original) == 1 else result
    if kind != "bfloat16" or is_tensor(shaped):
        return like(shaped, original)
    if is_tensor(original):
        import torch

        return torch.from_numpy(shaped.view(np.int16)).view(torch.bfloat16)
    raise ValueError("dtype='bfloat16' needs torch tensors: NumPy has no such type")


class Clusters(NamedTuple):
    """What :func:`kmeans` found."""

    centroids: Any  # [k, dim] float32
    assignments: Any  # [n_rows] int64
    inertia: float  # sum of the squared distances to the assigned centroids
    iterations: int


def kmeans(x: Any, k: int, *, seed: int = 0, max_iterations: int = 25) -> Clusters:
    """Cluster the rows of ``x`` into ``k`` groups by Lloyd's algorithm, with exact assignments.

    The result depends on ``x``, ``k`` and ``seed`` only: not on threads, machine or backend.
    Seeding is k-means++ on a sample; a cluster that loses all rows moves to the row that is
    farthest from its centroid.

    >>> labels = fr.kmeans([[0.0], [0.1], [9.0], [9.2]], 2).assignments
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """
    device = arrays.device_of(x)
    rows = _float32_rows(device, x)
    if not 1 <= whole(k, "k") <= len(rows):
        raise ValueError(f"k must be in [1, {len(rows)}], the number of rows, got {k}")
    max_iterations = whole(max_iterations, "max_iterations")
    backend = backend_for(device)
    memory = _memory_of(backend)
    centroids = _seed_centroids(rows, k, np.random.default_rng(seed), memory)
    assignments = np.full(len(rows), -1, dtype=np.int64)
    for iteration in range(1, max_iterations + 1):
        here = memory.placed(centroids)
        hits = topk(rows, here, 1, metric="sqeuclidean", score_dtype="float64")
        distances, nearest = (memory.to_host(part)[:, 0] for part in hits)
        settled = bool((nearest == assignments).all())
        assignments = nearest
        if settled or iteration == max_iterations:
            break
        sums, counts = backend.cluster_sums(rows, assignments, k)
        filled = counts > 0
        centroids = centroids.copy()
        centroids[filled] = sums[filled] / counts[filled, None]
        empty = np.flatnonzero(~filled)
        if len(empty):
            farthest = np.lexsort((np.arange(len(rows)), -distances))[: len(empty)]
            centroids[empty] = memory.to_host(memory.taken(rows, farthest))
    inertia = float(np.cumsum(distances)[-1])  # a fixed order of additions
    found = (centroids, assignments)
    if memory.holds(rows):
        found = (memory.placed(centroids), memory.placed(assignments))
    return Clusters(like(found[0], x), like(found[1], x), inertia, iteration)


def _float32_rows(device: str, x: Any) -> Any:
    """Finite float32 rows, where ``x`` is."""
    rows = _rows_on(device, x, "x")
    if is_tensor(rows):
        rows = rows.float()
        finite = rows.double().sum(dim=1).isfinite().cpu().numpy()
    else:
        if rows.dtype == np.uint16:
            rows = (rows.astype(np.uint32) << 16).view(np.float32)
        rows = rows.astype(np.float32, copy=False)
        finite = np.isfinite(rows.sum(axis=1, dtype=np.float64))
    if not finite.all():
        raise ValueError(
            f"x holds a value that is not finite in row {np.argmin(finite)}; "
            f"remove NaN and infinity first"
        )
    return rows


def _seed_centroids(
    rows: Any, k: int, random: np.random.Generator, memory: HostMemory
) -> NDArray[np.float32]:
    """k-means++: each next centroid is a row drawn with probability proportional to its squared
    distance so far.
    """
    n_sample = min(len(rows), max(32 * k, 4096))
    chosen_rows = np.sort(random.choice(len(rows), n_sample, replace=False))
    sample = memory.to_host(memory.taken(rows, chosen_rows))
    chosen = np.empty((k, rows.shape[1]), dtype=np.float32)
    chosen[0] = sample[random.integers(n_sample)]
    distances = _squared_distances(sample, chosen[0])
    for i in range(1, k):
        total = np.cumsum(distances)
        if total[-1] > 0:
            pick = int(np.searchsorted(total, random.random() * total[-1], side="right"))
        else:
            pick = int(random.integers(n_sample))
        chosen[i] = sample[min(pick, n_sample - 1)]
        distances = np.minimum(distances, _squared_distances(sample, chosen[i]))
    return chosen


def _squared_distances(rows: Rows, centre: NDArray[np.float32]) -> NDArray[np.float64]:
    scored: NDArray[np.float64] = backend_for("cpu").scores(
        centre[None], rows, metric="sqeuclidean"
    )
    return scored.reshape(-1)
