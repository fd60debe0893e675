"""The rows of ids in one state of an index, and the ids of rows.

``ids.py`` checks ids and maps those that users chose; arithmetic finds rows with consecutive ids.
An unknown id is an error that names it.
"""

from __future__ import annotations

import numpy as np

from fastretrieve._common.arrays import Rows, joined, not_finite, storage_dtype
from fastretrieve._common.ordering import PIECE, PIECE_BYTES, taken
from fastretrieve._state.checking import row_fault
from fastretrieve._state.ids import Int64s, first_duplicate, named
from fastretrieve._state.segments import Segment
from fastretrieve._state.slabs import STRIP_ROWS
from fastretrieve._state.state import State


def row_ids(state: State) -> Int64s:
    """The ids of all rows, in the order of the rows."""
    return state.listed(Segment.row_ids)


def ids_as_added(state: State) -> Int64s:
    """The ids of all rows, in the order in which they were first added."""
    ids = row_ids(state)
    return ids if state.order is None else taken(ids, state.order)


def slots_as_added(state: State) -> Int64s:
    """The slots of all rows, in the order in which their ids were first added."""
    slots = state.listed(lambda segment: segment.slab.slots(0, segment.n_rows))
    return slots if state.order is None else taken(slots, state.order)


def new_slots(state: State) -> Int64s:
    """The number that the row at each slot gets when all rows are written one after the other, as
    ``compact`` and files do; -1 for rows that are removed, and for those after the last whole
    strip, which have no codes.
    """
    slots = slots_as_added(state)
    slots = slots[: len(slots) // STRIP_ROWS * STRIP_ROWS]
    segments = state.segments
    n_slots = segments[-1].slab.slot + segments[-1].slab.capacity if segments else 0
    moved = np.full(n_slots, -1, np.int64)
    moved[slots] = np.arange(len(slots))
    return moved


def locate(state: State, ids: Int64s) -> Int64s:
    """The slot of the live row of each id; -1 where there is none."""
    if len(ids) <= PIECE:
        return _located(state, ids)
    slots = np.empty(len(ids), dtype=np.int64)
    for begin in range(0, len(ids), PIECE):  # so that Ctrl-C need not wait for all of them
        slots[begin : begin + PIECE] = _located(state, ids[begin : begin + PIECE])
    return slots


def _located(state: State, ids: Int64s) -> Int64s:
    mapped = state.id_map.find(ids)
    slots = np.full(len(ids), -1, dtype=np.int64)
    for segment in state.segments:  # an id may have had several rows, of which one at most is alive
        first = segment.slab.first_id
        if segment.slab.ids is None:
            here = (ids >= first) & (ids < first + segment.n_rows)
            rows = ids[here] - first
        else:
            here = segment.holds(mapped)
            rows = mapped[here] - segment.slab.slot
        if len(rows):
            slots[here] = np.where(segment.alive(rows), segment.slab.slot + rows, slots[here])
    return slots


def require(state: State, ids: Int64s) -> Int64s:
    """The slot of each id; an unknown one is an error."""
    slots = locate(state, ids)
    if len(slots) and slots.min() < 0:
        missing = ids[slots < 0]
        raise KeyError(
            f"{len(missing)} of {len(ids)} ids are not in the index: {named(missing.tolist())}"
        )
    return slots


def stored_rows(state: State, ids: Int64s) -> Rows:
    """The vectors of these ids as they are stored."""
    slots, form = require(state, ids), state.form
    out = np.empty((len(ids), form.dim), dtype=storage_dtype(form.dtype))
    step = max(PIECE_BYTES // form.row_bytes, 1)
    for begin in range(0, len(ids), step):
        some = slots[begin : begin + step]
        out[begin : begin + step] = form.memory.to_host(rows_at(state, some))
    return out


def rows_at(state: State, slots: Int64s) -> Rows:
    """The rows at these slots, at least one, where the index keeps them."""
    memory = state.form.memory
    parts, places = list[Rows](), list[Int64s]()
    for segment in state.segments:
        here = np.flatnonzero(segment.holds(slots))
        if len(here):
            numbers = slots[here] - segment.slab.slot
            rows: Rows = memory.taken(segment.slab.rows, numbers)
            if not segment.slab.is_finite and len(bad := not_finite(rows)):
                raise row_fault(int(segment.row_ids()[numbers[bad[0]]]))
            parts.append(rows)
            places.append(here)
    if len(parts) == 1:
        return parts[0]
    back = np.empty(len(slots), np.int64)
    back[np.concatenate(places)] = np.arange(len(slots))
    together: Rows = memory.taken(joined(parts), back)
    return together


def ids_at(state: State, slots: Int64s) -> Int64s:
    """The ids of the rows at these slots."""
    ids: Int64s = slots.copy()
    for segment in state.segments:
        here = segment.holds(slots)
        ids[here] = segment.row_ids()[slots[here] - segment.slab.slot]
    return ids


def origins(state: State, slots: Int64s) -> Int64s:
    """The slots at which the ids of the rows at these slots began."""
    began: Int64s = slots.copy()
    for segment in state.segments:
        if segment.began is not None:
            here = segment.holds(slots)
            began[here] = segment.began[slots[here] - segment.slab.slot]
    return began


def refuse_twice(ids: Int64s) -> None:
    """Raise if an id is given twice."""
    twice = first_duplicate(ids)
    if twice is not None:
        raise ValueError(f"id {twice} is given twice")


def refuse_known(
    state: State, ids: Int64s, *, remedy: str = "use update() to give them new vectors"
) -> None:
    """Raise if an id is given twice or is in the index."""
    refuse_twice(ids)
    if len(ids) == 0 or ids.min() >= state.next_id:
        return  # larger than every id so far
    known = ids[locate(state, ids) >= 0]
    if len(known):
        raise ValueError(
            f"{len(known)} of {len(ids)} ids are in the index already: "
            f"{named(known.tolist())}; {remedy}"
        )
