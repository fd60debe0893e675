"""Make the screen of a state: choose a map to heads by what it would save, then write its parts.

The basis is that of the principal axes of a sample. How many numbers a head has, or that there is
none, is decided by held-out rows: how near are their neighbours, how many rows would still have to
be compared, and what would both kinds of search cost on this machine? Rows are easier than most
queries, so a search looks at its own leaves once more before it relies on them
(``csrc/cpu/screen/walk.cpp``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._backends.memory import HOST
from fastretrieve._common.arrays import as_float, core_matrix
from fastretrieve._common.progress import Progress
from fastretrieve._state.locating import rows_at
from fastretrieve._state.recall import RECALL_KS, RECALL_STEPS
from fastretrieve._state.screen import MAX_SLOT, RECALL, Screen
from fastretrieve._state.segments import Segment
from fastretrieve._state.slabs import STRIP_ROWS
from fastretrieve._state.state import State

MIN_ROWS = 4096  # a scan of fewer takes microseconds
HEADS = (32, 48, 64, 96, 128, 192, 256)  # numbers of a head
BOX_AXES = 16
ORDER_AXES = 32  # across which rows are sorted into leaves
MIN_DIM = 64  # shorter vectors are read as fast as heads
LOOK_ROWS = 512  # that show whether there is a spectrum at all
BASIS_ROWS, BASIS_BYTES = 16384, 128 << 20
MAX_EXACT_DIM = 1024  # beyond, only the first axes are computed
JUDGE_ROWS, JUDGE_QUERIES, JUDGE_K = 16384, 64, 10
EASIER = 2.0  # rows leave so many times fewer rows than queries from elsewhere do
SHORTEST, LONGEST = 2.0**-60, 2.0**60  # beyond, a row always survives: docs/exactness.md
LATTICE_ROWS = 65536  # that choose the step of the codes
MOST_DIMENSIONS = 0.5  # of the numbers of a vector over which its variance may be spread
LEAST_GAIN = 1.15  # over the ordinary scan, predicted
MANY = 1024  # queries of a large batch

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class _Sample(NamedTuple):
    """Rows of the index, lifted so that the better row is the nearer one."""

    lifted: Doubles
    radius: float  # of inner products: the length of the longest row


class _Axes(NamedTuple):
    """Principal axes, the widest first, and the mean that they leave out."""

    mean: Doubles
    rows: Doubles  # [n_axes, lifted]


class _Choice(NamedTuple):
    head: int  # 0: none
    gain_of_one: float
    gain_of_many: float
    near: float  # share of rows that heads leave, for held-out rows


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
    look = _sample(state, slots, LOOK_ROWS, rng).lifted
    if len(look) < 2:
        return None, f"their lengths lie outside [{SHORTEST:g}, {LONGEST:g}]"
    spread = _spread(look)
    if spread > MOST_DIMENSIONS * state.form.dim:
        return None, (
            f"the variance of these vectors is spread over {spread:.0f} of {state.form.dim} "
            f"dimensions; a screen can pay below {MOST_DIMENSIONS * state.form.dim:.0f}"
        )
    steps.done(1)
    n_known = min(BASIS_ROWS, BASIS_BYTES // (8 * state.form.dim))
    sample = _sample(state, slots, max(n_known, 2 * MIN_DIM), rng)
    held_out = len(sample.lifted) // 8
    axes = _principal_axes(sample.lifted[held_out:], max(HEADS))
    steps.done(5)
    choice = _choose(state, axes, slots, rng)
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


# --- the map --------------------------------------------------------------------------------------


def _sample(state: State, slots: NDArray[np.int64], n: int, rng: np.random.Generator) -> _Sample:
    """About ``n`` rows, in random order."""
    rows = _in_range(as_float(rows_at(state, _some(slots, n, rng))).astype(np.float64))
    rng.shuffle(rows)
    lifted, radius = _lifted(state.form.metric, rows)
    return _Sample(lifted, radius)


def _in_range(rows: Doubles) -> Doubles:
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    inside: Doubles = rows[(lengths == 0) | ((lengths >= SHORTEST) & (lengths <= LONGEST))]
    return inside


def _some(slots: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """About ``n`` different slots, ascending; all if there are no more."""
    return slots if n >= len(slots) else slots[np.unique(rng.integers(len(slots), size=n))]


def _lifted(metric: str, rows: Doubles) -> tuple[Doubles, float]:
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    if metric == "cosine":
        return rows / np.where(lengths > 0, lengths, 1)[:, None], 0.0
    if metric != "ip":
        return rows, 0.0
    radius = float(lengths.max(initial=0))
    rest = np.sqrt(np.maximum(radius**2 - lengths**2, 0))
    return np.concatenate([rows, rest[:, None]], axis=1), radius


def _lifted_queries(metric: str, queries: Doubles, radius: float) -> Doubles:
    if metric != "ip":
        return _lifted(metric, queries)[0]
    lengths = np.sqrt(np.einsum("ij,ij->i", queries, queries))
    scaled = queries * (radius / np.where(lengths > 0, lengths, 1))[:, None]
    return np.pad(scaled, [(0, 0), (0, 1)])


def _spread(rows: Doubles) -> float:
    """Over how many dimensions the variance is spread: tr(C)^2 / tr(C^2) of the covariance C, from
    the products of different rows, so that few rows do not look like few dimensions.
    """
    centred = rows - rows.mean(axis=0)
    products = centred @ centred.T
    lengths = np.diag(products)
    n = len(rows)
    squares = float(np.einsum("ij,ij->", products, products) - np.square(lengths).sum())
    return float(lengths.mean()) ** 2 * n * (n - 1) / squares if squares > 0 else 0.0


def _principal_axes(lifted: Doubles, n_axes: int) -> _Axes:
    mean = lifted.mean(axis=0)
    return _Axes(mean, _widest(lifted - mean, min(n_axes, lifted.shape[1])))


def _widest(centred: Doubles, n_axes: int) -> Doubles:
    """The orthonormal axes along which these rows vary most."""
    n, dim = centred.shape
    if dim <= MAX_EXACT_DIM and n > dim // 2:
        _, axes = np.linalg.eigh(centred.T @ centred)
        return np.ascontiguousarray(axes[:, ::-1][:, :n_axes].T)
    # The first axes only, by three rounds of a block of random directions.
    block = np.random.default_rng(1).standard_normal((dim, min(n_axes + 16, dim)))
    for _ in range(3):
        block = np.linalg.qr(centred.T @ (centred @ block))[0]
    small = centred @ block
    _, turn = np.linalg.eigh(small.T @ small)
    axes = block @ turn[:, ::-1][:, :n_axes]
    return np.ascontiguousarray(np.linalg.qr(axes)[0].T)


# --- the choice -----------------------------------------------------------------------------------


def _choose(
    state: State, axes: _Axes, slots: NDArray[np.int64], rng: np.random.Generator
) -> _Choice:
    """The head that saves most on rows that were held out, if it saves enough."""
    judging = min(JUDGE_ROWS, BASIS_BYTES // (8 * state.form.dim))
    asked, others = (_some(slots, n, rng) for n in (JUDGE_QUERIES, judging))
    queries, rows = (
        _in_range(as_float(rows_at(state, which)).astype(np.float64)) for which in (asked, others)
    )
    lifted, radius = _lifted(state.form.metric, rows)
    reach = _neighbour_distances(state, queries, radius)
    lifted = np.concatenate([_lifted_queries(state.form.metric, queries, radius), lifted])
    lifted -= axes.mean
    far = np.einsum("ij,ij->i", lifted, lifted)
    along = lifted @ axes.rows.T
    near = _share_near(along, len(queries), reach, len(slots))
    best = _Choice(0, 0.0, 0.0, 1.0)
    for head in HEADS:
        if head - 1 > len(axes.rows) or head > _largest_head(state.form.dim):
            continue
        left = EASIER * _share_left(along[:, : head - 1], far, len(queries), reach, head)
        gains = [_gain(state, head, near, left, len(slots), n) for n in (1, MANY)]
        if np.prod(gains) > best.gain_of_one * best.gain_of_many:
            best = _Choice(head, gains[0], gains[1], left)
    pays = np.sqrt(best.gain_of_one * best.gain_of_many) >= LEAST_GAIN
    return best if pays else best._replace(head=0)


def _largest_head(dim: int) -> int:
    """So large that screen and codes take at most 0.6 of the bytes of float32 from 384 numbers on,
    and 0.75 at 128.
    """
    return max(dim // 3, min(96, dim * 3 // 4))


def _share_near(along: Doubles, n_queries: int, reach: Doubles, n_rows: int) -> float:
    """The share of leaves whose boxes reach these queries. More rows make smaller leaves, and a
    power of their number says how much smaller.
    """
    points = np.ascontiguousarray(along[n_queries:, :ORDER_AXES], np.float32)
    order = _core.order_leaves(points)
    n_leaves = len(order) // STRIP_ROWS
    if n_leaves < 2:
        return 1.0
    leaves = along[n_queries:, :BOX_AXES][order[: n_leaves * STRIP_ROWS]]
    leaves = leaves.reshape(n_leaves, STRIP_ROWS, -1)
    low, high = leaves.min(axis=1), leaves.max(axis=1)
    at = along[:n_queries, None, :BOX_AXES]
    outside = np.maximum(np.maximum(low - at, at - high), 0)
    share = float(np.mean(np.square(outside).sum(axis=2) <= np.square(reach)[:, None]))
    power = np.log(max(n_rows / STRIP_ROWS, 2)) / np.log(n_leaves)
    return float(share ** max(float(power), 1.0))


def _neighbour_distances(state: State, queries: Doubles, radius: float) -> Doubles:
    """How far, between lifted vectors, each row's tenth neighbour is, itself aside."""
    form = state.form
    counters = form.backend.counters()
    rows = form.backend.as_rows(queries.astype(np.float32), name="queries")
    scores, _ = form.backend.search(rows, state.snapshot, JUDGE_K + 1, counters, True)
    kth: Doubles = np.nan_to_num(np.asarray(scores, np.float64)[:, -1])
    if form.metric == "l2":
        return kth
    if form.metric == "sqeuclidean":
        squares = kth
    elif form.metric == "cosine":
        squares = 2 - 2 * kth
    else:
        lengths = np.sqrt(np.einsum("ij,ij->i", queries, queries))
        squares = 2 * radius * (radius - kth / np.where(lengths > 0, lengths, 1))
    distances: Doubles = np.sqrt(np.maximum(squares, 0))
    return distances


