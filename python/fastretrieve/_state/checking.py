"""Faults of files: rows that are not finite, codes and screens that do not belong to their rows.

Rows that were added are finite, and their codes are made from them. A file loaded without
``verify`` may break both, and a check would read all of it. So the first call that reads a row that
is not finite names its id, and ``_queries/doubting.py`` explains answers that cannot be true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arrays import Rows, not_finite
from fastretrieve._common.errors import StorageError
from fastretrieve._state.segments import Segment
from fastretrieve._state.slabs import STRIP_ROWS, new_slab
from fastretrieve._state.state import State

PART_BYTES = 16 << 20
Tell = Callable[[int], object]  # of how many more rows are done


class Fault(NamedTuple):
    """The first fault in the rows of a segment; -1 for none."""

    row: int = -1  # a row that is not finite
    code: int = -1  # a byte of the codes that differs from what encoding gives


def first_fault(segment: Segment, *, codes: bool, tell: Tell | None = None) -> Fault:
    """Check all rows of a segment and, with ``codes``, encode them again to compare every bit.

    The core's threads do both, some megabytes at a time.
    """
    form, slab = segment.slab.form, segment.slab
    step = max(PART_BYTES // form.row_bytes // STRIP_ROWS, 1) * STRIP_ROWS
    capacity = min(step, max(segment.n_rows, 1))
    staging = new_slab(form, capacity, slot=0, first_id=0, own_ids=False)
    for begin in range(0, segment.n_rows, step):
        end = min(begin + step, segment.n_rows)
        if staging.write(slab.rows[begin:end], _NO_IDS, 0) >= 0:
            bad = begin + not_finite(slab.rows[begin:end])
            if len(bad := bad[segment.alive(bad)]):
                return Fault(row=int(bad[0]))
        first, last = begin // STRIP_ROWS, min(end // STRIP_ROWS, segment.n_strips)
        if codes and last > first:
            staging.encode(0, (last - first) * STRIP_ROWS)
            to_host = form.memory.to_host
            ours, theirs = to_host(staging.codes[: last - first]), to_host(slab.codes[first:last])
            if not _are_equal(ours, theirs):
                byte = int(np.argmax(ours.reshape(-1) != theirs.reshape(-1)))
                return Fault(code=first * form.strip_bytes + byte)
        if tell is not None:
            tell(end - begin)
    return Fault()


def screen_fault(state: State) -> int:
    """The first position of the screen whose head and record are not those of its row, or -1; then
    they are proved. Only where searches read it.
    """
    screen, backend = state.screen, state.form.backend
    if screen is None or not backend.reads_screens:
        return -1
    snapshot = state.with_screen(screen).snapshot  # which no search keeps, as it is doubtful yet
    position = screen.first_wrong(backend, snapshot.native)
    screen.is_proved |= position < 0
    return position


def row_fault(row_id: int) -> StorageError:
    """The error for a row that is not finite."""
    return StorageError(
        f"the row with id {row_id} holds a value that is not finite, which no index writes: its "
        f"file was damaged or made by something else; replace the file, or remove([{row_id}])"
    )


def finite_rows(segment: Segment, begin: int, end: int) -> Rows:
    """These rows. A row of an unverified file that is not finite is an error, or comes as zeros if
    it was removed.
    """
    rows: Rows = segment.slab.rows[begin:end]
    if segment.slab.is_finite or not len(bad := not_finite(rows)):
        return rows
    alive = bad[segment.alive(begin + bad)]
    if len(alive):
        raise row_fault(int(segment.row_ids()[begin + alive[0]]))
    rows = rows.copy()
    rows[bad] = 0
    return rows


def _are_equal(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    if a.strides == b.strides and a.flags.c_contiguous and b.flags.aligned:
        a, b = a.view(np.int32), b.view(np.int32)  # a strip is whole numbers of them
    return bool(np.array_equal(a, b))


_NO_IDS = np.zeros(0, np.int64)
