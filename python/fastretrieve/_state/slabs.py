"""Memory for rows: a :class:`Slab` holds rows of one :class:`Format`, their codes and their ids.

Rows are only ever appended. Codes cover whole strips of 64 rows; the search scores the rows after
the last whole strip directly until the strip is full. ``segments.py`` says which rows count.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._backends.interface import Backend
from fastretrieve._backends.memory import HOST, HostMemory
from fastretrieve._common.arrays import DType, Rows, address, core_matrix, storage_dtype

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

    Only segments say how many of its rows count, so work that fails half-way leaves nothing to
    undo.
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
        # Both are False for unverified rows of a file: checking.py.
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
        """Give the rows ids of their own; only before any is published."""
        self.ids = HOST.empty((self.capacity,), np.int64)  # what ids.py reads too

    def slots(self, begin: int, end: int) -> NDArray[np.int64]:
        """The slots of these rows."""
        return np.arange(self.slot + begin, self.slot + end)

    def write(self, rows: Rows, ids: NDArray[np.int64], begin: int) -> int:
        """Copy rows and their ids to row ``begin``, where nothing is published; return the first
        row that is not finite, or -1.
        """
        if len(rows) > self.capacity - begin:
            raise ValueError(f"{len(rows)} rows do not fit {self.capacity - begin}")
        if self.ids is not None:
            self.ids[begin : begin + len(rows)] = ids
        out = self._rows_at + begin * self._row_bytes
        return self.form.backend.ingest(rows, out=out, dtype=self.form.dtype)

    def encode(self, n_strips: int, n_rows: int) -> int:
        """Encode the strips after the first ``n_strips`` that ``n_rows`` rows complete; return how
        many there are then.
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


def new_capacity(form: Format, n_rows: int, held: int) -> int:
    """Rows of the next slab: exact for the first, then as many as are held, up to a limit."""
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
