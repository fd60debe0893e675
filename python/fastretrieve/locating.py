"""Which row has which id, in one state of an index.

``ids.py`` checks ids and maps those that users chose; rows with consecutive ids are found by
arithmetic. What is not found is an error that names it.
"""

from __future__ import annotations

import numpy as np

from fastretrieve.arrays import Rows, storage_dtype
from fastretrieve.ids import Int64s, first_duplicate, named
from fastretrieve.ordering import PIECE, PIECE_BYTES
from fastretrieve.segments import State


def row_ids(state: State) -> Int64s:
    """The ids of all rows, in the order of the rows."""
    parts = [
        view.row_ids() if view.live is None else view.row_ids()[view.live_mask()]
        for view in state.views
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


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
    for view in state.views:  # an id may have had several rows, of which one at most is alive
        first = view.block.first_id
        if view.block.ids is None:
            here = (ids >= first) & (ids < first + view.n_rows)
            rows = ids[here] - first
        else:
            here = view.holds(mapped)
            rows = mapped[here] - view.block.slot
        if len(rows):
            slots[here] = np.where(view.alive(rows), view.block.slot + rows, slots[here])
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
        some, part = slots[begin : begin + step], out[begin : begin + step]
        for view in state.views:
            here = view.holds(some)
            rows = form.memory.taken(view.block.rows, some[here] - view.block.slot)
            part[here] = form.memory.to_host(rows)
    return out


def refuse_twice(ids: Int64s) -> None:
    """Raise where an id is given twice."""
    twice = first_duplicate(ids)
    if twice is not None:
        raise ValueError(f"id {twice} is given twice")


def refuse_known(
    state: State, ids: Int64s, *, remedy: str = "use update() to give them new vectors"
) -> None:
    """Raise where an id is given twice or is in the index."""
    refuse_twice(ids)
    if len(ids) == 0 or ids.min() >= state.next_id:
        return  # larger than every id so far
    known = ids[locate(state, ids) >= 0]
    if len(known):
        raise ValueError(
            f"{len(known)} of {len(ids)} ids are in the index already: "
            f"{named(known.tolist())}; {remedy}"
        )