def _share_left(along: Doubles, far: Doubles, n_queries: int, reach: Doubles, head: int) -> float:
    """The share of rows that heads of this size would leave for these queries."""
    tails = np.sqrt(np.maximum(far - np.einsum("ij,ij->i", along, along), 0))
    queries, rows = along[:n_queries], along[n_queries:]
    squares = np.einsum("ij,ij->i", along, along)
    apart = squares[:n_queries, None] + squares[None, n_queries:] - 2 * queries @ rows.T
    apart += (tails[:n_queries, None] - tails[None, n_queries:]) ** 2
    # A random turn spreads a head evenly over its numbers; codes lose half a step in each.
    step = np.sqrt(far.max() / head) * 4.2 / 127
    lost = 2 * 1.15 * step * np.sqrt(head / 12)
    return float(np.mean(apart <= (reach[:, None] + lost) ** 2))


def _gain(state: State, head: int, near: float, left: float, n_rows: int, n_queries: int) -> float:
    """How many times faster a search would be for a batch of this size."""
    form = state.form
    leaf, record, scan, seeds = _core.screen_costs(
        form.backend,
        metric=form.metric,
        dim=form.dim,
        head_dim=head,
        n_rows=n_rows,
        n_queries=n_queries,
    )
    walk = n_rows * (near * leaf + left * record) + seeds
    return float(n_rows * scan / walk)


# --- the parts ------------------------------------------------------------------------------------


class _Builder:
    """Writes the arrays of a screen."""

    def __init__(
        self,
        state: State,
        slots: NDArray[np.int64],
        axes: _Axes,
        radius: float,
        choice: _Choice,
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
        rows = rows_at(self.state, _some(self.slots, 4096, self.rng))
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
