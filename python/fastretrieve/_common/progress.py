"""How a long call tells its caller how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], object]  # (bytes or rows done, in all); it may raise to stop
