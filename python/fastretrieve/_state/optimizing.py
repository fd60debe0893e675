"""``Index.optimize``: a state with a screen of its rows, or the reason why it has none.

``screening.py`` makes the screen, ``screen.py`` says what it is and how it lives on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.progress import Progress
from fastretrieve._state.locating import ids_at, rows_at
from fastretrieve._state.recall import RECALL_QUERIES, measure_recall
from fastretrieve._state.screen import RECALL, Screen
from fastretrieve._state.screening import make_screen
from fastretrieve._state.state import State

MOST_QUERIES = 1024  # of the caller, that measure recall: a standard error of 0.003 at 0.95


class Optimized(NamedTuple):
    """What :meth:`Index.optimize` made of an index."""

    rows: int  # that searches now judge by their heads first
    head: int  # numbers in the head of a row; 0: there is none, searches are as before
    because: str


def optimized(
    state: State, queries: NDArray[Any] | None, progress: Progress | None
) -> tuple[State, Optimized]:
    """The state with a new screen of all rows in whole strips; without one if none would pay.
    Recall is measured for these queries, or for rows.
    """
    if not state.form.backend.reads_screens:
        because = (
            "a GPU scans whole codes; optimize an index on the CPU, whose file keeps the screen"
        )
        return state, Optimized(0, 0, because)
    screen, because = make_screen(state, progress)
    if screen is None:
        return state.with_screen(None), Optimized(0, 0, because)
    screen = _with_recall(state, screen, queries)
    screen.is_proved = all(segment.is_proved for segment in state.segments)
    return state.with_screen(screen), Optimized(screen.n_rows, screen.head, because)


def _with_recall(state: State, screen: Screen, queries: NDArray[Any] | None) -> Screen:
    rng, own_ids = np.random.default_rng(3), None
    if queries is None:
        places = screen.places[screen.places >= 0].astype(np.int64)
        slots = np.sort(rng.choice(places, min(RECALL_QUERIES, len(places)), replace=False))
        queries, own_ids = rows_at(state, slots), ids_at(state, slots)
    elif len(queries) > MOST_QUERIES:
        queries = queries[np.sort(rng.choice(len(queries), MOST_QUERIES, replace=False))]
    curve = measure_recall(state.with_screen(screen), queries, own_ids)
    return Screen(screen.metric, screen.dim, {**screen.arrays, RECALL: curve})
