"""Immutable segments of growing memory: how an index changes while others search it.

A :class:`Slab` is memory for rows, their codes and their ids. Rows are only ever appended, and
what has been published is never written again, so a :class:`Segment`, its first rows, stays true
forever. A :class:`State` is a tuple of segments: one assignment publishes it, and a search keeps
the one it started with. Codes cover whole strips of 64 rows; the rows after the last whole strip
are scored directly until the strip is full.

An update writes a new row, at the end. Its origin says where the id began: the rows of an index are
listed in order of their origins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._backends.interface import Backend
from fastretrieve._backends.memory import HOST, HostMemory
from fastretrieve._backends.snapshot import Bits, Snapshot
from fastretrieve._common.arrays import (
    DType,
    Rows,
    address,
    core_matrix,
    storage_dtype,
    unpack,
)
from fastretrieve._common.locks import once
from fastretrieve._common.ordering import order_of
from fastretrieve._state.ids import IdMap

STRIP_ROWS: int = _core.STRIP_ROWS
MIN_SLAB_ROWS = 1024
MAX_SPARE_BYTES = 64 << 20  # an index never reserves more than this beyond what it holds


class Format(NamedTuple):
    """What all rows of an index have in common."""

    dim: int
    metric: str
    dtype: DType
    backend: Backend

    @property
    def memory(self) -> HostMemory:
        """Where rows and codes are kept: with the backend that reads them."""
        return self.backend.memory

    @property
    def row_bytes(self) -> int:
        return self.dim * storage_dtype(self.dtype).itemsize

    @property
    def strip_bytes(self) -> int:
        return self.backend.strip_bytes(self.dim, self.metric)


class Slab:
    """Memory for rows. ``slot`` numbers its first row among all rows the index ever had.

    How many of its rows count is written in segments alone, so work that fails half-way leaves
    nothing to undo.
    """

    def __init__(
        self,
        form: Format,
        rows: Rows,  # [capacity, dim]
        codes: NDArray[np.uint8],  # [capacity // STRIP_ROWS, strip_bytes]
        *,
        slot: int,
        first_id: int,
        ids: NDArray[np.int64] | None = None,
    ) -> None:
        self.form = form
        self.capacity = len(rows)
        self.slot = slot
        self.first_id = first_id  # row r has id first_id + r, unless the rows have ids of their own
        self.ids = ids
        # Not of what was loaded and not verified: checking.py.
        self.is_finite = self.has_own_codes = True
        self.rows = rows
        self.codes = codes
        self._rows_at = address(rows)  # NumPy takes a microsecond to say it
        self._row_bytes = form.row_bytes

    def first_rows(self, n_rows: int, n_strips: int, slot: int) -> Slab:
        """The same memory as a slab of these rows alone, which has no room for more."""
        ids = None if self.ids is None else self.ids[:n_rows]
        rows, codes = self.rows[:n_rows], self.codes[:n_strips]
        slab = Slab(self.form, rows, codes, slot=slot, first_id=self.first_id, ids=ids)
        slab.is_finite, slab.has_own_codes = self.is_finite, self.has_own_codes
        return slab

    def own_ids(self) -> None:
        """Give the rows ids of their own; only while none has been published."""
        self.ids = HOST.empty((self.capacity,), np.int64)  # what ids.py reads too

    def slots(self, begin: int, end: int) -> NDArray[np.int64]:
        """The slots of these rows."""
        return np.arange(self.slot + begin, self.slot + end)

    def write(self, rows: Rows, ids: NDArray[np.int64], begin: int) -> int:
        """Copy rows and their ids to row ``begin``, where nothing is published; the first bad row,
        or -1.
        """
        if len(rows) > self.capacity - begin:
            raise ValueError(f"{len(rows)} rows do not fit {self.capacity - begin}")
        if self.ids is not None:
            self.ids[begin : begin + len(rows)] = ids
        out = self._rows_at + begin * self._row_bytes
        return self.form.backend.ingest(rows, out=out, dtype=self.form.dtype)

    def encode(self, n_strips: int, n_rows: int) -> int:
        """Encode the strips after the first ``n_strips`` that ``n_rows`` rows complete; how many
        there are then.
        """
        complete = n_rows // STRIP_ROWS
        if complete > n_strips:
            self.form.backend.encode(
                core_matrix(self.rows[n_strips * STRIP_ROWS : complete * STRIP_ROWS]),
                metric=self.form.metric,
                n_strips=complete - n_strips,
                codes=address(self.codes) + n_strips * self.form.strip_bytes,
            )
        return complete


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
        """The memory of the rows, and of those that may follow."""
        return self.slab.rows

    @property
    def codes(self) -> NDArray[np.uint8]:
        """The memory of their codes."""
        return self.slab.codes

    @property
    def is_proved(self) -> bool:
        """Whether its rows are known to be finite and its codes to be theirs: checking.py."""
        return self.slab.is_finite and self.slab.has_own_codes

    @property
    def free(self) -> int:
        """Rows that still fit the slab."""
        return self.slab.capacity - self.n_rows

    def part(self) -> tuple[_core.Segment, list[Any]]:
        """The segment as the core sees it, and memory of the device that its kernels read."""
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
        """The segment with the next ``added`` rows, which have been written and have to be encoded
        now. Those that took the place of others have the origins of these.
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


