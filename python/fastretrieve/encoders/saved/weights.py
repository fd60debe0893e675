"""The header of ``weights.safetensors``, checked before any tensor is read or made.

safetensors' own reader reads the tensors afterwards. This module checks that sizes fit the file,
that names differ, and that shapes are possible.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import IO, Any, NamedTuple

from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.saved.opening import ordinary_file, printable, read_object

MAX_HEADER_BYTES = 16 << 20  # Python needs 24 times as much for it at worst
MAX_DIMENSIONS = 32  # of a tensor, as in NumPy 1
METADATA = "__metadata__"
# fmt: off
ITEM_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}
# fmt: on


class Entry(NamedTuple):
    """A tensor in the file."""

    dtype: str  # safetensors' name of it
    shape: tuple[int, ...]


def read_entries(path: Path) -> dict[str, Entry]:
    """Every tensor of the file, by name; an ``EncoderError`` where the file is not sound."""
    with ordinary_file(path) as file:
        return entries_of(file, path)


def entries_of(file: IO[bytes], path: Path) -> dict[str, Entry]:
    """The same for an open file."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    most = min(size - 8, MAX_HEADER_BYTES)
    if length > most:
        raise _fault(path, f"its header would take {length} bytes, of at most {max(most, 0)}")
    raw = read_object(path, file.read(length))
    raw.pop(METADATA, None)
    spans, entries = [], {}
    for name, value in raw.items():
        entries[name], begin, end = _entry(path, name, value)
        spans.append((begin, end))
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise _fault(path, f"a tensor begins at byte {begin} of the data, not at {at}")
        at = end
    if 8 + length + at != size:
        raise _fault(path, f"its tensors end at byte {8 + length + at}, the file at {size}")
    return entries


def _entry(path: Path, name: str, value: Any) -> tuple[Entry, int, int]:
    shown = printable(name[:60])
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _fault(path, f"tensor {shown!r} has no dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        raise _fault(path, f"tensor {shown!r} is of no dtype that is known here")
    if not _are_sizes(shape, MAX_DIMENSIONS) or not _are_sizes(offsets, 2) or len(offsets) != 2:
        raise _fault(path, f"tensor {shown!r} has no shape and offsets that can be")
    begin, end = offsets
    n_bytes = math.prod(shape) * ITEM_BITS[dtype] // 8
    if end - begin != n_bytes:
        raise _fault(path, f"tensor {shown!r} should take {n_bytes} bytes, not {end - begin}")
    return Entry(dtype, tuple(shape)), begin, end


def _are_sizes(value: Any, most: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(type(number) is int and 0 <= number < 2**62 for number in value)
    )


def _fault(path: Path, what: str) -> EncoderError:
    return EncoderError(f"{path} is damaged: {what}; restore it")
