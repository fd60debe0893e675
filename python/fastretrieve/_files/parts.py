"""Optional tensors of index files: those of the screen that ``Index.optimize`` makes.

A file has the version of its newest part, so an older reader refuses it and names a part that it
does not know. A file without parts has version 1. ``_state/screen.py`` says what the arrays are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fastretrieve._state.screen import TENSORS

FIRST_VERSION = 1


class Part(NamedTuple):
    """The type and shape of an optional tensor, and the first version of the format that has it."""

    dtype: str  # as tensorfile.py names it
    shape: tuple[int | str, ...]  # numbers, or names of sizes
    version: int

    def shape_of(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Its shape where the named sizes are these."""
        return tuple(size if isinstance(size, int) else sizes[size] for size in self.shape)


PARTS = {name: Part(dtype, shape, version=2) for name, (dtype, shape) in TENSORS.items()}


def newest_version() -> int:
    """The largest version that this reader knows."""
    return version_of(PARTS)


def version_of(names: Iterable[str]) -> int:
    """The version of a file with these parts."""
    return max([FIRST_VERSION, *(PARTS[name].version for name in names)])


def of_version(version: int) -> set[str]:
    """The parts that a file of this version may hold."""
    return {name for name, part in PARTS.items() if part.version <= version}
