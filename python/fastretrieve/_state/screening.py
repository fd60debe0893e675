"""Make the screen of a state, or say why none would pay.

``spectrum.py`` finds the axes of a sample, ``choosing.py`` the length of a head; here the parts of
the screen are written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._backends.memory import HOST
from fastretrieve._common.arrays import as_float, core_matrix
from fastretrieve._common.progress import Progress
from fastretrieve._state.choosing import BOX_AXES, HEADS, MANY, ORDER_AXES, Choice, choose_head
from fastretrieve._state.locating import rows_at
from fastretrieve._state.recall import RECALL_KS, RECALL_STEPS
from fastretrieve._state.screen import MAX_SLOT, RECALL, Screen
from fastretrieve._state.segments import Segment
from fastretrieve._state.slabs import STRIP_ROWS
from fastretrieve._state.spectrum import (
    LONGEST,
    SHORTEST,
    Axes,
    principal_axes,
    sample_of,
    some,
    spread_of,
)
from fastretrieve._state.state import State

MIN_ROWS = 4096  # a scan of fewer takes microseconds
MIN_DIM = 64  # shorter vectors are read as fast as heads
LOOK_ROWS = 512  # that show whether there is a spectrum at all
BASIS_ROWS, BASIS_BYTES = 16384, 128 << 20
LATTICE_ROWS = 65536  # that choose the step of the codes
MOST_DIMENSIONS = 0.5  # of the numbers of a vector over which its variance may be spread

Floats = NDArray[np.float32]


def make_screen(state: State, progress: Progress | None) -> tuple[Screen | None, str]:
    """A screen of all live rows in whole strips, or None, and why."""
    steps = _Steps(progress)
    slots = _covered_slots(state)
    if len(slots) < MIN_ROWS:
        return None, f"{len(slots)} rows in whole strips are scanned at once as they are"
    if state.form.dim < MIN_DIM:
        return None, f"vectors of fewer than {MIN_DIM} numbers are read as fast as heads"
    if int(slots[-1]) > MAX_SLOT:
        return None, f"a screen takes up to {MAX_SLOT} rows that an index ever had"
    rng = np.random.default_rng(0)
    look = sample_of(state, slots, LOOK_ROWS, rng).lifted
    if len(look) < 2:
        return None, f"their lengths lie outside [{SHORTEST:g}, {LONGEST:g}]"
    spread = spread_of(look)
    if spread > MOST_DIMENSIONS * state.form.dim:
        dim = state.form.dim
        return None, (
            f"the variance of these vectors is spread over {min(spread, dim):.0f} of {dim} "
            f"dimensions; a screen can pay below {MOST_DIMENSIONS * dim:.0f}"
        )
    steps.done(1)
    n_known = min(BASIS_ROWS, BASIS_BYTES // (8 * state.form.dim))
    sample = sample_of(state, slots, max(n_known, 2 * MIN_DIM), rng)
    held_out = len(sample.lifted) // 8
    axes = principal_axes(sample.lifted[held_out:], max(HEADS))
    steps.done(5)
    choice = choose_head(state, axes, slots, rng)
    if choice.head == 0:
        return None, (
            f"heads would make a search {choice.gain_of_one:.2f} times as fast for one query and "
            f"{choice.gain_of_many:.2f} times for {MANY}, by rows that were held out"
        )
    steps.done(10)
    builder = _Builder(state, slots, axes, sample.radius, choice, rng)
    heads, slack = builder.projected()
    if not len(heads):
        return None, "no row has a length and a direction"
    arrays = builder.arrays(heads, slack, steps)
    return Screen(state.form.metric, state.form.dim, arrays), (
        f"heads of {choice.head} numbers leave {choice.near:.2%} of the rows of held-out queries: "
        f"about {choice.gain_of_one:.1f} times as fast for one query, "
        f"{choice.gain_of_many:.1f} times for {MANY}"
    )


class _Steps:
    """Tells in hundredths how far the work is."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def done(self, hundredths: int) -> None:
        if self._progress is not None:
            self._progress(hundredths, 100)


def _covered_slots(state: State) -> NDArray[np.int64]:
    """The slots of all live rows in whole strips, ascending."""
    parts = []
    for segment in state.segments:
        n = segment.n_strips * STRIP_ROWS
        rows = np.arange(n) if segment.live is None else np.flatnonzero(segment.live_mask()[:n])
        parts.append(segment.slab.slot + rows)
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


