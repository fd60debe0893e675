"""Vectors in common file formats: ``.npy``, ``.fvecs``, ``.bvecs``, ``.ivecs``.

Files of vectors are read as views of mapped memory, so ``index.add(read_vectors(path))`` copies
once. Every size and dimension is checked; an error says where it is wrong.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arguments import file_name
from fastretrieve._common.atomic import replacing
from fastretrieve._common.errors import StorageError

# A record of these is the dimension as int32, then so many numbers; all little-endian.
_RECORDS = {".fvecs": "<f4", ".bvecs": "u1", ".ivecs": "<i4"}
SUFFIXES = (".npy", *_RECORDS)
_DIM_BYTES = 4
PART_BYTES = 16 << 20  # of vectors that are converted and written at a time


def read_vectors(path: str | os.PathLike[str], *, mmap: bool = True) -> NDArray[Any]:
    """Read a matrix of vectors, in the format that the name of the file ends with.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_vectors(f"{folder}/a.fvecs", [[1, 2], [3, 4]])
    ...     read_vectors(f"{folder}/a.fvecs", mmap=False)
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    """
    name = file_name(path)
    kind = _kind(name)
    try:
        if kind == ".npy":
            return _read_npy(name, mmap)
        return _read_records(name, np.dtype(_RECORDS[kind]), mmap)
    except StorageError as error:
        raise StorageError(f"{name}: {error}") from None


def write_vectors(path: str | os.PathLike[str], vectors: Any) -> None:
    """Write a matrix of vectors, whole or not at all, in the format that the name ends with.

    ``.npy`` keeps the type of the numbers. ``.fvecs`` rounds them to float32; ``.bvecs`` and
    ``.ivecs`` refuse numbers that they cannot represent.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fr.write_vectors(f"{folder}/two.fvecs", [[1, 2], [3, 4]])
    ...     print(fr.read_vectors(f"{folder}/two.fvecs"))
    [[1. 2.]
     [3. 4.]]
    """
    name = file_name(path)
    kind, matrix = _kind(name), _host(vectors)
    if matrix.ndim != 2:
        raise ValueError(f"vectors must have two dimensions, got shape {matrix.shape}")
    if matrix.dtype.hasobject:
        raise TypeError(f"vectors must be numbers, got dtype {matrix.dtype}")
    step = max(PART_BYTES // max(matrix[:1].nbytes, 1), 1)
    with replacing(name) as file:
        if kind == ".npy":
            header = {**np.lib.format.header_data_from_array_1_0(matrix), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, header)
        for begin in range(0, len(matrix), step):
            part = matrix[begin : begin + step]
            written = np.ascontiguousarray(part) if kind == ".npy" else _records(part, kind)
            file.write(written.reshape(-1).view(np.uint8).data)


def _records(matrix: NDArray[Any], kind: str) -> NDArray[np.uint8]:
    """The bytes of some vectors."""
    item = np.dtype(_RECORDS[kind])
    with np.errstate(all="ignore"):
        stored = matrix.astype(item)
    same = np.isfinite(stored) == np.isfinite(matrix) if item.kind == "f" else stored == matrix
    if not bool(same.all()):
        raise ValueError(f"{kind} holds {item.name}, which cannot represent all of the vectors")
    n, dim = matrix.shape
    records = np.empty((n, _DIM_BYTES + dim * item.itemsize), dtype=np.uint8)
    records[:, :_DIM_BYTES] = np.frombuffer(np.int32(dim).astype("<i4").tobytes(), np.uint8)
    records[:, _DIM_BYTES:] = (
        np.ascontiguousarray(stored).view(np.uint8).reshape(n, dim * item.itemsize)
    )
    return records


def _kind(name: str) -> str:
    kind = Path(name).suffix.lower()
    if kind not in SUFFIXES:
        raise ValueError(f"{name}: the name must end with one of {', '.join(SUFFIXES)}")
    return kind


def _host(vectors: Any) -> NDArray[Any]:
    return np.asarray(vectors.detach().cpu() if hasattr(vectors, "detach") else vectors)


def _read_npy(path: str, mmap: bool) -> NDArray[Any]:
    try:
        matrix = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, MemoryError, OverflowError, TypeError) as error:
        raise StorageError(f"at byte 0: expected an array in NumPy's format: {error}") from None
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2:
        shape = getattr(matrix, "shape", type(matrix).__name__)
        raise StorageError(f"at byte 0: expected an array with two dimensions, found {shape}")
    return matrix


def _read_records(path: str, item: np.dtype[Any], mmap: bool) -> NDArray[Any]:
    size = os.path.getsize(path)
    if size == 0:
        return np.zeros((0, 0), dtype=item)
    raw: NDArray[np.uint8] = (
        np.memmap(path, np.uint8, mode="r") if mmap else np.fromfile(path, np.uint8)
    )
    size = len(raw)
    if size < _DIM_BYTES:
        raise StorageError(
            f"at byte 0: expected {_DIM_BYTES} bytes with the dimension, "
            f"found the end of the file at byte {size}"
        )
    dim = int.from_bytes(raw[:_DIM_BYTES].tobytes(), "little", signed=True)
    if dim < 1:
        raise StorageError(f"at byte 0: expected a dimension of at least 1, found {dim}")
    step = _DIM_BYTES + dim * item.itemsize
    if size % step:
        whole = size - size % step
        raise StorageError(
            f"at byte {whole}: expected {step} bytes of one more vector of "
            f"dimension {dim}, found the end of the file at byte {size}"
        )
    records = raw.reshape(-1, step)
    dims = np.ndarray((len(records),), "<i4", raw, strides=(step,))
    if not bool((dims == dim).all()):
        where = int(np.argmax(dims != dim))
        raise StorageError(
            f"at byte {where * step}: expected the dimension {dim}, found {dims[where]}"
        )
    strides = (step, item.itemsize)
    vectors: NDArray[Any] = np.ndarray((len(records), dim), item, raw, _DIM_BYTES, strides)
    return vectors
