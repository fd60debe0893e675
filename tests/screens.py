"""A small screen for any live rows of at least 15 numbers, made with the core by the shortest way.

``optimize`` makes better ones and refuses small or unsuitable rows; what such a screen proves is as
true, and its life is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastretrieve as fr
from fastretrieve import _core
from fastretrieve._common.arrays import as_float
from fastretrieve._state.locating import rows_at
from fastretrieve._state.screen import TENSORS, Screen, sizes, slots_of
from fastretrieve._state.state import State

HEAD = 16
NEVER = -(1 << 29)  # csrc/core/screen.hpp: the start of a head that no query reads
NUMPY: dict[str, Any] = {"U8": np.uint8, "I32": np.int32, "F32": np.float32, "F64": np.float64}


@contextmanager
def always_screened() -> Iterator[None]:
    """Let every search go through the screen, whatever it costs."""
    _core.use_screens("always")
    try:
        yield
    finally:
        _core.use_screens("by cost")


def screened(index: fr.Index, *, seed: int = 0) -> fr.Index:
    """The index with a screen of its live rows in whole strips, if there are any."""
    if len(slots_in_strips(index._state)):
        index._state = index._state.with_screen(screen_of(index._state, seed))
    return index


def screen_of(
    state: State,
    seed: int = 0,
    *,
    turn: Callable[..., tuple[float, float]] | None = None,
    error: float | None = None,
) -> Screen:
    """``turn`` fills in the map in place of ``_turn``; ``error`` is what codes may be off by."""
    form, slots = state.form, slots_in_strips(state)
    known = sizes(form.metric, form.dim, head=HEAD, leaves=-(-len(slots) // 64))
    arrays = {
        name: np.zeros([known.get(str(size), size) for size in shape], NUMPY[dtype])
        for name, (dtype, shape) in TENSORS.items()
    }
    rows = np.ascontiguousarray(as_float(rows_at(state, slots)), np.float32)
    radius, centre = (turn or _turn)(rows, form.metric, arrays, seed)
    names = ("mean", "basis", "tail", "axes")
    of_map = {name: arrays[f"screen_{name}"] for name in names}
    native = _core.HeadMap(
        metric=form.metric, dim=form.dim, **of_map, tail_centre=centre, radius=radius
    )
    heads, slack = native.project(form.backend, rows)  # type: ignore[arg-type]
    step = max(float(np.abs(heads).max()) / 127, 1e-30)
    if error is None:
        error = step * HEAD**0.5 / 2 + 2 * float(slack[np.isfinite(slack)].max(initial=0))
    order = _core.order_leaves(np.ascontiguousarray(heads @ arrays["screen_axes"].T))
    native.pack_leaves(
        step=step,
        error=error,
        heads=heads,
        slack=slack,
        order=order,
        leaves=arrays["screen_heads"],
        centres=arrays["screen_centres"],
        boxes=arrays["screen_boxes"],
    )
    arrays["screen_places"][:] = -1
    arrays["screen_places"][: len(slots)] = slots[order]
    arrays["screen_numbers"][:4] = centre, step, error, radius
    segments = state.with_screen(None).snapshot.native
    places, records = arrays["screen_places"], arrays["screen_records"]
    _core.copy_records(segments, slots_of(state.segments), places, records)
    return Screen(form.metric, form.dim, arrays)


def _turn(
    rows: NDArray[np.float32], metric: str, arrays: dict[str, NDArray[Any]], seed: int
) -> tuple[float, float]:
    """Principal axes of the lifted rows and the length of the rest, turned at random. Returns the
    radius and the mean of these lengths.
    """
    norms = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    radius, lifted = float(norms.max()) * (1 + 1e-12), rows.astype(np.float64)
    if metric == "cosine":
        lifted = np.divide(lifted, norms, out=np.zeros_like(lifted), where=norms > 0)
    if metric == "ip":
        lifted = np.hstack([lifted, np.sqrt(np.maximum(radius**2 - norms**2, 0))])
    arrays["screen_mean"][:] = lifted.mean(axis=0)
    lifted = lifted - arrays["screen_mean"]
    axes = np.linalg.eigh(lifted.T @ lifted)[1][:, ::-1].T[: HEAD - 1]
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((HEAD, HEAD)))[0]
    arrays["screen_basis"][:] = turn[:, :-1] @ axes
    arrays["screen_tail"][:] = turn[:, -1]
    arrays["screen_axes"][:] = turn.T
    rest = (lifted**2).sum(axis=1) - ((lifted @ axes.T) ** 2).sum(axis=1)
    return radius, float(np.sqrt(np.maximum(rest, 0)).mean())


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
