"""Arrays in files: ``.npy`` and ``.npz``, whose headers are checked before anything is made.

Nothing is unpickled. An ``.npy`` file holds exactly what its header says. One item has at most
``MAX_BYTES``; the parts of an ``.npz`` file together at most ten times its size or 256 MiB, since a
kilobyte of deflated zeros makes a megabyte.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data.errors import DataError, TooLarge
from fastretrieve.data.opening import open_file

MAX_BYTES = 1 << 30  # of one item
FREE_BYTES = 256 << 20  # that any .npz file may hold
GROWTH = 10  # times its size that a larger one may hold

_HEADERS: Any = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class _Header(NamedTuple):
    """The header of an array."""

    shape: tuple[int, ...]
    is_transposed: bool
    dtype: np.dtype[Any]

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_array(path: Path) -> NDArray[Any]:
    """An array from an .npy file, as one item."""
    with _naming(path, "array"), contextlib.closing(open_file(path)) as file:
        header = _checked(file, path.stat().st_size)
        if header.n_bytes > MAX_BYTES:
            raise TooLarge(f"{path}: {header.n_bytes:,} bytes, at most {MAX_BYTES:,} go")
        return _values(file, header)


def map_array(path: Path) -> NDArray[Any]:
    """The array of an .npy file where it lies: its values are read when they are needed."""
    with _naming(path, "array"), contextlib.closing(open_file(path)) as file:
        header = _checked(file, path.stat().st_size)
        if header.n_bytes == 0:
            return np.zeros(header.shape, header.dtype)
        order: Any = "F" if header.is_transposed else "C"
        return np.memmap(file, header.dtype, "r", file.tell(), header.shape, order)


def read_arrays(path: Path, names: Iterable[str]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The arrays of an .npz file with these names, and the names of all its arrays."""
    with (
        _naming(path, ".npz file"),
        contextlib.closing(open_file(path)) as file,
        zipfile.ZipFile(file) as archive,
    ):
        listed = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        chosen = {name: listed[name] for name in names if name in listed}
        total = sum(info.file_size for info in chosen.values())
        n_packed = path.stat().st_size
        refuse_growth(path, total, n_packed, "save it with np.savez, which does not compress")
        return {name: _member(archive, info) for name, info in chosen.items()}, sorted(listed)


def refuse_growth(path: Path, n_bytes: int, n_packed: int, what_to_do: str) -> None:
    """Raise where a packed file would become too many bytes."""
    limit = max(GROWTH * n_packed, FREE_BYTES)
    if n_bytes > limit:
        raise TooLarge(
            f"{path}: {n_bytes:,} bytes once it is unpacked, at most {limit:,} go; {what_to_do}"
        )


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as file:
        return _values(file, _checked(file, info.file_size))


def _checked(file: IO[bytes], n_bytes: int) -> _Header:
    """The header; an error if the file does not hold the values that it announces."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} is for arrays with named fields, which are no items")
    header = _Header(*_HEADERS[version](file))
    if header.dtype.hasobject or header.dtype.itemsize == 0 or header.dtype.fields:
        raise ValueError(
            f"an array holds numbers or text, got {header.dtype}; nothing is unpickled"
        )
    if header.n_bytes != n_bytes - file.tell():
        raise ValueError(
            f"its header says {header.n_bytes:,} bytes (shape {header.shape}, {header.dtype}), it "
            f"holds {n_bytes - file.tell():,}"
        )
    return header


def _values(file: IO[bytes], header: _Header) -> NDArray[Any]:
    values: NDArray[Any] = np.empty(math.prod(header.shape), header.dtype)
    raw: Any = values.view(np.uint8) if values.nbytes else bytearray()
    into = memoryview(raw)
    at = 0
    while at < len(into):
        got = file.readinto(into[at : at + (1 << 24)])  # type: ignore[attr-defined]
        if not got:
            raise ValueError(f"it ends after {at:,} bytes of {len(into):,}")
        at += got
    order: Any = "F" if header.is_transposed else "C"
    return values.reshape(header.shape, order=order)


@contextlib.contextmanager
def _naming(path: Path, kind: str) -> Iterator[None]:
    """Turn every fault of a file into a ``DataError``."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # zlib, zipfile, ast and NumPy raise anything at all
        raise DataError(f"{path}: not a readable {kind}: {error}") from error
