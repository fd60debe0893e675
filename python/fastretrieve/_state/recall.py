"""How many leaves a search must read to find a share of the true neighbours: measured, not proved.

``Index.optimize`` measures it against the exact search, on queries of the caller or on rows of the
index, and the screen keeps the curve. It is a statistic of queries like those.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._state.locating import locate
from fastretrieve._state.screen import RECALL, Screen
from fastretrieve._state.slabs import STRIP_ROWS
from fastretrieve._state.state import State

RECALL_KS = (1, 10, 100)  # for which it is measured; one in between takes the larger
RECALL_STEPS = 128  # numbers of leaves, spread evenly over their logarithm
MOST_KNOWN = 256  # answers of `probes_for` that a screen keeps
RECALL_QUERIES = 512  # rows that ask if the caller has no queries


def leaf_counts(n_leaves: int) -> NDArray[np.int64]:
    """The numbers of leaves at which recall is measured, from one to all."""
    powers = np.arange(RECALL_STEPS + 1) / RECALL_STEPS
    counts = np.ceil(n_leaves**powers - 1e-9).astype(np.int64)
    counts[-1] = n_leaves
    return counts


def measure_recall(
    state: State, queries: NDArray[Any], own_ids: NDArray[np.int64] | None
) -> NDArray[np.float32]:
    """The share of true neighbours in the nearest leaves, [k, number of leaves]. ``own_ids`` are
    those of queries that are rows of the index, which are not their own neighbours.
    """
    screen, backend, snapshot = state.screen, state.form.backend, state.snapshot
    assert screen is not None
    n_leaves = screen.n_leaves
    order = _core.nearest_leaves(backend, queries, snapshot.native, n_leaves)
    rank = np.zeros((len(order), n_leaves + 1), np.int32)  # the last column: rows in no leaf
    rows, columns = np.nonzero(order >= 0)
    rank[rows, order[rows, columns]] = columns
    rank[:, n_leaves] = -1
    counters = backend.counters()
    most = max(RECALL_KS) + (own_ids is not None)
    ids = np.asarray(backend.search(queries, snapshot, most, counters, True)[1])
    if own_ids is not None:
        drop = ids == own_ids[:, None]
        drop[~drop.any(axis=1), -1] = True
        ids = ids[~drop].reshape(len(ids), -1)
    known = ids >= 0
    leaf_of = np.full(int(screen.places.max()) + 2, n_leaves)
    positions = np.flatnonzero(screen.places >= 0)
    leaf_of[screen.places[positions]] = positions // STRIP_ROWS
    slots = locate(state, np.where(known, ids, ids[:, :1]).reshape(-1)).reshape(ids.shape)
    leaves = leaf_of[np.minimum(slots, len(leaf_of) - 1)]
    reached = np.take_along_axis(rank, leaves, axis=1)
    counts = leaf_counts(n_leaves)
    return np.array(
        [[np.mean(reached[:, :k][known[:, :k]] < count) for count in counts] for k in RECALL_KS],
        np.float32,
    )


def probes_for(screen: Screen, recall: float, k: int) -> int:
    """How many leaves to read for this recall of the ``k`` best rows."""
    known = screen.known_probes.get((recall, k))
    if known is None:  # finding it takes a tenth of a small search
        if len(screen.known_probes) >= MOST_KNOWN:
            screen.known_probes.clear()
        known = screen.known_probes[recall, k] = _probes_for(screen, recall, k)
    return known


def _probes_for(screen: Screen, recall: float, k: int) -> int:
    if k > RECALL_KS[-1]:
        raise ValueError(
            f"recall was measured for k up to {RECALL_KS[-1]}, got k={k}; say how many leaves to "
            f"read with probes="
        )
    counts = leaf_counts(screen.n_leaves)
    curve = screen.arrays[RECALL][int(np.searchsorted(RECALL_KS, k))]
    enough = np.flatnonzero(curve >= recall)
    if not len(enough):
        return int(counts[-1])
    at = int(enough[0])
    if at == 0:
        return 1
    low, high = float(curve[at - 1]), float(curve[at])
    share = (recall - low) / (high - low)
    return int(np.ceil(counts[at - 1] * (counts[at] / counts[at - 1]) ** share))
