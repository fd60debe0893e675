"""A lock that a forked child finds open.

A thread that holds a lock while another forks does not exist in the child, where nobody would ever
open it. What an index's lock guards is whole at any moment, so the child may simply begin anew.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType


class ForkSafeLock:
    """A lock for ``with``; the same thread may take it again."""

    def __init__(self) -> None:
        self._lock, self._generation = threading.RLock(), _generation

    def __enter__(self) -> None:
        if self._generation != _generation:
            self._renew()
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def _renew(self) -> None:
        with _renewing:
            if self._generation != _generation:
                self._lock, self._generation = threading.RLock(), _generation


_generation = 0  # forks between the first process and this one
_renewing = threading.Lock()


def _after_fork() -> None:
    global _generation, _renewing
    _generation, _renewing = _generation + 1, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
