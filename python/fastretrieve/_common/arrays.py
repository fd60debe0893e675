"""From any array to rows that the core reads, and back to the caller's kind.

The core reads float32, float16 and the bits of bfloat16 (as uint16) without a copy. Everything else
is converted by one rule, stated in :func:`as_rows`, or refused. Torch is never imported here: a
tensor can only come from a loaded torch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arguments import one_of, shown
from fastretrieve._common.ordering import converted, pieces

if TYPE_CHECKING:
    import torch

DType = Literal["float32", "float16", "bfloat16"]
DTYPES: tuple[DType, ...] = ("float32", "float16", "bfloat16")
Rows = NDArray[Any]  # float32, float16, or uint16 holding bfloat16
CoreMatrix = tuple[int, str, int, int, int]  # address, type, rows, dimension, stride

MAX_EXACT_INTEGER = 2**24  # float32 holds every integer up to here


def storage_dtype(dtype: DType) -> np.dtype[Any]:
    """The NumPy type whose memory holds numbers of type ``dtype``."""
    return np.dtype(np.uint16 if dtype == "bfloat16" else dtype)


def as_dtype(value: Any) -> DType:
    """The name of a type of stored numbers, given by name or as NumPy's or torch's object.

    >>> as_dtype(np.float16)
    'float16'
    """
    torch = sys.modules.get("torch")
    if isinstance(value, (np.dtype, type)):
        value = np.dtype(value).name
    elif torch is not None and isinstance(value, torch.dtype):
        value = str(value).removeprefix("torch.")
    return one_of(value, DTYPES, "dtype")  # type: ignore[return-value]


def is_tensor(array: object) -> bool:
    """Whether ``array`` is a torch tensor, asked without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def device_of(array: object) -> str:
    """The device that holds ``array``: ``cpu``, or what torch calls it."""
    return str(array.device) if is_tensor(array) else "cpu"  # type: ignore[attr-defined]


def as_rows(array: Any, *, name: str, dim: int | None = None) -> Rows:
    """Return ``array`` as a matrix of rows; a single vector becomes one row.

    float32, float16 and bfloat16 stay as they are; float64 is rounded to float32; integers become
    float32 and must not exceed 2**24 in size; anything else is an error. The result is adjacent
    within a row, copied only where it was not.

    >>> as_rows([[1, 2], [3, 4]], name="vectors").dtype
    dtype('float32')
    """
    matrix = _from_tensor(array, name) if is_tensor(array) else _from_other(array, name)
    if matrix.ndim == 1 and len(matrix) == 0 and dim is not None:  # an empty list holds no vector
        matrix = matrix.reshape(0, dim)
    if matrix.ndim == 1:
        matrix = matrix[None, :]
    if matrix.ndim != 2:
        raise ValueError(f"{name} must have one or two dimensions, got shape {tuple(matrix.shape)}")
    if dim is not None and matrix.shape[1] != dim:
        raise ValueError(
            f"{name} have dimension {matrix.shape[1]} but the index has dimension {dim}"
        )
    adjacent = matrix.shape[1] <= 1 or matrix.strides[1] == matrix.itemsize
    whole_steps = len(matrix) <= 1 or matrix.strides[0] % matrix.itemsize == 0
    if adjacent and whole_steps and matrix.flags.aligned:
        return matrix
    return converted(matrix, matrix.dtype.type)


def _from_other(values: Any, name: str) -> Rows:
    array = values if isinstance(values, np.ndarray) else _as_numpy(values, name)
    if type(array) is not np.ndarray and np.any(getattr(array, "mask", False)):
        raise TypeError(f"{name} must not be masked; fill the masked values first")
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and size in (2, 4) and array.dtype.isnative:
        return array
    if kind == "f":
        with np.errstate(over="ignore"):  # a row that overflows is refused as not finite
            return converted(array, np.float32)
    if kind in "iu":
        return _from_integers(array, name)
    if array.dtype.name == "bfloat16":  # ml_dtypes, as JAX uses it
        return array.view(np.uint16)
    if array.ndim == 0:
        raise TypeError(f"{name} must be an array of numbers, got {type(values).__name__}")
    raise _not_numbers(name, array.dtype)


def _not_numbers(name: str, dtype: object) -> TypeError:
    return TypeError(
        f"{name} must be floating point or integers, got dtype {dtype}; convert them to float32"
    )


