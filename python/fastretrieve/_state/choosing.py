"""How many numbers the heads of a screen have, by what held-out rows would save.

How near are their neighbours, how many rows would still have to be compared, and what would both
kinds of search cost on this machine? Rows are easier than most queries, so a search looks at its
own leaves once more before it relies on them (``csrc/cpu/screen/walk.cpp``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._common.arrays import as_float
from fastretrieve._state.locating import rows_at
from fastretrieve._state.slabs import STRIP_ROWS
from fastretrieve._state.spectrum import (
    Axes,
    Doubles,
    in_range,
    lifted_queries,
    lifted_rows,
    some,
)
from fastretrieve._state.state import State

HEADS = (32, 48, 64, 96, 128, 192, 256)  # numbers of a head
BOX_AXES = 16
ORDER_AXES = 32  # across which rows are sorted into leaves
JUDGE_ROWS, JUDGE_QUERIES, JUDGE_K = 16384, 64, 10
JUDGE_BYTES = 128 << 20
EASIER = 2.0  # rows leave so many times fewer rows than queries from elsewhere do
LEAST_GAIN = 1.15  # over the ordinary scan, predicted
MANY = 1024  # queries of a large batch


class Choice(NamedTuple):
    head: int  # 0: none
    gain_of_one: float
    gain_of_many: float
    near: float  # share of rows that heads leave, for held-out rows


def choose_head(
    state: State, axes: Axes, slots: NDArray[np.int64], rng: np.random.Generator
) -> Choice:
    """The head that saves most on rows that were held out, if it saves enough."""
    judging = min(JUDGE_ROWS, JUDGE_BYTES // (8 * state.form.dim))
    asked, others = (some(slots, n, rng) for n in (JUDGE_QUERIES, judging))
    queries, rows = (
        in_range(as_float(rows_at(state, which)).astype(np.float64)) for which in (asked, others)
    )
    lifted, radius = lifted_rows(state.form.metric, rows)
    reach = _neighbour_distances(state, queries, radius)
    lifted = np.concatenate([lifted_queries(state.form.metric, queries, radius), lifted])
    lifted -= axes.mean
    far = np.einsum("ij,ij->i", lifted, lifted)
    along = lifted @ axes.rows.T
    near = _share_near(along, len(queries), reach, len(slots))
    best = Choice(0, 0.0, 0.0, 1.0)
    for head in HEADS:
        if head - 1 > len(axes.rows) or head > _largest_head(state.form.dim):
            continue
        left = EASIER * _share_left(along[:, : head - 1], far, len(queries), reach, head)
        gains = [_gain(state, head, near, left, len(slots), n) for n in (1, MANY)]
        if np.prod(gains) > best.gain_of_one * best.gain_of_many:
            best = Choice(head, gains[0], gains[1], left)
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
