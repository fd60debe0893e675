"""Files of named tensors: safetensors, with checksums.

A file is eight bytes with the length of a JSON header, the header, and the tensors one after the
other; any safetensors reader can read it. ``docs/index-files.md`` describes every byte. A file may
be hostile: it is checked before it is used, and every error says at which byte the file is not what
was expected. ``indexfile.py`` knows what the tensors of an index mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._backends.memory import empty
from fastretrieve._common.errors import StorageError
from fastretrieve._common.progress import Progress
from fastretrieve._files import checksums
from fastretrieve._files.checksums import (
    HEADER_SUM,
    NO_SUM,
    Checksums,
    checksum,
    dumped,
    header_sum,
    sum_name,
)

ALIGNMENT = 64  # of the first tensor: a cache line
# Our headers take a kilobyte and eight bytes for each chunk. A reader allows many times that, but
# not the 100 MB of safetensors, which Python needs seconds and gigabytes to parse.
MAX_HEADER_BYTES = 1 << 16  # and as much again for every:
BYTES_PER_HEADER = 1 << 34
MAX_TENSORS = 64
MAX_RANK = 8
ITEM_BYTES = {"U8": 1, "I32": 4, "I64": 8, "F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_NUMPY = {"U8": "u1", "I32": "<i4", "I64": "<i8", "F64": "<f8", "F32": "<f4"}
_NUMPY |= {"F16": "<f2", "BF16": "<u2"}
PART_BYTES = 16 << 20  # that are copied at a time


class Tensor(NamedTuple):
    """The place of a tensor; its bytes count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """The header of a file."""

    metadata: dict[str, str]
    tensors: dict[str, Tensor]
    data: int  # the byte at which the first tensor begins


