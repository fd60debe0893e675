"""Immutable views of growing memory: how an index changes while others search it.

A :class:`Block` is memory for rows, their codes and their ids. Rows are only ever appended, and
what has been published is never written again, so a :class:`View` of its first rows stays true
forever. A :class:`State` is a tuple of views: one assignment publishes it, and a search keeps the
one it started with. Codes cover whole strips of 64 rows; the rows after the last whole strip are
scored directly until the strip is full.

An update writes a new row, at the end. Its origin says where the id began: the rows of an index are
listed in order of their origins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve.arrays import DType, Rows, address, core_matrix, storage_dtype
from fastretrieve.backend import Backend
from fastretrieve.ids import IdMap
from fastretrieve.locks import once
from fastretrieve.memory import HOST, HostMemory
from fastretrieve.ordering import order_of

STRIP_ROWS: int = _core.STRIP_ROWS
MIN_BLOCK_ROWS = 1024
MAX_SPARE_BYTES = 64 << 20  # an index never reserves more than this beyond what it holds

Bits = NDArray[np.uint64]  # bit r % 64 of word r // 64 belongs to row r


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


class Block:
    """Memory for rows. ``slot`` numbers its first row among all rows the index ever had.

    How many of its rows count is written in views alone, so work that fails half-way leaves nothing
    to undo.
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

    def first_rows(self, n_rows: int, n_strips: int, slot: int) -> Block:
        """The same memory as a block of these rows alone, which has no room for more."""
        ids = None if self.ids is None else self.ids[:n_rows]
        rows, codes = self.rows[:n_rows], self.codes[:n_strips]
        block = Block(self.form, rows, codes, slot=slot, first_id=self.first_id, ids=ids)
        block.is_finite, block.has_own_codes = self.is_finite, self.has_own_codes
        return block

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


class View(NamedTuple):
    """The first rows of a block, as they were when the view was made."""

    block: Block
    n_rows: int
    n_strips: int
    live: Bits | None  # None: none removed; else for the whole block, rows to come are live
    n_live: int
    began: NDArray[np.int64] | None = None  # for the whole block, the slots at which ids began;
    # None: each at that of its row

    @property
    def free(self) -> int:
        """Rows that still fit the block."""
        return self.block.capacity - self.n_rows

    def part(self) -> tuple[_core.Segment, list[Any]]:
        """The view as the core sees it, and memory of the device that its kernels read."""
        block = self.block
        placed = block.form.memory.placed
        ids = None if block.ids is None else placed(block.ids[: self.n_rows])
        live = None if self.live is None else placed(self.live)
        native = _core.Segment(
            rows=core_matrix(block.rows[: self.n_rows]),
            codes=address(block.codes),
            n_strips=self.n_strips,
            ids=address(ids),
            first_id=block.first_id,
            live=address(live),
            owner=(block, ids, live),
        )
        return native, [ids, live]

    def row_ids(self) -> NDArray[np.int64]:
        """The id of every row, removed ones included."""
        if self.block.ids is None:
            return np.arange(self.block.first_id, self.block.first_id + self.n_rows)
        return self.block.ids[: self.n_rows]

    def origins(self) -> NDArray[np.int64]:
        """The slot at which the id of every row began, removed ones included."""
        began = self.began
        return self.block.slots(0, self.n_rows) if began is None else began[: self.n_rows]

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
        """Which of these slots are rows of this view, removed ones included."""
        return (slots >= self.block.slot) & (slots < self.block.slot + self.n_rows)

    def without(self, rows: NDArray[np.int64]) -> View:
        """The view after these live rows were removed."""
        live = all_live(self.block.capacity) if self.live is None else self.live.copy()
        if len(rows) == 1:
            row = int(rows[0])
            live.view(np.uint8)[row >> 3] &= 255 ^ 1 << (row & 7)
        else:
            gone = np.zeros((1, len(live)), np.uint64)
            _core.mark_rows(rows[None, :], first=0, n_rows=self.block.capacity, words=gone)
            live &= ~gone[0]
        return self._replace(live=live, n_live=self.n_live - len(rows))

    def grown(self, added: int, origins: NDArray[np.int64] | None = None) -> View:
        """The view with the next ``added`` rows, which have been written and have to be encoded
        now. Those that took the place of others have the origins of these.
        """
        block, before, n_rows = self.block, self.n_rows, self.n_rows + added
        began = self.began
        if origins is not None and began is None:
            began = HOST.empty((block.capacity,), np.int64)
            began[:before] = block.slots(0, before)
        if began is not None:
            began[before:n_rows] = block.slots(before, n_rows) if origins is None else origins
        n_strips = block.encode(self.n_strips, n_rows)
        return View(block, n_rows, n_strips, self.live, self.n_live + added, began)


