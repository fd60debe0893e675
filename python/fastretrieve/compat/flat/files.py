"""FAISS's files of flat indexes, read and written byte for byte, without FAISS.

A file is four letters, a header, and vectors; an ``IndexIDMap`` is four letters, a header, the
file of the index in it, and ids. An ``IndexIVFFlat``, which is only read, has the file of its
centres, a map of ids that is not needed, and lists of vectors and ids. All numbers are
little-endian. A file may be hostile: sizes are checked before anything is read, and an error says
at which byte.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._common.arguments import file_name
from fastretrieve._common.atomic import replacing
from fastretrieve.compat.flat.functions import flat_index
from fastretrieve.compat.flat.idmap import IndexIDMap, IndexIDMap2
from fastretrieve.compat.flat.idtable import IdTable
from fastretrieve.compat.flat.indexes import (
    METRIC_INNER_PRODUCT,
    METRIC_L2,
    METRICS,
    Index,
    IndexFlat,
)
from fastretrieve.compat.flat.lists import DirectMap, IndexIVFFlat
from fastretrieve.compat.flat.selectors import Ids

Bytes = NDArray[np.uint8]

IO_FLAG_MMAP = 0x646F0008  # accepted: vectors are copied in any case
IO_FLAG_READ_ONLY = 2

# After four letters. FAISS always writes this number in the two unused words.
_HEADER = np.dtype(
    [
        ("d", "<i4"),
        ("ntotal", "<i8"),
        ("unused", "<i8", 2),
        ("is_trained", "u1"),
        ("metric", "<i4"),
    ]
)
_UNUSED = 1 << 20
_FLAT = {b"IxF2": METRIC_L2, b"IxFI": METRIC_INNER_PRODUCT, b"IxFl": None}
_MAPS: dict[bytes, type[IndexIDMap]] = {b"IxMp": IndexIDMap, b"IxM2": IndexIDMap2}
_IVF = b"IwFl"
_MOST_LISTS = 2**40


def write_index(index: Index, fname: str | os.PathLike[str]) -> None:
    """Write FAISS's file of this index, whole or not at all."""
    with replacing(file_name(fname, "fname")) as file:
        for part in _parts(index):
            file.write(part.data)


def read_index(fname: str | os.PathLike[str], io_flags: int = 0) -> Index:
    """Read a file that FAISS or :func:`write_index` wrote."""
    name = file_name(fname, "fname")
    size = os.path.getsize(name)
    data = np.memmap(name, np.uint8, mode="r") if size else np.zeros(0, np.uint8)
    try:
        return deserialize_index(data)
    except RuntimeError as error:
        raise RuntimeError(f"{name}: {error}") from None


def serialize_index(index: Index) -> Bytes:
    """The bytes of the file.

    >>> index = IndexFlat(2)
    >>> index.add(np.eye(2))
    >>> deserialize_index(serialize_index(index)).reconstruct(1)
    array([0., 1.], dtype=float32)
    """
    return np.concatenate([part.view(np.uint8).reshape(-1) for part in _parts(index)])


def deserialize_index(data: Bytes) -> Index:
    """The index in the bytes of a file."""
    reader = _Reader(np.asarray(data))
    index = reader.index()
    if reader.at != len(reader.data):
        raise reader.error(reader.at, "the end of the file", f"{reader.left} more bytes")
    return index


def _parts(index: Index) -> list[NDArray[Any]]:
    """The arrays whose bytes are the file."""
    header = np.zeros(1, _HEADER)
    header["d"], header["ntotal"], header["metric"] = index.d, index.ntotal, index.metric_type
    header["unused"], header["is_trained"] = _UNUSED, 1
    if isinstance(index, IndexIDMap):
        kind = b"IxM2" if isinstance(index, IndexIDMap2) else b"IxMp"
        ids = index.id_map.astype("<i8")
        return [_letters(kind), header, *_parts(index.index), _size(ids), ids]
    if isinstance(index, IndexIVFFlat):
        raise TypeError(
            "an IndexIVFFlat has no centres that FAISS's file could hold; pickle it, or save "
            "index.exact, or write an IndexFlat"
        )
    if not isinstance(index, IndexFlat):
        raise TypeError(f"wants an index of this module, got {index!r}")
    kind = next(letters for letters, metric in _FLAT.items() if metric == index.metric_type)
    vectors = index.reconstruct_n().astype("<f4", copy=False)
    return [_letters(kind), header, _size(vectors), vectors]


def _letters(kind: bytes) -> Bytes:
    return np.frombuffer(kind, np.uint8)


def _size(array: NDArray[Any]) -> NDArray[Any]:
    return np.array([array.size], "<u8")


