"""The rows of ids.

Rows with consecutive ids need no map: a segment knows its first. :class:`IdMap` serves the rows
whose ids the user chose, at 16 bytes a row: sorted runs, newest first, merged when they become
many, and a small dictionary for the latest.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arguments import shown
from fastretrieve._common.ordering import order_of, ordered, taken

Int64s = NDArray[np.int64]
Run = tuple[Int64s, Int64s]  # sorted ids, their positions

MAX_RECENT = 1024  # ids in the dictionary, which every put copies; then they become a sorted run
MAX_ID = 2**63 - 2  # so that one more than the largest still is an int64


class IdMap:
    """Positions by id, never changed: a search keeps the map of the state it sees.

    The latest position of an id wins; the caller checks whether that row is alive.
    """

    def __init__(self, runs: tuple[Run, ...] = (), recent: dict[int, int] | None = None) -> None:
        self._runs = runs  # oldest first
        self._recent = recent or {}

    @property
    def nbytes(self) -> int:
        return sum(ids.nbytes + positions.nbytes for ids, positions in self._runs) + 100 * len(
            self._recent
        )

    def put(self, ids: Int64s, first_position: int) -> IdMap:
        """The map in which these ids live at consecutive positions from ``first_position`` on."""
        return self.put_at(ids, np.arange(first_position, first_position + len(ids)))

    def put_at(self, ids: Int64s, positions: Int64s) -> IdMap:
        """The map in which these ids live at these positions."""
        if len(ids) + len(self._recent) <= MAX_RECENT:
            new = dict(zip(ids.tolist(), positions.tolist(), strict=True))
            return IdMap(self._runs, {**self._recent, **new})
        runs = _push(self._runs, *_sorted_run(self._recent)) if self._recent else self._runs
        order = order_of(ids)
        return IdMap(_push(runs, taken(ids, order), taken(positions, order)))

    def find(self, ids: Int64s) -> Int64s:
        """The position of each id; -1 where there is none."""
        positions = np.full(len(ids), -1, dtype=np.int64)
        for run_ids, run_positions in self._runs:  # newer runs overwrite what older ones found
            at = np.searchsorted(run_ids, ids)
            at[at == len(run_ids)] = 0
            found = run_ids[at] == ids
            positions[found] = run_positions[at[found]]
        if self._recent:
            latest = np.fromiter(
                (self._recent.get(i, -1) for i in ids.tolist()), np.int64, len(ids)
            )
            positions = np.where(latest >= 0, latest, positions)
        return positions


def _sorted_run(recent: dict[int, int]) -> Run:
    ids = np.fromiter(recent.keys(), np.int64, len(recent))
    positions = np.fromiter(recent.values(), np.int64, len(recent))
    order = np.argsort(ids)
    return ids[order], positions[order]


def _push(runs: tuple[Run, ...], ids: Int64s, positions: Int64s) -> tuple[Run, ...]:
    while runs and len(runs[-1][0]) <= 2 * len(ids):  # geometric sizes: few runs
        ids, positions = _merge(runs[-1], (ids, positions))
        runs = runs[:-1]
    return (*runs, (ids, positions))


def _merge(older: Run, newer: Run) -> Run:
    ids = np.concatenate([older[0], newer[0]])
    positions = np.concatenate([older[1], newer[1]])
    order = order_of(ids)  # of equal ids the newer comes last
    ids, positions = taken(ids, order), taken(positions, order)
    last = np.append(ids[1:] != ids[:-1], True)
    return ids[last], positions[last]


def as_ids(ids: object, *, name: str = "ids") -> Int64s:
    """Return ids as int64; anything but whole numbers of at least 0 is refused.

    >>> as_ids([3, 1])
    array([3, 1])
    >>> as_ids([-1])
    Traceback (most recent call last):
    ...
    ValueError: ids must be 0 or more, got -1 at position 0
    """
    if hasattr(ids, "detach"):
        ids = ids.detach().cpu().numpy()
    array = np.atleast_1d(np.asarray(ids))
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {array.shape}")
    if len(array) == 0:
        return np.zeros(0, dtype=np.int64)
    if array.dtype.kind not in "iu":
        advice = "; keep names in a list of your own, and let their positions be the ids"
        raise TypeError(
            f"{name} must be integers, as a list or an array, got {shown(ids)}"
            + advice * (array.dtype.kind in "SU")
        )
    if int(array.max()) > MAX_ID:
        raise ValueError(f"{name} must be at most {MAX_ID}, got {array.max()}")
    result = np.ascontiguousarray(array, dtype=np.int64)
    if result.min() < 0:
        where = int(np.argmax(result < 0))
        raise ValueError(f"{name} must be 0 or more, got {result[where]} at position {where}")
    return result


def first_duplicate(ids: Int64s) -> int | None:
    """The smallest id that occurs twice, or None."""
    if len(ids) < 2 or bool((ids[1:] > ids[:-1]).all()):
        return None
    ascending = ordered(ids)
    twice = ascending[1:][ascending[1:] == ascending[:-1]]
    return int(twice[0]) if len(twice) else None


def named(ids: Iterable[int]) -> str:
    """A few ids for a message."""
    some = [str(i) for i, _ in zip(ids, range(5), strict=False)]
    return ", ".join(some)
