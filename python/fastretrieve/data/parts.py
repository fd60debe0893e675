"""Files that hold many items: what each kind gives, and the source that reads items out of them.

A ``Volume`` is one such file, opened: a ``Part`` that reads its items, their labels and columns.
``idx.py``, ``cifar.py``, ``npz.py``, ``shards.py`` and ``parquet.py`` make volumes; ``archives.py``
finds the files and joins the volumes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data.errors import Skipped, readable
from fastretrieve.data.modalities import Modality, kind_of
from fastretrieve.data.texts import checked_text

ITEM = "#item="  # between the path of a file and the name of an item in it


class Part(Protocol):
    """The items of one file: encoded pictures as bytes, or arrays."""

    path: Path

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The name of an item inside the file."""
        ...

    def read(self, index: int) -> Any:
        """The bytes of an encoded picture, an array, or a text."""
        ...


@dataclass
class Volume:
    """One file of a data set."""

    part: Part
    labels: Sequence[Any] | None = None  # one an item; None where it has none
    classes: Sequence[str] | None = None  # the names of labels that are numbers
    split: str | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


class Rows:
    """The rows of an array in a file, as a part."""

    def __init__(self, path: Path, array: NDArray[Any], *, prefix: str = "") -> None:
        self.path, self.array, self.prefix = path, array, prefix

    def __len__(self) -> int:
        return len(self.array)

    def name(self, index: int) -> str:
        return f"{self.prefix}{index}"

    def read(self, index: int) -> Any:
        return self.array[index]


class Lines:
    """The texts of a file, as a part; ``numbers`` names them, else their positions."""

    def __init__(self, path: Path, texts: Sequence[Any], numbers: Sequence[int] = ()) -> None:
        self.path, self.texts, self.numbers = path, texts, numbers

    def __len__(self) -> int:
        return len(self.texts)

    def name(self, index: int) -> str:
        return str(self.numbers[index] if self.numbers else index)

    def read(self, index: int) -> str:
        return checked_text(self.texts[index], name=f"{self.path}{ITEM}{self.name(index)}")


class Inside:
    """The items of several parts, one after another."""

    def __init__(self, parts: Sequence[Part], *, modality: Modality) -> None:
        self.parts = parts
        self.modality = modality
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _at(self, index: int) -> tuple[Part, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        part = self.parts[number]
        return part, index - int(self._ends[number]) + len(part)

    def place(self, index: int) -> tuple[Path, str]:
        """The file of an item, and the item's name in it."""
        part, row = self._at(index)
        return part.path, part.name(row)

    def key(self, index: int) -> str:
        path, name = self.place(index)
        return readable(f"{path}{ITEM}{name}")

    def content(self, index: int) -> Any:
        """The bytes of an encoded picture, or an array."""
        part, row = self._at(index)
        return part.read(row)

    def read(self, index: int, *, size: int | None) -> Any:
        content = self.content(index)
        if not isinstance(content, bytes):
            return content
        decode = kind_of(self.modality).decode
        return decode(io.BytesIO(content), name=self.key(index), size=size)[0]

    def read_many(self, indices: NDArray[np.int64]) -> Any | None:
        """One array, where all items are rows of arrays of one shape."""
        arrays = [part.array for part in self.parts if isinstance(part, Rows)]
        kinds = {(array.shape[1:], array.dtype) for array in arrays}
        if len(arrays) != len(self.parts) or len(kinds) != 1:
            return None
        ((shape, dtype),) = kinds
        rows = np.asarray(indices, np.int64)
        found: NDArray[Any] = np.empty((len(rows), *shape), dtype)
        numbers = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(numbers):
            here = numbers == number
            start = int(self._ends[number]) - len(arrays[number])
            found[here] = arrays[number][rows[here] - start]
        return found