class _Reader:
    """Takes one thing after the other."""

    def __init__(self, data: Bytes) -> None:
        if data.dtype != np.uint8 or data.ndim != 1:
            raise TypeError(f"data must be uint8 with one dimension, got {data.dtype} {data.shape}")
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def error(self, at: int, expected: str, found: str) -> RuntimeError:
        return RuntimeError(f"at byte {at}: expected {expected}, found {found}")

    def take(self, n_bytes: int, what: str) -> Bytes:
        if n_bytes > self.left:
            raise self.error(
                self.at, f"{n_bytes} bytes of {what}", f"the end of the file after {self.left}"
            )
        self.at += n_bytes
        return self.data[self.at - n_bytes : self.at]

    def numbers(self, dtype: str, wanted: int, what: str) -> NDArray[Any]:
        """As many as the file says, which must be as many as its header promised."""
        begin = self.at
        n = self.whole(what)
        if n != wanted:
            raise self.error(begin, f"the number of {what} to be {wanted}", str(n))
        return self.take(n * np.dtype(dtype).itemsize, what).view(dtype)

    def index(self) -> Index:
        begin = self.at
        kind = self.take(4, "letters that name the kind of index").tobytes()
        if kind == _IVF:
            return self.lists()
        if kind not in _MAPS:
            return self.flat(kind, begin)
        header = self.header()
        inside = self.at
        flat = self.flat(self.take(4, "letters that name a flat index").tobytes(), inside)
        if (flat.d, flat.ntotal) != (header["d"], header["ntotal"]):
            raise self.error(inside, f"an index of {header['ntotal']} vectors", str(flat.ntotal))
        mapped = _MAPS[kind](flat_index(flat.d, flat.metric_type))
        mapped.index = flat
        mapped._table = IdTable(self.numbers("<i8", flat.ntotal, "ids").astype(np.int64))
        return mapped

    def lists(self) -> IndexIVFFlat:
        """FAISS's lists as one index, its vectors in order of their ids."""
        header, begin = self.header(), self.at
        metric = int(header["metric"])  # that of the centres may be another
        if metric not in METRICS:
            raise self.error(begin - 4, "inner products or L2", f"metric {metric}")
        nlist, nprobe = self.whole("lists"), self.whole("lists to read")
        if not 1 <= nlist <= _MOST_LISTS:
            raise self.error(begin, "a number of lists", str(nlist))
        inside = self.at
        centres = self.flat(self.take(4, "letters that name a flat index").tobytes(), inside)
        if centres.d != header["d"] or centres.ntotal not in {0, nlist}:
            raise self.error(inside, f"an index of {nlist} centres", repr(centres))
        self.direct_map()
        vectors, ids = self.inverted(nlist, centres.d, int(header["ntotal"]))
        index = IndexIVFFlat(centres, centres.d, nlist, metric)
        index.is_trained = True
        if len(ids):
            order = np.argsort(ids, kind="stable")
            index.add_with_ids(vectors[order], ids[order])
        index.is_trained, index.nprobe = bool(header["is_trained"]), nprobe
        return index

    def direct_map(self) -> None:
        """Pass over FAISS's ways from ids to lists."""
        kind = int(self.take(1, "the kind of map")[0])
        self.take(8 * self.whole("places of ids"), "places of ids")
        if kind == DirectMap.Hashtable:
            self.take(16 * self.whole("pairs of ids and places"), "pairs of ids and places")

    def inverted(self, nlist: int, d: int, n: int) -> tuple[NDArray[np.float32], Ids]:
        """The vectors and ids of all lists."""
        begin = self.at
        if self.take(4, "letters that name lists").tobytes() != b"ilar":
            raise self.error(begin, "lists in this file (ilar)", "others")
        if (self.whole("lists"), self.whole("bytes of a vector")) != (nlist, 4 * d):
            raise self.error(begin, f"{nlist} lists of vectors of {4 * d} bytes", "others")
        kind, begin = self.take(4, "the kind of sizes").tobytes(), self.at
        if kind not in {b"full", b"sprs"}:
            raise self.error(begin - 4, "sizes of lists (full, sprs)", repr(kind))
        n_sizes = self.whole("sizes of lists")
        sizes = self.take(8 * n_sizes, "sizes of lists").view("<u8").tolist()
        if kind == b"sprs":
            sizes = sizes[1::2]  # beside the numbers of the lists
        if sum(sizes) != n or len(sizes) > nlist:
            raise self.error(begin, f"sizes of lists of {n} vectors", f"those of {sum(sizes)}")
        if n * (4 * d + 8) > self.left:
            raise self.error(self.at, f"{n} vectors and ids", f"the end after {self.left} bytes")
        vectors, ids = np.empty((n, d), np.float32), np.empty(n, np.int64)
        at = 0
        for size in filter(None, sizes):
            part = slice(at, at := at + size)
            vectors[part] = self.take(4 * d * size, "vectors").view("<f4").reshape(size, d)
            ids[part] = self.take(8 * size, "ids").view("<i8")
        return vectors, ids

    def whole(self, what: str) -> int:
        return int(self.take(8, f"the number of {what}").view("<u8")[0])

    def flat(self, kind: bytes, begin: int) -> IndexFlat:
        if kind not in _FLAT:
            known = ", ".join(letters.decode() for letters in (*_FLAT, *_MAPS, _IVF))
            raise self.error(begin, f"a flat index ({known})", repr(kind))
        header = self.header()
        d, n, metric = int(header["d"]), int(header["ntotal"]), int(header["metric"])
        if metric not in METRICS or _FLAT[kind] not in (None, metric):
            raise self.error(begin, "inner products or L2", f"metric {metric}")
        values = self.numbers("<f4", n * d, "numbers of vectors")
        index = flat_index(d, metric)
        if n:
            index.add(values.reshape(n, d))
        return index

    def header(self) -> Any:
        begin = self.at
        header = self.take(_HEADER.itemsize, "a header").view(_HEADER)[0]
        if not 1 <= header["d"] <= _core.MAX_DIM:
            raise self.error(begin, f"a dimension from 1 to {_core.MAX_DIM}", str(header["d"]))
        if header["ntotal"] < 0:
            raise self.error(begin + 4, "a number of vectors", str(header["ntotal"]))
        return header
