"""A screen that proves nothing, for any rows of at least 15 numbers: each of them survives, so that
answers are those of a scan. It has the form and the life of one that ``optimize`` makes, also for
the few rows of a test.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import fastretrieve as fr
from fastretrieve import _core
from fastretrieve._state.screen import TENSORS, Screen, sizes, slots_of
from fastretrieve._state.state import State

HEAD = 16
ALWAYS = 1 << 29  # csrc/core/screen.hpp: the start of a head that survives every query
NUMPY = {"U8": np.uint8, "I32": np.int32, "F32": np.float32, "F64": np.float64}


def screened(index: fr.Index, *, seed: int = 0) -> fr.Index:
    """The index with a screen of its live rows in whole strips, in any order."""
    if len(slots_in_strips(index._state)):
        index._state = index._state.with_screen(screen_of(index._state, seed))
    return index


def screen_of(state: State, seed: int) -> Screen:
    form, random = state.form, np.random.default_rng(seed)
    slots = random.permutation(slots_in_strips(state))
    places = np.full(-(-len(slots) // 64) * 64, -1, np.int32)
    places[: len(slots)] = slots
    known = sizes(form.metric, form.dim, head=HEAD, leaves=len(places) // 64)
    arrays = {
        name: np.zeros([known.get(size, size) for size in shape], NUMPY[dtype])  # type: ignore[call-overload]
        for name, (dtype, shape) in TENSORS.items()
    }
    arrays["screen_places"] = places
    for name in ("screen_heads", "screen_centres"):
        arrays[name][:, : 64 * HEAD] = 128
        arrays[name][:, 64 * HEAD :].view(np.int32)[:] = ALWAYS
    arrays["screen_basis"][:-1, : HEAD - 1] = np.eye(HEAD - 1)
    arrays["screen_tail"][-1] = 1
    arrays["screen_axes"][:, :HEAD] = np.eye(16, HEAD)
    arrays["screen_boxes"][:, :, 0], arrays["screen_boxes"][:, :, 1] = -np.inf, np.inf
    arrays["screen_numbers"][:] = 1
    segments, slots = state.with_screen(None).snapshot.native, slots_of(state.segments)
    _core.copy_records(segments, slots, places, arrays["screen_records"])
    return Screen(form.metric, form.dim, arrays)


def slots_in_strips(state: State) -> NDArray[np.int64]:
    """The slots of the live rows that have codes."""
    parts = [
        segment.slab.slot + np.flatnonzero(segment.live_mask()[: 64 * segment.n_strips])
        for segment in state.segments
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def covered_ids(index: fr.Index) -> list[int]:
    """The ids of the live rows that the screen of an index covers, sorted."""
    state, found = index._state, list[int]()
    if state.screen is None:
        return found
    places = state.screen.places[state.screen.places >= 0].astype(np.int64)
    for segment in state.segments:
        rows = places[segment.holds(places)] - segment.slab.slot
        known = np.zeros(segment.slab.capacity, dtype=bool)
        known[rows] = True
        words = state.screen.covered(segment)
        bits = np.zeros(0, np.uint8) if words is None else words.view(np.uint8)
        spread = np.unpackbits(bits, bitorder="little")[: len(known)].astype(bool)
        assert spread.tolist() == known.tolist() if len(rows) else words is None
        found += segment.row_ids()[rows[segment.alive(rows)]].tolist()
    return sorted(found)
