"""``Gate``: searches use the index together, a refresh alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from fastretrieve._common.locks import ForkSafeLock
from fastretrieve.gallery.store.forking import n_forks


class Gate:
    """Many readers or one writer; a waiting writer goes first.

    The gate is open in a forked child: the threads that were inside do not exist there. If one of
    them was writing, the guarded data is half changed, and ``discard`` is called first.
    """

    def __init__(self, discard: Callable[[], None] = lambda: None) -> None:
        self._discard = discard
        self._renewing = ForkSafeLock()
        self._open()

    def _open(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writing = False
        self._waiting = 0
        self._forks = n_forks()

    def _now(self) -> int:
        """The number of this process; a gate from before a fork is opened again."""
        forks = n_forks()
        if self._forks != forks:
            with self._renewing:
                if self._forks != forks:
                    if self._writing:
                        self._discard()
                    self._open()
        return forks

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        forks = self._now()
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._waiting)
            self._readers += 1
        try:
            yield
        finally:
            if forks == n_forks():  # else it was counted in the parent
                with self._changed:
                    self._readers -= 1
                    self._changed.notify_all()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        forks = self._now()
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._writing and self._readers == 0)
                self._writing = True
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            if forks == n_forks():
                with self._changed:
                    self._writing = False
                    self._changed.notify_all()
