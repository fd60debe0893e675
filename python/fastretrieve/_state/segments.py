"""Immutable segments: the rows of a slab that are published.

What has been published is never written again, so a :class:`Segment`, the first rows of its slab,
stays true forever. ``state.py`` joins segments, ``changes.py`` makes the next ones.

An update writes a new row, at the end. Its origin says where the id began: the rows of an index are
listed in order of their origins.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._backends.memory import HOST
from fastretrieve._backends.snapshot import Bits
from fastretrieve._common.arrays import Rows, address, core_matrix, unpack
from fastretrieve._state.slabs import Slab


class Segment(NamedTuple):
    """The first rows of a slab, as they were when the segment was made."""

    slab: Slab
    n_rows: int
    n_strips: int
    live: Bits | None  # None: none removed; else for the whole slab, rows to come are live
    n_live: int
    began: NDArray[np.int64] | None = None  # for the whole slab, the slots at which ids began;
    # None: each at that of its row

    @property
    def rows(self) -> Rows:
        """The memory of the rows, and of the rows that may follow."""
        return self.slab.rows

    @property
    def codes(self) -> NDArray[np.uint8]:
        """The memory of their codes."""
        return self.slab.codes

    @property
    def is_proved(self) -> bool:
        """Whether its rows are known to be finite and its codes to belong to them: checking.py."""
        return self.slab.is_finite and self.slab.has_own_codes

    @property
    def free(self) -> int:
        """Rows that still fit the slab."""
        return self.slab.capacity - self.n_rows

    def part(self) -> tuple[_core.Segment, list[Any]]:
        """The segment as the core sees it, and the memory of the device that its kernels read."""
        slab = self.slab
        placed = slab.form.memory.placed
        ids = None if slab.ids is None else placed(slab.ids[: self.n_rows])
        live = None if self.live is None else placed(self.live)
        native = _core.Segment(
            rows=core_matrix(slab.rows[: self.n_rows]),
            codes=address(slab.codes),
            n_strips=self.n_strips,
            ids=address(ids),
            first_id=slab.first_id,
            live=address(live),
            owner=(slab, ids, live),
        )
        return native, [ids, live]

    def row_ids(self) -> NDArray[np.int64]:
        """The id of every row, removed ones included."""
        if self.slab.ids is None:
            return np.arange(self.slab.first_id, self.slab.first_id + self.n_rows)
        return self.slab.ids[: self.n_rows]

    def origins(self) -> NDArray[np.int64]:
        """The slot at which the id of every row began, removed ones included."""
        began = self.began
        return self.slab.slots(0, self.n_rows) if began is None else began[: self.n_rows]

    def live_mask(self) -> NDArray[np.bool_]:
        """Which rows have not been removed."""
        return (
            np.ones(self.n_rows, dtype=bool)
            if self.live is None
            else unpack(self.live, self.n_rows)
        )

    def alive(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these rows have not been removed."""
        if self.live is None:
            return np.ones(len(rows), dtype=bool)
        bits = self.live.view(np.uint8)[rows >> 3] >> (rows & 7).astype(np.uint8)
        return np.asarray(bits & 1 == 1)

    def holds(self, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these slots are rows of this segment, removed ones included."""
        return (slots >= self.slab.slot) & (slots < self.slab.slot + self.n_rows)

    def without(self, rows: NDArray[np.int64]) -> Segment:
        """The segment after these live rows were removed."""
        live = all_live(self.slab.capacity) if self.live is None else self.live.copy()
        if len(rows) == 1:
            row = int(rows[0])
            live.view(np.uint8)[row >> 3] &= 255 ^ 1 << (row & 7)
        else:
            gone = np.zeros((1, len(live)), np.uint64)
            _core.mark_rows(rows[None, :], first=0, n_rows=self.slab.capacity, words=gone)
            live &= ~gone[0]
        return self._replace(live=live, n_live=self.n_live - len(rows))

    def grown(self, added: int, origins: NDArray[np.int64] | None = None) -> Segment:
        """The segment with the next ``added`` rows, which are written already and encoded here.
        ``origins`` are those of the rows whose place they take.
        """
        slab, before, n_rows = self.slab, self.n_rows, self.n_rows + added
        began = self.began
        if origins is not None and began is None:
            began = HOST.empty((slab.capacity,), np.int64)
            began[:before] = slab.slots(0, before)
        if began is not None:
            began[before:n_rows] = slab.slots(before, n_rows) if origins is None else origins
        n_strips = slab.encode(self.n_strips, n_rows)
        return Segment(slab, n_rows, n_strips, self.live, self.n_live + added, began)


def all_live(n: int) -> Bits:
    """Words in which no row is removed."""
    return np.full(-(-n // 64), np.iinfo(np.uint64).max, dtype=np.uint64)
