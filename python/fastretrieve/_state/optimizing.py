"""``Index.optimize``: a state with a screen of its rows, or the reason why it has none.

``screening.py`` makes the screen, ``screen.py`` says what it is and how it lives on.
"""

from __future__ import annotations

from typing import NamedTuple

from fastretrieve._common.progress import Progress
from fastretrieve._state.screening import make_screen
from fastretrieve._state.state import State


class Optimized(NamedTuple):
    """What :meth:`Index.optimize` made of an index."""

    rows: int  # that searches now judge by their heads first
    head: int  # numbers in the head of a row; 0: there is none, searches are as before
    because: str


def optimized(state: State, progress: Progress | None) -> tuple[State, Optimized]:
    """The state with a new screen of all rows in whole strips; without one if none would pay."""
    if not state.form.backend.reads_screens:
        because = (
            "a GPU scans whole codes; optimize an index on the CPU, whose file keeps the screen"
        )
        return state, Optimized(0, 0, because)
    screen, because = make_screen(state, progress)
    if screen is None:
        return state.with_screen(None), Optimized(0, 0, because)
    screen.is_proved = all(segment.is_proved for segment in state.segments)
    return state.with_screen(screen), Optimized(screen.n_rows, screen.head, because)
