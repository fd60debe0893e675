"""Changes of an index: from one state to the next.

Every function returns a new :class:`State` and leaves the given one as it is, apart from memory
that no state counts yet, so whatever fails half-way has changed nothing. The caller holds the
index's lock and publishes the result by one assignment.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastretrieve.arrays import Rows
from fastretrieve.checking import finite_rows, row_fault
from fastretrieve.ids import MAX_ID, IdMap, Int64s
from fastretrieve.locating import ids_as_added, origins, require, rows_at, slots_as_added
from fastretrieve.segments import (
    MIN_BLOCK_ROWS,
    STRIP_ROWS,
    State,
    View,
    new_block,
    new_capacity,
)

COPY_BYTES = 16 << 20  # rows are compacted this much at a time


def appended(
    state: State, rows: Rows, given: Int64s | None, began: Int64s | None = None
) -> tuple[State, Int64s]:
    """The state with these rows behind it, under the given ids or the next unused ones. ``began``
    are the origins of rows that take the place of others.
    """
    n = len(rows)
    ids = _automatic_ids(state.next_id, n) if given is None else given
    if n == 0:
        return state, ids
    first = int(ids[0])
    # Few rows with ids of the user's own share a block, also where these happen to be consecutive.
    implied = given is None or (n >= MIN_BLOCK_ROWS and consecutive(ids))
    views, id_map, begin = state.views, state.id_map, 0
    if views and views[-1].free and _may_grow(views[-1], first, ids, implied):
        begin = min(views[-1].free, n)
        last = _grown(views[-1], rows, ids, began, 0, begin)
        id_map = _remember(id_map, last, begin)
        views = (*views[:-1], last)
    if begin < n:
        block = new_block(
            state.form,
            new_capacity(state.form, n - begin, sum(view.n_rows for view in views)),
            slot=_next_slot(views),
            first_id=first + begin if implied else 0,
            own_ids=not implied,
        )
        last = _grown(View(block, 0, 0, None, 0), rows, ids, began, begin, n)
        id_map = _remember(id_map, last, n - begin)
        views = (*views, last)
    next_id = state.next_id + n if given is None else max(state.next_id, int(ids.max()) + 1)
    return State(state.form, views, id_map, next_id), ids


def extended(state: State, other: State) -> State:
    """The state with the live rows of another behind it, in the memory where they are.

    What is published is never written again, so both may go on: what either adds goes elsewhere.
    """
    views, id_map = state.views, state.id_map
    base = _next_slot(views)  # all slots move by as much, and origins with them
    for view in other.views:
        if view.n_live == 0:
            continue
        slot, n_rows = base + view.block.slot, view.n_rows
        block = view.block.first_rows(n_rows, view.n_strips, slot)
        live = None if view.live is None else view.live[: -(-n_rows // STRIP_ROWS)]
        began = None if view.began is None else view.began[:n_rows] + base
        views = (*views, view._replace(block=block, live=live, began=began))
        if block.ids is not None:
            rows = np.flatnonzero(view.live_mask())
            id_map = id_map.put_at(block.ids[rows], slot + rows)
    return State(state.form, views, id_map, max(state.next_id, other.next_id))


def without(state: State, ids: Int64s) -> State:
    """The state after these rows were removed; an unknown id is an error."""
    return _dropped(state, require(state, ids))


def updated(state: State, ids: Int64s, rows: Rows) -> State:
    """The state in which these rows have these ids, listed where the ids were."""
    slots = require(state, ids)
    return appended(_dropped(state, slots), rows, ids, origins(state, slots))[0]


def _dropped(state: State, slots: Int64s) -> State:
    views = []
    for view in state.views:
        here = slots[view.holds(slots)]
        views.append(view.without(here - view.block.slot) if len(here) else view)
    return State(state.form, tuple(views), state.id_map, state.next_id)


def reserved(state: State, n_rows: int) -> State:
    """The state with room for so many more rows in its last block."""
    views = state.views
    if n_rows <= (views[-1].free if views else 0):
        return state
    block = new_block(
        state.form, n_rows, slot=_next_slot(views), first_id=state.next_id, own_ids=False
    )
    return State(state.form, (*views, View(block, 0, 0, None, 0)), state.id_map, state.next_id)


def compacted(state: State) -> State:
    """The state with all rows in one block, which is as large as they are, in the order in which
    their ids were first added.
    """
    ids = ids_as_added(state)
    if len(ids) == 0:
        return State(state.form, (), IdMap(), state.next_id)
    own_ids = not consecutive(ids)
    block = new_block(
        state.form, len(ids), slot=0, first_id=0 if own_ids else int(ids[0]), own_ids=own_ids
    )
    view = View(block, 0, 0, None, 0)
    for rows in live_rows(state, COPY_BYTES):
        begin = view.n_rows
        view = _copied(view, rows, ids[begin : begin + len(rows)])
    id_map = IdMap().put(ids, 0) if own_ids else IdMap()
    return State(state.form, (view,), id_map, state.next_id)


def live_rows(state: State, n_bytes: int) -> Iterator[Rows]:
    """The rows of a state in the order in which their ids were first added, in parts of about so
    many bytes; only parts with removed or updated rows are copied.
    """
    step = max(n_bytes // state.form.row_bytes, 1)
    if state.order is not None:
        slots = slots_as_added(state)
        for begin in range(0, len(slots), step):
            yield rows_at(state, slots[begin : begin + step])
        return
    for view in state.views:
        live = None if view.live is None else view.live_mask()
        for begin in range(0, view.n_rows, step):
            end = min(begin + step, view.n_rows)
            part = finite_rows(view, begin, end)
            yield part if live is None else state.form.memory.taken(part, live[begin:end])


def consecutive(ids: NDArray[np.int64]) -> bool:
    """Whether each id is one more than that before it."""
    n = len(ids)
    if n < 2:
        return True
    return int(ids[-1]) - int(ids[0]) == n - 1 and bool((np.diff(ids) == 1).all())


def _automatic_ids(first: int, n: int) -> Int64s:
    if first + n - 1 > MAX_ID:
        raise ValueError(
            f"there are no {n} automatic ids after {first - 1}, the largest so far; give ids"
        )
    return np.arange(first, first + n)


def _may_grow(view: View, first: int, ids: Int64s, implied: bool) -> bool:
    """Whether rows with these ids may follow those of the view."""
    block = view.block
    if view.n_rows == 0 and block.ids is None:  # reserved
        if not implied:
            block.own_ids()
        block.first_id = first
        return True
    if block.ids is not None:
        return True
    return first == block.first_id + view.n_rows and (implied or consecutive(ids))


def _grown(view: View, rows: Rows, ids: Int64s, began: Int64s | None, begin: int, end: int) -> View:
    """The view with rows ``begin`` to ``end`` of what the user passed behind it."""
    bad = view.block.write(rows[begin:end], ids[begin:end], view.n_rows)
    if bad >= 0:
        raise ValueError(
            f"vectors hold a value that is not finite in {view.block.form.dtype} "
            f"in row {begin + bad}; nothing was added: remove NaN and infinity first"
        )
    return view.grown(end - begin, None if began is None else began[begin:end])


def _copied(view: View, rows: Rows, ids: Int64s) -> View:
    """The view with these rows of the index behind it."""
    bad = view.block.write(rows, ids, view.n_rows)
    if bad >= 0:
        raise row_fault(int(ids[bad]))
    return view.grown(len(rows))


def _remember(id_map: IdMap, view: View, n_new: int) -> IdMap:
    """The map with the ids of the last rows of a view, where they are not implied."""
    if view.block.ids is None:
        return id_map
    begin = view.n_rows - n_new
    return id_map.put(view.block.ids[begin : view.n_rows], view.block.slot + begin)


def _next_slot(views: tuple[View, ...]) -> int:
    return views[-1].block.slot + views[-1].block.capacity if views else 0
