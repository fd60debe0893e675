"""A lock that a forked child finds open, and properties that need none.

A thread that holds a lock while another forks does not exist in the child, where nobody would ever
open it. What an index's lock guards is whole at any moment, so the child may simply begin anew.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


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


class once(Generic[T]):
    """A property that is made when it is first asked for, and kept.

    Until Python 3.12 ``functools.cached_property`` holds one lock for all objects of the class
    while it makes one, and a child forked meanwhile waits for it forever. Here threads that ask at
    the same time may make it twice; all of them get the one that was kept.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make, self.__doc__ = make, make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> once[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object, owner: type) -> once[T] | T:
        if instance is None:
            return self
        kept: T = instance.__dict__.setdefault(self._name, self._make(instance))
        return kept


_generation = 0  # forks between the first process and this one
_renewing = threading.Lock()


def _after_fork() -> None:
    global _generation, _renewing
    _generation, _renewing = _generation + 1, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