class State:
    """All rows of an index and their ids at one moment."""

    def __init__(
        self, form: Format, segments: tuple[Segment, ...], id_map: IdMap, next_id: int
    ) -> None:
        self.form = form
        self.segments = segments
        self.id_map = id_map  # of the rows with ids of their own
        self.next_id = next_id  # the next automatic id

    def __len__(self) -> int:
        return sum(segment.n_live for segment in self.segments)

    @once
    def snapshot(self) -> Snapshot:
        """The state as backends see it; made by the first search."""
        parts = [segment.part() for segment in self.segments]
        native = _core.Segments(self.form.metric, self.form.dim, [native for native, _ in parts])
        kept = [array for _, placed in parts for array in placed if array is not None]
        is_doubtful = self.form.backend.answers_at_once and not all(
            segment.is_proved for segment in self.segments
        )
        return Snapshot(native, self.segments, self.form.metric, is_doubtful=is_doubtful, kept=kept)

    @once
    def order(self) -> NDArray[np.int64] | None:
        """The numbers of the live rows in the order in which their ids were first added; None
        where the rows lie in that order, as they do unless some were updated.
        """
        if all(segment.began is None for segment in self.segments):
            return None
        origins = self.listed(Segment.origins)
        return None if bool((origins[1:] > origins[:-1]).all()) else order_of(origins)

    def listed(self, of: Callable[[Segment], NDArray[np.int64]]) -> NDArray[np.int64]:
        """A number of each live row, in the order of the rows."""
        parts = [
            of(segment) if segment.live is None else of(segment)[segment.live_mask()]
            for segment in self.segments
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes that the rows hold: vectors, codes, ids and marks of removal."""
        total = 0
        for segment in self.segments:
            total += segment.n_rows * self.form.row_bytes + segment.n_strips * self.form.strip_bytes
            total += 8 * segment.n_rows if segment.slab.ids is not None else 0
            total += 8 * segment.n_rows if segment.began is not None else 0
            total += segment.live.nbytes if segment.live is not None else 0
        return total + self.id_map.nbytes


def new_capacity(form: Format, n_rows: int, held: int) -> int:
    """Rows of the next slab: exact for the first, then as many as are held, within reason."""
    if held == 0 and n_rows >= MIN_SLAB_ROWS:
        return n_rows
    spare = max(MAX_SPARE_BYTES // form.row_bytes, STRIP_ROWS)
    return max(n_rows, min(max(held, MIN_SLAB_ROWS), spare))


def new_slab(form: Format, capacity: int, *, slot: int, first_id: int, own_ids: bool) -> Slab:
    """Unused memory for at least ``capacity`` rows."""
    n_strips = -(-capacity // STRIP_ROWS)
    rows = form.memory.empty((n_strips * STRIP_ROWS, form.dim), storage_dtype(form.dtype))
    codes = form.memory.empty((n_strips, form.strip_bytes), np.uint8)
    slab = Slab(form, rows, codes, slot=slot, first_id=first_id)
    if own_ids:
        slab.own_ids()
    return slab


def all_live(n: int) -> Bits:
    """Words in which no row is removed."""
    return np.full(-(-n // 64), np.iinfo(np.uint64).max, dtype=np.uint64)