class NewTensor(NamedTuple):
    """A tensor to write."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    parts: Callable[[], Iterable[NDArray[Any]]]  # its contents, in order

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


# --- reading --------------------------------------------------------------------------------------


def read_header(buffer: Any) -> Header:
    """Check everything about a file but the numbers in its tensors."""
    view = memoryview(buffer)
    size = len(view)
    if size < 8:
        raise _error(size, "8 bytes with the length of the header", "the end of the file")
    length = int.from_bytes(view[:8], "little")
    most = min(MAX_HEADER_BYTES * (1 + size // BYTES_PER_HEADER), size - 8)
    if length > most:
        raise _error(0, f"the length of a header of at most {most} bytes", str(length))
    raw = _parsed(bytes(view[8 : 8 + length]))
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _error(8, "__metadata__ to be an object of strings", _short(metadata))
    if len(raw) > MAX_TENSORS:
        raise _error(8, f"at most {MAX_TENSORS} tensors", str(len(raw)))
    tensors = {name: _tensor(name, entry) for name, entry in raw.items()}
    _check_layout(tensors, 8 + length, size)
    _check_header_sum(metadata, raw)
    return Header(metadata, tensors, 8 + length)


def array(buffer: Any, header: Header, name: str) -> NDArray[Any]:
    """A tensor as a view of the buffer; bfloat16 as its bits."""
    tensor = header.tensors[name]
    if tensor.begin == tensor.end:
        return np.zeros(tensor.shape, dtype=_NUMPY[tensor.dtype])
    result: NDArray[Any] = np.ndarray(
        tensor.shape, _NUMPY[tensor.dtype], buffer=buffer, offset=header.data + tensor.begin
    )
    # Kernels read codes as float32. Our files begin large tensors at multiples of 8, as others may
    # not.
    return result if result.__array_interface__["data"][0] % 8 == 0 else result.copy()


def copied(part: NDArray[Any]) -> NDArray[Any]:
    """A tensor in memory of our own."""
    result = empty(part.shape, part.dtype)
    step = max(PART_BYTES // max(part[:1].nbytes, 1), 1)
    for begin in range(0, len(part), step):
        result[begin : begin + step] = part[begin : begin + step]
    return result


def verify(buffer: Any, header: Header, tell: Callable[[int], object] | None = None) -> None:
    """Compare every byte of the tensors with its checksum. ``tell`` is called with how many more
    bytes are done.
    """
    view = memoryview(buffer)
    for name, tensor in header.tensors.items():
        begin, end = header.data + tensor.begin, header.data + tensor.end
        chunks = range(begin, end, checksums.CHUNK_BYTES)
        sums = header.metadata.get(sum_name(name), "")
        if len(sums) != 8 * len(chunks):
            raise _error(8, f"{len(chunks)} checksums for {name[:40]}", f"{len(sums) / 8:g}")
        for i, at in enumerate(chunks):
            found = checksum(view[at : min(at + checksums.CHUNK_BYTES, end)])
            wanted, n_bytes = sums[8 * i : 8 * i + 8], min(checksums.CHUNK_BYTES, end - at)
            if found != wanted:
                raise _error(
                    at,
                    f"{n_bytes} bytes of {name[:40]} with the checksum {_plain(wanted)}",
                    f"{found}; the file is damaged",
                )
            if tell is not None:
                tell(n_bytes)


def _error(at: int, expected: str, found: str) -> StorageError:
    return StorageError(f"at byte {at}: expected {expected}, found {found}")


def _plain(text: str) -> str:
    """Text of a file that is safe to print on any terminal."""
    return text.encode("ascii", "backslashreplace").decode()


def _short(value: Any) -> str:
    """The beginning of a value in a file."""
    try:
        return _plain(repr(value)[:80])
    except RecursionError:  # the parser may go deeper than this
        return f"a deep {type(value).__name__}"


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise _error(8 + error.start, "a header in UTF-8", error.reason) from None
    except json.JSONDecodeError as error:
        raise _error(8 + error.pos, "a header in JSON", error.msg) from None
    except StorageError:
        raise
    except (ValueError, RecursionError) as error:  # numbers or nesting beyond Python's limits
        raise _error(8, "a header in JSON", str(error)) from None
    if not isinstance(header, dict):
        raise _error(8, "a header that is a JSON object", type(header).__name__)
    return header


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _error(8, "different names in the header", "one of them twice")
    return result


def _no_constant(name: str) -> None:
    raise _error(8, "a header in JSON", name)


def _tensor(name: str, entry: Any) -> Tensor:
    where = f"tensor {name[:40]!a}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _error(8, f"{where} to have dtype, shape and data_offsets", _short(entry))
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise _error(8, f"{where} to have a dtype of {', '.join(ITEM_BYTES)}", _short(dtype))
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise _error(8, f"{where} to have sizes and two offsets", _short((shape, offsets)))
    if len(shape) > MAX_RANK:
        raise _error(8, f"{where} to have at most {MAX_RANK} dimensions", str(len(shape)))
    begin, end = offsets
    n_bytes = math.prod(shape) * ITEM_BYTES[dtype]
    if end - begin != n_bytes:
        raise _error(8, f"{where} of shape {shape} to take {n_bytes} bytes", str(end - begin))
    return Tensor(dtype, tuple(shape), begin, end)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(number) is int and 0 <= number < 2**62 for number in value
    )


def _check_layout(tensors: dict[str, Tensor], data: int, size: int) -> None:
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if tensor.begin != end:
            raise _error(8, f"tensor {name[:40]!a} to begin at {end}", str(tensor.begin))
        end = tensor.end
    if size < data + end:
        raise _error(size, f"{data + end - size} more bytes of tensors", "the end of the file")
    if size > data + end:
        raise _error(data + end, "the end of the file", f"{size - data - end} more bytes")


def _check_header_sum(metadata: dict[str, str], raw: dict[str, Any]) -> None:
    if HEADER_SUM not in metadata:
        raise _error(8, f"{HEADER_SUM} in __metadata__", "none: this file was not written here")
    wanted = header_sum({"__metadata__": {**metadata, HEADER_SUM: NO_SUM}, **raw})
    if metadata[HEADER_SUM] != wanted:
        raise _error(
            8,
            f"a header with the checksum {_plain(metadata[HEADER_SUM][:8])}",
            f"{wanted}; the file is damaged",
        )


# --- writing --------------------------------------------------------------------------------------


def write(
    file: IO[bytes],
    metadata: dict[str, str],
    sources: list[NewTensor],
    progress: Progress | None = None,
) -> None:
    """Write a file: room for the header, the tensors, then the header with their checksums."""
    sums = {source.name: NO_SUM * -(-source.n_bytes // checksums.CHUNK_BYTES) for source in sources}
    room = len(_header(metadata, sources, sums))
    file.write(bytes(room))
    done, total = 0, sum(source.n_bytes for source in sources)
    for source in sources:
        chunks = Checksums()
        for part in source.parts():
            data = np.ascontiguousarray(part).view(np.uint8).reshape(-1)
            chunks.add(data)
            file.write(data.data)
            done += len(data)
            if progress is not None:
                progress(done, total)
        if chunks.n_bytes != source.n_bytes:
            raise ValueError(f"{source.name} has {chunks.n_bytes} bytes, not {source.n_bytes}")
        sums[source.name] = chunks.text()
    file.seek(0)
    file.write(_header(metadata, sources, sums))


def _header(metadata: dict[str, str], sources: list[NewTensor], sums: dict[str, str]) -> bytes:
    tensors: dict[str, Any] = {}
    begin = 0
    for source in sources:
        end = begin + source.n_bytes
        offsets = [begin, end]
        tensors[source.name] = {
            "dtype": source.dtype,
            "shape": list(source.shape),
            "data_offsets": offsets,
        }
        begin = end
    summed = {sum_name(name): text for name, text in sums.items()}
    header = {"__metadata__": {**metadata, **summed, HEADER_SUM: NO_SUM}, **tensors}
    header["__metadata__"][HEADER_SUM] = header_sum(header)
    text = dumped(header)
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
