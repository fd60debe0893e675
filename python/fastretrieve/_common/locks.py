"""Locks and properties that survive a fork: a lock that is released in forked children, cached
properties without a lock, and forks that wait for imports.

A thread that holds a lock during a fork does not exist in the child, so the lock would stay taken
there forever. An index is whole at any moment, so the child may take a new lock and go on.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")
MAX_IMPORT_SECONDS = 10  # that a fork waits for


class ForkSafeLock:
    """A lock for ``with``; the same thread may take it again."""

    def __init__(self) -> None:
        self._lock, self._generation = threading.RLock(), _generation

    def __enter__(self) -> None:
        if self._generation != _generation:
            self._renew()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            if _generation == 0:
                raise
            # Taken before a fork by the thread that forked, and made anew in the child meanwhile.

    def _renew(self) -> None:
        with _renewing:
            if self._generation != _generation:
                self._lock, self._generation = threading.RLock(), _generation


class once(Generic[T]):
    """A property that is computed at its first use and kept.

    Until Python 3.12 ``functools.cached_property`` holds one lock for all objects of the class
    while it computes one, and a child forked meanwhile waits for it forever. Here two threads may
    compute it at the same time; both get the value that was kept first.
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


def _before_fork() -> None:
    """Wait until no other thread is importing a part of this package: the child could never import
    it. A thread that forks inside an import does not wait, as it would wait for itself.
    """
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_globals.get("__name__") in ("importlib._bootstrap", "_frozen_importlib"):
            return
    end = time.monotonic() + MAX_IMPORT_SECONDS
    while _is_importing() and time.monotonic() < end:
        time.sleep(0.001)


def _is_importing() -> bool:
    own = [module for name, module in list(sys.modules.items()) if name.startswith("fastretrieve.")]
    return any(getattr(getattr(m, "__spec__", None), "_initializing", False) for m in own)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