class _Builder:
    """Writes the arrays of a screen."""

    def __init__(
        self,
        state: State,
        slots: NDArray[np.int64],
        axes: Axes,
        radius: float,
        choice: Choice,
        rng: np.random.Generator,
    ) -> None:
        self.state, self.slots, self.choice, self.rng = state, slots, choice, rng
        head = choice.head
        # A random turn of the axes and of the tail spreads the numbers of a head evenly.
        turn = np.linalg.qr(np.random.default_rng(2).standard_normal((head, head)))[0]
        self.mean = axes.mean.astype(np.float32)
        self.basis = (turn[:, : head - 1] @ axes.rows[: head - 1]).astype(np.float32)
        self.tail = np.ascontiguousarray(turn[:, head - 1]).astype(np.float32)
        self.box_axes = np.ascontiguousarray(turn[:, :BOX_AXES].T).astype(np.float32)
        self.order_axes = turn[:, :ORDER_AXES].astype(np.float32)
        self.radius = self._radius() if state.form.metric == "ip" else radius
        self.tail_centre = 0.0
        self.tail_centre = self._mean_tail()

    def arrays(self, heads: Floats, slack: Floats, steps: _Steps) -> dict[str, NDArray[Any]]:
        """All arrays, under their names in a file."""
        steps.done(50)
        step, error = self._lattice(heads, slack)
        order = _core.order_leaves(np.ascontiguousarray(heads @ self.order_axes))
        steps.done(65)
        n_leaves = -(-len(order) // STRIP_ROWS)
        strip = STRIP_ROWS * self.choice.head + 4 * STRIP_ROWS
        leaves = HOST.empty((n_leaves, strip), np.uint8)
        centres = HOST.empty((-(-n_leaves // STRIP_ROWS), strip), np.uint8)
        boxes = HOST.empty((-(-n_leaves // 16), BOX_AXES, 2, 16), np.float32)
        self._map().pack_leaves(
            step=step,
            error=error,
            heads=heads,
            slack=slack,
            order=order,
            leaves=leaves,
            centres=centres,
            boxes=boxes,
        )
        steps.done(80)
        places = HOST.empty((n_leaves * STRIP_ROWS,), np.int32)
        places[: len(order)] = self.slots[order]
        places[len(order) :] = -1
        records = self._records(places)
        steps.done(100)
        numbers = [self.tail_centre, step, error, self.radius, self.choice.near, 0, 0, 0]
        return {
            "screen_numbers": np.array(numbers, np.float64),
            "screen_mean": self.mean,
            "screen_basis": self.basis,
            "screen_tail": self.tail,
            "screen_axes": self.box_axes,
            "screen_heads": leaves,
            "screen_centres": centres,
            "screen_boxes": boxes,
            "screen_records": records,
            "screen_places": places,
            RECALL: np.zeros((len(RECALL_KS), RECALL_STEPS + 1), np.float32),
        }

    def _map(self) -> _core.HeadMap:
        return _core.HeadMap(
            metric=self.state.form.metric,
            dim=self.state.form.dim,
            mean=self.mean,
            basis=self.basis,
            tail=self.tail,
            axes=self.box_axes,
            tail_centre=self.tail_centre,
            radius=self.radius,
        )

    def _radius(self) -> float:
        """At least the length of every row; what rounding lost makes a few rows always survive."""
        longest = 0.0
        for segment in self.state.segments:
            rows = segment.rows[: segment.n_strips * STRIP_ROWS]
            for begin in range(0, len(rows), 65536):
                part = as_float(rows[begin : begin + 65536])
                squares = np.einsum("ij,ij->i", part, part, dtype=np.float64)
                longest = max(longest, float(squares.max(initial=0.0)))
        return min(float(np.sqrt(longest) * (1 + 1e-9)), LONGEST)

    def _mean_tail(self) -> float:
        rows = rows_at(self.state, some(self.slots, 4096, self.rng))
        heads, slack = self._map().project(self.state.form.backend, core_matrix(rows))
        heads = heads[np.isfinite(slack)].astype(np.float64)
        return float(np.mean(heads @ self.tail.astype(np.float64))) if len(heads) else 0.0

    def projected(self) -> tuple[Floats, Floats]:
        """The heads of all covered rows in order of slot, and their slack. Rows of which a head
        says nothing, such as a zero vector under cosine, are not covered.
        """
        heads = HOST.empty((len(self.slots), self.choice.head), np.float32)
        slack = HOST.empty((len(self.slots),), np.float32)
        mapping, begin = self._map(), 0
        for segment in self.state.segments:
            for part in _runs(segment):
                rows = core_matrix(segment.rows[part.start : part.stop])
                end = begin + part.stop - part.start
                heads[begin:end], slack[begin:end] = mapping.project(self.state.form.backend, rows)
                begin = end
        known = np.isfinite(slack)
        if not known.all():
            self.slots, heads, slack = self.slots[known], heads[known], slack[known]
        return heads, slack

    def _lattice(self, heads: Floats, slack: Floats) -> tuple[float, float]:
        """The step of the codes, and the error that all rows but one in ten thousand keep."""
        stride = max(len(heads) // LATTICE_ROWS, 1)
        sample, slack = heads[::stride], slack[::stride]
        sample = sample.astype(np.float64)
        largest = np.abs(sample).max(axis=1)
        step = float(np.quantile(largest, 0.9999)) / 127
        step = step if step > 0 else 1.0
        codes = np.clip(np.rint(sample / step), -127, 127)
        errors = np.sqrt(np.square(sample - step * codes).sum(axis=1)) + slack
        return step, float(np.quantile(errors, 0.9999) * (1 + 1e-6))

    def _records(self, places: NDArray[np.int32]) -> NDArray[np.uint8]:
        form = self.state.form
        size = _core.record_bytes(form.dim, form.metric)
        records = HOST.empty((len(places), size), np.uint8)
        starts = [segment.slab.slot for segment in self.state.segments]
        _core.copy_records(self.state.snapshot.native, starts, places, records)
        return records


def _runs(segment: Segment, most: int = 32768) -> list[slice]:
    """The live rows of a segment's whole strips as runs of at most ``most``."""
    n = segment.n_strips * STRIP_ROWS
    if segment.live is None:
        edges = np.array([0, n])
    else:
        live = np.concatenate([[False], segment.live_mask()[:n], [False]])
        edges = np.flatnonzero(live[1:] != live[:-1])
    return [
        slice(at, min(at + most, end))
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
        for at in range(begin, end, most)
    ]
