"""The screen of a state: a few numbers of each row, which prove that most rows cannot place.

``Index.optimize`` makes it (``screening.py``), the core reads it (``csrc/core/screen.hpp``), files
hold it as optional tensors. It names rows by their slots, which never change while their slab
lives. So adding, removing and updating keep the screen: the live bits of a segment say which of its
rows are gone, and rows that came later are in no leaf. Compacting and saving give rows other slots,
and the screen moves with them. It goes when the last of its rows goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._backends.snapshot import Bits
from fastretrieve._common.arrays import unpack
from fastretrieve._state.segments import Segment
from fastretrieve._state.slabs import STRIP_ROWS

PLACES = "screen_places"  # the slot of the row at each position, -1 for none
HEADS = "screen_heads"  # strips of lattice codes, 64 rows each
RECALL = "screen_recall"  # shares of true neighbours in the nearest leaves: recall.py
RECORDS = "screen_records"  # the int8 codes and bounds of each row
HEAD_UNIT, MAX_HEAD = 16, 256  # numbers of a head are a multiple of one, up to the other
MAX_SLOT = np.iinfo(np.int32).max  # that a place can name

Arrays = Mapping[str, NDArray[Any]]


class Screen:
    """Named arrays about rows, and what the core made of them. It never changes."""

    def __init__(self, metric: str, dim: int, arrays: Arrays, *, is_proved: bool = True) -> None:
        views = {name: array.view() for name, array in arrays.items()}
        for view in views.values():
            view.setflags(write=False)
        self.metric = metric
        self.dim = dim
        self.arrays: Arrays = MappingProxyType(views)
        if not bool(((views[RECALL] >= 0) & (views[RECALL] <= 1)).all()):
            raise ValueError(f"{RECALL} must hold shares from 0 to 1")
        self.native = _core.Screen(metric=metric, dim=dim, arrays=views)
        self.is_proved = is_proved  # False for an unverified one of a file: checking.py
        self.places: NDArray[np.int32] = views[PLACES]
        self.n_rows = int(np.count_nonzero(self.places >= 0))
        self.n_leaves = len(self.places) // STRIP_ROWS
        self.known_probes: dict[tuple[float, int], int] = {}  # of recall.probes_for
        self._covered: dict[tuple[int, int], Bits | None] = {}

    def __repr__(self) -> str:
        return f"screen(head={self.head}, leaves={self.n_leaves}, rows={self.n_rows})"

    @property
    def head(self) -> int:
        """Numbers in the head of a row."""
        return len(self.arrays["screen_basis"])

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def covered(self, segment: Segment) -> Bits | None:
        """Which rows of the slab of a segment the screen knows; None: none."""
        slot, capacity = key = (segment.slab.slot, segment.slab.capacity)
        if key not in self._covered:
            here = self.places[(self.places >= slot) & (self.places < slot + capacity)]
            words = None
            if len(here):
                words = np.zeros((1, -(-capacity // 64)), np.uint64)
                numbers = here.astype(np.int64)[None]
                _core.mark_rows(numbers, first=slot, n_rows=capacity, words=words)
                words = words[0]
            self._covered.setdefault(key, words)
        return self._covered[key]

    def n_live(self, segments: Iterable[Segment]) -> int:
        """How many of its rows have not been removed."""
        total = 0
        for segment in segments:
            words = self.covered(segment)
            if words is not None:
                alive = words if segment.live is None else words & segment.live
                total += int(np.count_nonzero(unpack(alive, 64 * len(alive))))
        return total

    def first_wrong(self, backend: Any, native: _core.Segments) -> int:
        """The first position whose head and record are not those of its row in segments with this
        screen, or -1. Only the backend of the CPU can tell.
        """
        return int(backend.check_screen(native, self.native))

    def places_after(self, new_slots: NDArray[np.int64]) -> NDArray[np.int32]:
        """The places when the row of each slot has moved to another, or to -1, where none is."""
        moved = new_slots[self.places]
        moved[(self.places < 0) | (moved > MAX_SLOT)] = -1
        return moved.astype(np.int32)

    def moved(self, new_slots: NDArray[np.int64]) -> Screen | None:
        """The screen of the same rows at other slots; None if none of them is left."""
        places = self.places_after(new_slots)
        if not bool((places >= 0).any()):
            return None
        arrays = {**self.arrays, PLACES: places}
        return Screen(self.metric, self.dim, arrays, is_proved=self.is_proved)


def slots_of(segments: Sequence[Segment]) -> list[int]:
    """The slot of the first row of each segment."""
    return [segment.slab.slot for segment in segments]


def sizes(metric: str, dim: int, *, head: int, leaves: int) -> dict[str, int]:
    """The sizes that the shapes of ``TENSORS`` name."""
    return {
        "lifted": dim + (metric == "ip"),
        "head": head,
        "head strip": STRIP_ROWS * head + 4 * STRIP_ROWS,
        "leaves": leaves,
        "leaves / 64": -(-leaves // 64),
        "leaves / 16": -(-leaves // 16),
        "positions": STRIP_ROWS * leaves,
        "record": _core.record_bytes(dim, metric),
    }


# The type of each array, as files name it, and its shape.
TENSORS: dict[str, tuple[str, tuple[int | str, ...]]] = {
    HEADS: ("U8", ("leaves", "head strip")),
    "screen_centres": ("U8", ("leaves / 64", "head strip")),
    "screen_boxes": ("F32", ("leaves / 16", 16, 2, 16)),
    RECORDS: ("U8", ("positions", "record")),
    PLACES: ("I32", ("positions",)),
    "screen_numbers": ("F64", (8,)),
    "screen_basis": ("F32", ("head", "lifted")),
    "screen_tail": ("F32", ("head",)),
    "screen_axes": ("F32", (16, "head")),
    "screen_mean": ("F32", ("lifted",)),
    RECALL: ("F32", (3, 129)),
}
