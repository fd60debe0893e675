"""Changes of an index: from one state to the next.

Every function returns a new :class:`State` and leaves the given one as it is. It writes only memory
that no state counts yet, so a failure half-way changes nothing. The caller holds the
index's lock and publishes the result by one assignment. A screen speaks of slots: changes that give
rows other slots move it, and it goes with the last of its rows (``screen.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arrays import Rows
from fastretrieve._state.checking import finite_rows, row_fault, screen_fault
from fastretrieve._state.ids import MAX_ID, IdMap, Int64s
from fastretrieve._state.locating import (
    ids_as_added,
    new_slots,
    origins,
    require,
    rows_at,
    slots_as_added,
)
from fastretrieve._state.screen import Screen
from fastretrieve._state.segments import Segment
from fastretrieve._state.slabs import MIN_SLAB_ROWS, STRIP_ROWS, new_capacity, new_slab
from fastretrieve._state.state import State

COPY_BYTES = 16 << 20  # rows are compacted this much at a time


class _New(NamedTuple):
    """Rows as the user passed them."""

    rows: Rows
    ids: Int64s
    began: Int64s | None  # where these ids began, if they take the place of others


def appended(
    state: State, rows: Rows, given: Int64s | None, began: Int64s | None = None
) -> tuple[State, Int64s]:
    """The state with these rows at its end, under the given ids or the next unused ones. ``began``
    holds the origins of rows that take the place of others.
    """
    n = len(rows)
    ids = _automatic_ids(state.next_id, n) if given is None else given
    if n == 0:
        return state, ids
    new, first = _New(rows, ids, began), int(ids[0])
    # Few rows with ids of the user's own share a slab, also where these happen to be consecutive.
    implied = given is None or (n >= MIN_SLAB_ROWS and consecutive(ids))
    segments, id_map, begin = state.segments, state.id_map, 0
    if segments and segments[-1].free and _may_grow(segments[-1], first, ids, implied):
        begin = min(segments[-1].free, n)
        last = _grown(segments[-1], new, 0, begin)
        id_map = _remember(id_map, last, begin)
        segments = (*segments[:-1], last)
    if begin < n:
        slab = new_slab(
            state.form,
            new_capacity(state.form, n - begin, sum(segment.n_rows for segment in segments)),
            slot=_next_slot(segments),
            first_id=first + begin if implied else 0,
            own_ids=not implied,
        )
        last = _grown(Segment(slab, 0, 0, None, 0), new, begin, n)
        id_map = _remember(id_map, last, n - begin)
        segments = (*segments, last)
    next_id = state.next_id + n if given is None else max(state.next_id, int(ids.max()) + 1)
    return State(state.form, segments, id_map, next_id, state.screen), ids


def extended(state: State, other: State) -> State:
    """The state with the live rows of another at its end, in the memory where they are.

    Published rows are never written again, so both may go on: what either adds goes elsewhere. Of
    two screens the one that covers more rows stays.
    """
    segments, id_map = state.segments, state.id_map
    base = _next_slot(segments)  # all slots move by as much, and origins with them
    taken = [segment for segment in other.segments if segment.n_live]
    for segment in taken:
        slot, n_rows = base + segment.slab.slot, segment.n_rows
        slab = segment.slab.first_rows(n_rows, segment.n_strips, slot)
        live = None if segment.live is None else segment.live[: -(-n_rows // STRIP_ROWS)]
        began = None if segment.began is None else segment.began[:n_rows] + base
        segments = (*segments, segment._replace(slab=slab, live=live, began=began))
        if slab.ids is not None:
            rows = np.flatnonzero(segment.live_mask())
            id_map = id_map.put_at(slab.ids[rows], slot + rows)
    screen = _larger(state, other, taken, base)
    return State(state.form, segments, id_map, max(state.next_id, other.next_id), screen)


def without(state: State, ids: Int64s) -> State:
    """The state after these rows were removed; an unknown id is an error."""
    return _dropped(state, require(state, ids))


def updated(state: State, ids: Int64s, rows: Rows) -> State:
    """The state in which these rows have these ids, listed where the ids were."""
    slots = require(state, ids)
    return appended(_dropped(state, slots), rows, ids, origins(state, slots))[0]


def _dropped(state: State, slots: Int64s) -> State:
    if not len(slots):
        return state
    segments = []
    for segment in state.segments:
        here = slots[segment.holds(slots)]
        segments.append(segment.without(here - segment.slab.slot) if len(here) else segment)
    screen = _of_live_rows(state.screen, segments)
    return State(state.form, tuple(segments), state.id_map, state.next_id, screen)


def reserved(state: State, n_rows: int) -> State:
    """The state with room for ``n_rows`` more rows in its last slab."""
    segments = state.segments
    if n_rows <= (segments[-1].free if segments else 0):
        return state
    slab = new_slab(
        state.form, n_rows, slot=_next_slot(segments), first_id=state.next_id, own_ids=False
    )
    segments = (*segments, Segment(slab, 0, 0, None, 0))
    return State(state.form, segments, state.id_map, state.next_id, state.screen)


def compacted(state: State) -> State:
    """The state with all rows in one slab of exactly their size, in the order in which their ids
    were first added.
    """
    ids = ids_as_added(state)
    if len(ids) == 0:
        return State(state.form, (), IdMap(), state.next_id)
    own_ids = not consecutive(ids)
    slab = new_slab(
        state.form, len(ids), slot=0, first_id=0 if own_ids else int(ids[0]), own_ids=own_ids
    )
    segment = Segment(slab, 0, 0, None, 0)
    for rows in live_rows(state, COPY_BYTES):
        begin = segment.n_rows
        segment = _copied(segment, rows, ids[begin : begin + len(rows)])
    id_map = IdMap().put(ids, 0) if own_ids else IdMap()
    screen = None if state.screen is None else state.screen.moved(new_slots(state))
    after = State(state.form, (segment,), id_map, state.next_id, screen)
    if screen is not None and not screen.is_proved:  # its records may be of the codes before
        return after if screen_fault(after) < 0 else after.with_screen(None)
    return after


def live_rows(state: State, n_bytes: int) -> Iterator[Rows]:
    """The rows of a state in the order in which their ids were first added, in parts of about
    ``n_bytes``; only parts with removed or updated rows are copied.
    """
    step = max(n_bytes // state.form.row_bytes, 1)
    if state.order is not None:
        slots = slots_as_added(state)
        for begin in range(0, len(slots), step):
            yield rows_at(state, slots[begin : begin + step])
        return
    for segment in state.segments:
        live = None if segment.live is None else segment.live_mask()
        for begin in range(0, segment.n_rows, step):
            end = min(begin + step, segment.n_rows)
            part = finite_rows(segment, begin, end)
            yield part if live is None else state.form.memory.taken(part, live[begin:end])


def consecutive(ids: NDArray[np.int64]) -> bool:
    """Whether each id is one more than the id before it."""
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


def _may_grow(segment: Segment, first: int, ids: Int64s, implied: bool) -> bool:
    """Whether rows with these ids may follow those of the segment."""
    slab = segment.slab
    if segment.n_rows == 0 and slab.ids is None:  # reserved
        if not implied:
            slab.own_ids()
        slab.first_id = first
        return True
    if slab.ids is not None:
        return True
    return first == slab.first_id + segment.n_rows and (implied or consecutive(ids))


def _grown(segment: Segment, new: _New, begin: int, end: int) -> Segment:
    """The segment with new rows ``begin`` to ``end`` at its end."""
    bad = segment.slab.write(new.rows[begin:end], new.ids[begin:end], segment.n_rows)
    if bad >= 0:
        raise ValueError(
            f"vectors hold a value that is not finite in {segment.slab.form.dtype} "
            f"in row {begin + bad}; nothing was added: remove NaN and infinity first"
        )
    return segment.grown(end - begin, None if new.began is None else new.began[begin:end])


def _copied(segment: Segment, rows: Rows, ids: Int64s) -> Segment:
    """The segment with these rows of the index at its end."""
    bad = segment.slab.write(rows, ids, segment.n_rows)
    if bad >= 0:
        raise row_fault(int(ids[bad]))
    return segment.grown(len(rows))


def _remember(id_map: IdMap, segment: Segment, n_new: int) -> IdMap:
    """The map with the ids of the last rows of a segment, unless they are implied."""
    if segment.slab.ids is None:
        return id_map
    begin = segment.n_rows - n_new
    return id_map.put(segment.slab.ids[begin : segment.n_rows], segment.slab.slot + begin)


def _larger(state: State, other: State, taken: Sequence[Segment], base: int) -> Screen | None:
    """The screen of a state, or that of another of which these segments move by ``base`` slots."""
    ours, theirs = state.screen, other.screen
    if theirs is None or (ours is not None and ours.n_rows >= theirs.n_rows):
        return ours
    moved = np.full(_next_slot(other.segments), -1, np.int64)
    for segment in taken:  # slots of the others are given to rows that are added later
        slots = segment.slab.slots(0, segment.n_rows)
        moved[slots] = base + slots
    return theirs.moved(moved)


def _of_live_rows(screen: Screen | None, segments: Sequence[Segment]) -> Screen | None:
    """The screen, unless its last row is gone."""
    if screen is None:
        return None
    gone = sum(segment.n_rows - segment.n_live for segment in segments)
    return screen if gone < screen.n_rows or screen.n_live(segments) else None


def _next_slot(segments: tuple[Segment, ...]) -> int:
    return segments[-1].slab.slot + segments[-1].slab.capacity if segments else 0
