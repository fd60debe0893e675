"""Optional tensors of index files: what is learned about all rows, each a row of ``PARTS``.

A file has the version of its newest part, so an older reader refuses it and names the part that it
does not know. A file without parts has version 1. The arrays are those of ``State.learned``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

FIRST_VERSION = 1


class Part(NamedTuple):
    """The type and shape of an optional tensor, and the first version of the format that has it."""

    dtype: str  # as tensorfile.py names it
    shape: tuple[int | str, ...]  # "rows", "dim", a number, or a name for any other size
    version: int

    def fits(self, dtype: str, shape: tuple[int, ...], *, n_rows: int, dim: int) -> bool:
        """Whether a tensor may be this part of an index."""
        known: dict[int | str, int] = {"rows": n_rows, "dim": dim}
        wanted = [known.get(size, size) for size in self.shape]
        return (dtype, len(shape)) == (self.dtype, len(wanted)) and all(
            isinstance(size, str) or size == found
            for size, found in zip(wanted, shape, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


PARTS: dict[str, Part] = {}  # by name; 0.1.0 has none


def newest_version() -> int:
    """The largest version that this reader knows."""
    return version_of(PARTS)


def version_of(names: Iterable[str]) -> int:
    """The version of a file with these parts."""
    return max([FIRST_VERSION, *(PARTS[name].version for name in names)])


def of_version(version: int) -> set[str]:
    """The parts that a file of this version may hold."""
    return {name for name, part in PARTS.items() if part.version <= version}
