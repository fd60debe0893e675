"""The contents of an index file: its tensors, their types and shapes, and the facts of its header.

``docs/index-files.md`` describes them for readers elsewhere. ``tensorfile.py`` owns the bytes and
the checksums, ``saving.py`` makes states of them. The header may be hostile: every fact is checked
here.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from fastretrieve import _core
from fastretrieve._common.arrays import DTYPES, DType
from fastretrieve._common.errors import StorageError
from fastretrieve._common.metric import METRICS
from fastretrieve._files.parts import PARTS, newest_version, of_version
from fastretrieve._files.tensorfile import Header
from fastretrieve._state.ids import MAX_ID
from fastretrieve._state.screen import HEAD_UNIT, MAX_HEAD, sizes

FORMAT = "fastretrieve.index"
TENSORS = {"rows", "codes", "ids", "id_order"}  # of version 1; parts.py has the others
TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # what a tensor of rows is called


class Said(NamedTuple):
    """The facts that a new file's header states."""

    version: int
    dim: int
    metric: str
    dtype: DType
    next_id: int
    first_id: int | None  # None: the file holds the ids
    codes: str | None  # None: it holds no codes

    def metadata(self) -> dict[str, str]:
        """The same in the strings of a header."""
        said = {
            "format": FORMAT,
            "version": str(self.version),
            "dim": str(self.dim),
            "metric": self.metric,
            "dtype": self.dtype,
            "next_id": str(self.next_id),
        }
        if self.codes is not None:
            said["codes"] = self.codes
        if self.first_id is not None:
            said["first_id"] = str(self.first_id)
        return said


class IndexFacts:
    """The facts of an index file's header, checked."""

    def __init__(self, header: Header) -> None:
        self.header = header
        version = self._checked_version()
        self.dim = self._number("dim", 1, _core.MAX_DIM)
        self.metric = self._one_of("metric", METRICS)
        self.dtype = self._one_of("dtype", DTYPES)
        self.next_id = self._number("next_id", 0, MAX_ID + 1)
        self.n_rows = self._count_rows()
        self.layout = header.metadata.get("codes")  # None: the file holds no codes
        self.first_id: int | None = None  # None: the file holds the ids
        self.parts = sorted(of_version(version)) if of_version(version) & {*header.tensors} else []
        known = {"rows", *self.parts}
        if self.layout is not None:
            known.add("codes")  # of this shape for readers that know the layout
        if "ids" in header.tensors:
            of_ids = {"ids", "id_order"} & set(header.tensors)
            for name in of_ids:
                self.require(name, "I64", (self.n_rows,))
            known |= of_ids
        else:
            self.first_id = self._number("first_id", 0, max(self.next_id - self.n_rows, 0))
            if self.n_rows > self.next_id:
                raise _wrong("next_id", f"at least {self.n_rows}", str(self.next_id))
        self._check_parts()
        if set(header.tensors) != known:
            raise _wrong("tensors", ", ".join(sorted(known)), ", ".join(sorted(header.tensors)))

    def require(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        """Raise unless the file has this tensor."""
        if name not in self.header.tensors:
            raise _wrong(name, "a tensor of that name", None)
        tensor = self.header.tensors[name]
        if (tensor.dtype, tensor.shape) != (dtype, shape):
            raise _wrong(name, f"{dtype} {shape}", f"{tensor.dtype} {tensor.shape}")

    def wrong_numbers(self, name: str, expected: str, found: str, offset: int = 0) -> StorageError:
        """The error for a wrong number in a tensor, at this byte of it."""
        at = self.header.data + self.header.tensors[name].begin + offset
        return StorageError(f"at byte {at}: expected {expected}, found {found}")

    def _check_parts(self) -> None:
        """All parts or none, each of the shape that follows from the others."""
        if not self.parts:
            return
        for name in self.parts:
            if name not in self.header.tensors:
                raise _wrong(name, "a tensor of that name, as there is one of a screen", None)
        head, leaves = (self._rows_of(name) for name in ("screen_basis", "screen_heads"))
        if head % HEAD_UNIT or not HEAD_UNIT <= head <= MAX_HEAD:
            wanted = f"a multiple of {HEAD_UNIT} rows, up to {MAX_HEAD}"
            raise _wrong("screen_basis", wanted, str(head))
        found = sizes(self.metric, self.dim, head=head, leaves=leaves)
        for name in self.parts:
            self.require(name, PARTS[name].dtype, PARTS[name].shape_of(found))

    def _rows_of(self, name: str) -> int:
        shape = self.header.tensors[name].shape
        return shape[0] if shape else 0

    def _checked_version(self) -> int:
        found = self.header.metadata.get("format")
        if found != FORMAT:
            raise _wrong("format", repr(FORMAT), found)
        version = self._number("version", 1, 2**31)
        if version > newest_version():
            unknown = sorted(set(self.header.tensors) - TENSORS - set(PARTS))
            named = f", with the part {unknown[0][:40]!a}," if unknown else ""
            raise StorageError(
                f"the file has version {version} of the format{named} and this fastretrieve reads "
                f"up to {newest_version()}; load it with a newer one"
            )
        return version

    def _count_rows(self) -> int:
        if "rows" not in self.header.tensors:
            raise _wrong("rows", "a tensor of that name", None)
        n_rows = self._rows_of("rows")
        self.require("rows", TYPES[self.dtype], (n_rows, self.dim))
        return n_rows

    def _number(self, name: str, least: int, most: int) -> int:
        text = self.header.metadata.get(name)
        number = int(text) if text and re.fullmatch("0|[1-9][0-9]{0,18}", text, re.ASCII) else -1
        if not least <= number <= most:
            raise _wrong(name, f"a whole number from {least} to {most}", text)
        return number

    def _one_of(self, name: str, choices: tuple[str, ...]) -> Any:
        value = self.header.metadata.get(name)
        if value not in choices:
            raise _wrong(name, f"one of {', '.join(choices)}", value)
        return value


def _wrong(name: str, expected: str, found: str | None) -> StorageError:
    said = "none" if found is None else ascii(found[:80])
    return StorageError(f"at byte 8: expected the header's {name} to be {expected}, found {said}")