class Notes:
    """What Python keeps with ``_core.Segments``, as its ``notes``."""

    def __init__(
        self, views: tuple[View, ...], metric: str, words: list[Bits] | None = None
    ) -> None:
        self.views = views
        self.metric = metric
        self.words = words  # of the row mask: [1 or n_queries, n_words] for each view; None: none
        self.booleans: NDArray[np.bool_] | None = None  # of a mask that is read where it is
        self.doubtful = not all(v.block.is_finite and v.block.has_own_codes for v in views)
        self.keep: list[Any] = []  # memory of the device that kernels read
        self.table: Any = None  # of the segments, on the device
        self.streams: frozenset[int] = frozenset()  # that the allocator knows to read them


class State:
    """All rows of an index and their ids at one moment."""

    def __init__(self, form: Format, views: tuple[View, ...], id_map: IdMap, next_id: int) -> None:
        self.form = form
        self.views = views
        self.id_map = id_map  # of the rows with ids of their own
        self.next_id = next_id  # the next automatic id

    def __len__(self) -> int:
        return sum(view.n_live for view in self.views)

    @once
    def native(self) -> _core.Segments:
        """The state as the core sees it; made by the first search."""
        parts = [view.part() for view in self.views]
        native = _core.Segments(self.form.metric, self.form.dim, [native for native, _ in parts])
        native.notes = Notes(self.views, self.form.metric)
        native.notes.keep = [kept for _, placed in parts for kept in placed]
        return native

    @once
    def order(self) -> NDArray[np.int64] | None:
        """The numbers of the live rows in the order in which their ids were first added; None
        where the rows lie in that order, as they do unless some were updated.
        """
        if all(view.began is None for view in self.views):
            return None
        origins = self.listed(View.origins)
        return None if bool((origins[1:] > origins[:-1]).all()) else order_of(origins)

    def listed(self, of: Callable[[View], NDArray[np.int64]]) -> NDArray[np.int64]:
        """A number of each live row, in the order of the rows."""
        parts = [
            of(view) if view.live is None else of(view)[view.live_mask()] for view in self.views
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes that the rows hold: vectors, codes, ids and marks of removal."""
        total = 0
        for view in self.views:
            total += view.n_rows * self.form.row_bytes + view.n_strips * self.form.strip_bytes
            total += 8 * view.n_rows if view.block.ids is not None else 0
            total += 8 * view.n_rows if view.began is not None else 0
            total += view.live.nbytes if view.live is not None else 0
        return total + self.id_map.nbytes


def new_capacity(form: Format, n_rows: int, held: int) -> int:
    """Rows of the next block: exact for the first, then as many as are held, within reason."""
    if held == 0 and n_rows >= MIN_BLOCK_ROWS:
        return n_rows
    spare = max(MAX_SPARE_BYTES // form.row_bytes, STRIP_ROWS)
    return max(n_rows, min(max(held, MIN_BLOCK_ROWS), spare))


def new_block(form: Format, capacity: int, *, slot: int, first_id: int, own_ids: bool) -> Block:
    """Unused memory for at least ``capacity`` rows."""
    n_strips = -(-capacity // STRIP_ROWS)
    rows = form.memory.empty((n_strips * STRIP_ROWS, form.dim), storage_dtype(form.dtype))
    codes = form.memory.empty((n_strips, form.strip_bytes), np.uint8)
    block = Block(form, rows, codes, slot=slot, first_id=first_id)
    if own_ids:
        block.own_ids()
    return block


def all_live(n: int) -> Bits:
    """Words in which no row is removed."""
    return np.full(-(-n // 64), np.iinfo(np.uint64).max, dtype=np.uint64)


def unpack(words: Bits, n: int) -> NDArray[np.bool_]:
    """The first ``n`` bits of words, as booleans."""
    return np.unpackbits(words.view(np.uint8), count=n, bitorder="little").view(bool)
