"""Normalise rows and join layers of features, in one pass over the input.

Everything is float64 inside, added in the order of ``docs/exactness.md`` and rounded once at the
end. Tensors on a GPU stay there, with the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._backends.devices import common_device, rows_on
from fastretrieve._backends.runtime import backend_for
from fastretrieve._common.arguments import shown
from fastretrieve._common.arrays import (
    DType,
    address,
    as_dtype,
    as_float,
    as_rows,
    device_of,
    is_tensor,
    like,
    storage_dtype,
)

# Squares of weighed values stay normal float64 numbers.
MIN_WEIGHT, MAX_WEIGHT = 1e-100, 1e100


class _Layer(NamedTuple):
    rows: Any  # [n, dim], where the backend reads them
    mean: NDArray[np.float32] | None  # [1, dim]
    weight: float


def normalize(x: Any, mean: Any = None, *, dtype: DType | None = None, out: Any = None) -> Any:
    """Return the rows of ``x``, less ``mean``, divided by their L2 norms; a zero row stays zero.

    Everything is float64 inside: ``float32(float64(x - mean) / norm)``. ``dtype`` is that of the
    result (float32). ``out`` receives it: an array of the right shape and type, adjacent in memory.

    >>> fr.normalize([[3, 4]])
    array([[0.6, 0.8]], dtype=float32)
    """
    device = device_of(x)
    rows = rows_on(device, x, "x")
    layer = _Layer(rows, _mean(mean, rows.shape[1]), 1.0)
    return _fused(device, [layer], x, weigh=False, dtype=dtype, out=out)


def fuse(
    layers: Sequence[Any],
    weights: Sequence[float] | None = None,
    *,
    means: Sequence[Any] | None = None,
    dtype: DType | None = None,
    out: Any = None,
) -> Any:
    """Join several layers of features: normalise each, weigh it, join them and normalise the whole,
    in one pass. ``means`` holds what to subtract from the rows of each layer first, or None.

    >>> fr.fuse([[[2, 0]], [[0, 5]]], weights=[3, 4])
    array([[0.6, 0. , 0. , 0.8]], dtype=float32)
    """
    parts = _members(layers, "layers", 3)
    if len(parts) == 0:
        raise ValueError("there must be at least one layer to fuse")
    names = [f"layer {i}" for i in range(len(parts))]
    device = common_device(parts, names)
    rows = [rows_on(device, part, name) for part, name in zip(parts, names, strict=True)]
    counts = [len(r) for r in rows]
    if len(set(counts)) > 1:
        raise ValueError(f"layers must have the same number of rows, got {counts}")
    centres = [None] * len(rows) if means is None else _for_each(means, "means", 2, len(rows))
    joined = [
        _Layer(r, _mean(centre, r.shape[1]), weight)
        for r, centre, weight in zip(rows, centres, _weights(weights, len(rows)), strict=True)
    ]
    return _fused(device, joined, parts[0], weigh=True, dtype=dtype, out=out)


def _fused(
    device: str, layers: list[_Layer], original: Any, *, weigh: bool, dtype: Any, out: Any
) -> Any:
    backend, kind = backend_for(device), "float32" if dtype is None else as_dtype(dtype)
    shape = (len(layers[0].rows), sum(layer.rows.shape[1] for layer in layers))
    if out is not None:
        target = _checked_out(out, shape, kind, device)
    elif kind == "bfloat16" and not is_tensor(original):
        raise ValueError("dtype='bfloat16' needs torch tensors: NumPy has no such type")
    else:
        target = backend.memory.empty(shape, storage_dtype(kind))
    backend.fuse(layers, weigh=weigh, out=address(target), dtype=kind)
    return out if out is not None else _returned(target, kind, original)


def _members(given: Any, name: str, n_dims: int) -> list[Any]:
    """The entry of each layer: the members of a list, or of one array of ``n_dims``."""
    if is_tensor(given) or isinstance(given, np.ndarray):
        listed = given.ndim == n_dims
    else:
        listed = isinstance(given, Sequence) and not isinstance(given, (str, bytes))
    if not listed:
        shape = f" of shape {tuple(given.shape)}" if hasattr(given, "shape") else ""
        raise TypeError(
            f"{name} must be a list with an entry for each layer, "
            f"got {type(given).__name__}{shape}; for one layer write [layer]"
        )
    return list(given)


def _for_each(given: Any, name: str, n_dims: int, n_layers: int) -> list[Any]:
    members = _members(given, name, n_dims)
    if len(members) != n_layers:
        raise ValueError(f"{n_layers} layers need as many {name}, got {len(members)}")
    return members


def _weights(given: Any, n_layers: int) -> list[float]:
    if given is None:
        return [1.0] * n_layers
    members = _for_each(given, "weights", 1, n_layers)
    try:
        weights = [float(w) for w in members]
    except (TypeError, ValueError) as error:
        raise TypeError(f"weights must be numbers, got {shown(members)}") from error
    if not np.isfinite(weights).all():
        raise ValueError(f"weights must be finite, got {weights}")
    if any(w != 0 and not MIN_WEIGHT <= abs(w) <= MAX_WEIGHT for w in weights):
        raise ValueError(
            f"weights must be zero or between {MIN_WEIGHT} and {MAX_WEIGHT} in size, "
            f"got {weights}; only their ratios matter"
        )
    return weights


def _mean(mean: Any, dim: int) -> NDArray[np.float32] | None:
    if mean is None:
        return None
    if device_of(mean).startswith("cuda"):
        mean = mean.cpu()
    row = as_float(as_rows(mean, name="mean")).astype(np.float32, copy=False)
    if row.shape != (1, dim):
        raise ValueError(f"mean must have {dim} numbers, got shape {tuple(np.shape(mean))}")
    if not np.isfinite(row).all():
        raise ValueError(f"mean must be finite, got {row.flat[np.argmin(np.isfinite(row))]}")
    return row


def _checked_out(out: Any, shape: tuple[int, int], kind: DType, device: str) -> Any:
    """``out``, if it can receive a result of this shape and type on this device."""
    place = device_of(out)
    if is_tensor(out):
        right = str(out.dtype) == f"torch.{kind}" and out.is_contiguous() and place == device
        writeable = True
    else:
        right = (
            device == "cpu"
            and isinstance(out, np.ndarray)
            and out.dtype == storage_dtype(kind)
            and out.flags.c_contiguous
        )
        writeable = right and out.flags.writeable
    if not right:
        wanted = "array or tensor on the CPU" if device == "cpu" else f"tensor on {device}"
        got = " ".join(
            str(part) for part in (type(out).__name__, getattr(out, "dtype", "")) if part != ""
        )
        raise ValueError(f"out must be a contiguous {kind} {wanted}, got {got} on {place}")
    if tuple(out.shape) != shape and (shape[0] != 1 or tuple(out.shape) != shape[1:]):
        raise ValueError(f"out must have shape {shape}, got {tuple(out.shape)}")
    if not writeable:
        raise ValueError("out must be writeable")
    return out


def _returned(result: Any, kind: DType, original: Any) -> Any:
    """The result in the shape and kind of the first input."""
    shaped = result[0] if np.ndim(original) == 1 else result
    if kind != "bfloat16" or is_tensor(shaped):
        return like(shaped, original)
    import torch

    return torch.from_numpy(shaped.view(np.int16)).view(torch.bfloat16)
