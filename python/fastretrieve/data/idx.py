"""IDX files, as MNIST and Fashion-MNIST come, packed with gzip or not.

A header says the kind of numbers and the sizes; it is compared with the size of the file before
anything is read, and with ``arrays.limit`` before anything is unpacked.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data.arrays import refuse_growth
from fastretrieve.data.errors import DataError
from fastretrieve.data.opening import open_file
from fastretrieve.data.parts import Rows, Volume

NAME = re.compile(r"[-._]idx([1-4])(-ubyte)?(\.gz)?$", re.IGNORECASE)
_KINDS = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_GZIP = b"\x1f\x8b"


class _Header(NamedTuple):
    """The kind and sizes of the numbers, and where they begin."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int

    @property
    def n_bytes(self) -> int:
        return self.start + math.prod(self.shape) * self.dtype.itemsize


def is_idx(name: str) -> bool:
    """Whether a file is called as IDX files are.

    >>> [is_idx(name) for name in ("train-images-idx3-ubyte.gz", "t10k-images.idx3-ubyte", "a.png")]
    [True, True, False]
    """
    return NAME.search(name) is not None


def read_header(head: bytes) -> _Header:
    """The header at the start of an IDX file."""
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _KINDS:
        raise DataError(f"not an IDX file of numbers: it begins with {head[:4].hex(' ')}")
    start = 4 + 4 * head[3]
    if len(head) < start:
        raise DataError(f"an IDX header of {head[3]} sizes needs {start} bytes, got {len(head)}")
    shape = tuple(int(size) for size in np.frombuffer(head, ">u4", head[3], 4))
    return _Header(np.dtype(_KINDS[head[2]]), shape, start)


def read_idx(path: Path) -> NDArray[Any]:
    """The numbers of an IDX file; where they lie, if it is not packed."""
    with _naming(path), contextlib.closing(open_file(path)) as file:
        n_bytes = path.stat().st_size
        if file.read(2) == _GZIP:
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _unpacked(unpacked, path, n_bytes)
        file.seek(0)
        header = read_header(file.read(4 + 4 * 255))
        refuse_size(header, n_bytes)
        if header.n_bytes == header.start:
            return np.zeros(header.shape, header.dtype)
        return np.memmap(file, header.dtype, "r", header.start, header.shape)


def refuse_size(header: _Header, n_bytes: int) -> None:
    """Raise unless the file has as many bytes as its header says."""
    if n_bytes != header.n_bytes:
        raise DataError(
            f"an IDX file of shape {header.shape} has {header.n_bytes} bytes, got {n_bytes}"
        )


def _unpacked(file: gzip.GzipFile, path: Path, n_packed: int) -> NDArray[Any]:
    head = file.read(4)
    head += file.read(4 * head[3]) if len(head) == 4 else b""
    header = read_header(head)
    refuse_growth(path, header.n_bytes, n_packed, "unpack it with gunzip")
    wanted = header.n_bytes - header.start
    data = file.read(wanted + 1)  # one more: the end, where the checksum is
    refuse_size(header, header.start + len(data))
    return np.frombuffer(data, header.dtype).reshape(header.shape)


def open_idx(path: Path) -> Volume:
    """The images of an IDX file, with the labels that lie beside it."""
    array = read_idx(path)
    if array.ndim < 3:
        raise DataError(
            f"{path} has shape {array.shape}, which are labels and no items; give the file of the "
            "images, or the folder"
        )
    labels = _labels_beside(path)
    values = None if labels is None else read_idx(labels)
    if values is not None and values.shape != (len(array),):
        raise DataError(
            f"{labels} has shape {values.shape} for {len(array)} items of {path}; one of the two "
            "belongs to another data set"
        )
    return Volume(Rows(path, array), None if values is None else values.tolist())


def is_labels(path: Path) -> bool:
    """Whether the name says that a file holds one number an item."""
    found = NAME.search(path.name)
    return found is not None and found[1] == "1"


def _labels_beside(path: Path) -> Path | None:
    """train-labels-idx1-ubyte of train-images-idx3-ubyte, packed or not."""
    stem = NAME.sub("", path.name)
    wanted = re.sub("images?|data", "labels", stem)
    for end in ("-idx1-ubyte", ".idx1-ubyte", "-idx1", ".idx1", "_idx1-ubyte"):
        for packed in ("", ".gz"):
            beside = path.with_name(f"{wanted}{end}{packed}")
            if beside != path and beside.is_file():
                return beside
    return None


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[IO[bytes] | None]:
    """Faults begin with the path."""
    try:
        yield None
    except DataError as error:
        named = str(error).startswith(str(path))
        raise (error if named else type(error)(f"{path}: {error}")) from error
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path}: not a whole gzip file: {error}") from error