def _as_numpy(values: Any, name: str) -> NDArray[Any]:
    if hasattr(values, "__dlpack__"):
        try:
            return np.from_dlpack(values)
        except (BufferError, RuntimeError) as error:  # on a device, or of a type that NumPy lacks
            raise TypeError(
                f"{name} cannot be read as a NumPy array: {error}; convert them to NumPy or torch"
            ) from error
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be rows of equal length, got {shown(values)}") from error


def _from_integers(array: NDArray[Any], name: str) -> Rows:
    numbers = np.atleast_1d(array)
    for begin, end in pieces(numbers):
        part = numbers[begin:end]
        too_large = (part > MAX_EXACT_INTEGER) | (
            part < -MAX_EXACT_INTEGER if part.dtype.kind == "i" else False
        )
        if too_large.any():
            first, *rest = (int(i) for i in np.argwhere(too_large)[0])
            where = (begin + first, *rest)
            raise ValueError(
                f"{name} must be integers of at most 2**24 in size, which float32 holds exactly, "
                f"got {numbers[where]} at {where}; scale them, or convert them to float yourself"
            )
    return converted(array, np.float32)


def _from_tensor(tensor: torch.Tensor, name: str) -> Rows:
    import torch

    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        raise ValueError(
            f"{name} are on {tensor.device} but this works on the CPU; call .cpu() on them"
            + (f", or build the index with device='{tensor.device}'" if tensor.is_cuda else "")
        )
    if tensor.layout != torch.strided:
        raise TypeError(
            f"{name} must be a dense tensor, got layout {tensor.layout}; call .to_dense()"
        )
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    try:
        array = tensor.numpy()
    except TypeError as error:  # quantised and 8-bit floating point tensors
        raise _not_numbers(name, tensor.dtype) from error
    return _from_other(array, name)


def as_float(rows: Rows) -> NDArray[Any]:
    """Rows as floating point: bfloat16 as the float32 of the same value."""
    return (rows.astype(np.uint32) << 16).view(np.float32) if rows.dtype == np.uint16 else rows


def not_finite(rows: Any) -> NDArray[np.int64]:
    """The numbers of the rows that hold NaN or infinity; for a tensor on a device this waits.

    >>> not_finite(np.array([[1, 2], [np.inf, 0]], np.float32))
    array([1])
    """
    if is_tensor(rows):
        found: NDArray[np.int64] = (~rows.isfinite().all(dim=1)).nonzero().reshape(-1).cpu().numpy()
        return found
    if rows.dtype == np.uint16:  # bfloat16
        return np.flatnonzero(((rows & 0x7F80) == 0x7F80).any(axis=1))
    return np.flatnonzero(~np.isfinite(rows).all(axis=1))


def like(result: NDArray[Any], original: Any) -> Any:
    """Return ``result`` as the kind of array that ``original`` is: a tensor on the same device,
    an array of its namespace, or NumPy.
    """
    if isinstance(original, np.ndarray) or is_tensor(result):
        return result
    if is_tensor(original):
        import torch

        return torch.from_numpy(result).to(original.device)
    if hasattr(original, "__array_namespace__"):
        return original.__array_namespace__().from_dlpack(result)
    return result


def core_matrix(array: Any) -> CoreMatrix:
    """The rows as the core's description of memory: address, type, rows, dimension, stride."""
    if is_tensor(array):
        kind = str(array.dtype).removeprefix("torch.")
        return (array.data_ptr(), kind, array.shape[0], array.shape[1], array.stride(0))
    name = "bfloat16" if array.dtype == np.uint16 else array.dtype.name
    return (
        address(array),
        name,
        array.shape[0],
        array.shape[1],
        array.strides[0] // array.itemsize,
    )


def joined(parts: list[Any]) -> Any:
    """Arrays of one kind as one, along their first axis."""
    if len(parts) == 1 or not is_tensor(parts[0]):
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    import torch

    return torch.cat(parts)


def address(array: Any) -> int:
    """Where the array begins; 0 for none."""
    if is_tensor(array):
        return int(array.data_ptr())
    return 0 if array is None else int(array.__array_interface__["data"][0])


def unpack(words: NDArray[np.uint64], n: int) -> NDArray[np.bool_]:
    """The first ``n`` bits of words, as booleans."""
    return np.unpackbits(words.view(np.uint8), count=n, bitorder="little").view(bool)
