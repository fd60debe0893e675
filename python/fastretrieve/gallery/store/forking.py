"""What a forked child must find as if no other thread had been at work: SQLite, and the gate.

SQLite has locks of its own, which a thread holds for moments while it runs a statement. In a child
forked at such a moment they would stay held, by threads that do not exist there, and the child
would hang. So a fork waits until no thread is inside SQLite, and statements wait for the fork.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastretrieve.gallery.store.access import Watch

PATIENCE = 60.0  # seconds that a fork waits for a statement; then it takes the risk

_quiet = threading.Condition(threading.Lock())
_inside = 0  # threads that run a statement
_n_waiting = 0  # forks that wait for them
_n_forks = 0  # between the first process and this one
_all: weakref.WeakSet[ForkSafeConnection] = weakref.WeakSet()
_left_behind: list[Any] = []  # what belongs to a parent and may not even be closed here


def n_forks() -> int:
    """How many forks lie between the first process and this one: a child has another number."""
    return _n_forks


def leave_behind(things: Iterable[Any]) -> None:
    """Keep what belongs to the parent, untouched, as long as this process lives."""
    _left_behind.extend(things)


class _Inside:
    """``with inside:`` a thread is inside SQLite, and no fork begins."""

    def __enter__(self) -> None:
        global _inside
        with _quiet:
            while _n_waiting:  # no thread enters twice, so this ends
                _quiet.wait()
            _inside += 1

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        global _inside
        with _quiet:
            _inside -= 1
            if not _inside:
                _quiet.notify_all()
        if kind is not None and issubclass(kind, UnicodeDecodeError):  # a message of SQLite's own
            raise sqlite3.DatabaseError("it holds a name that is no text")


inside = _Inside()


class Cursor(sqlite3.Cursor):
    """A cursor that no fork interrupts."""

    def execute(self, *arguments: Any) -> Cursor:
        with inside:
            super().execute(*arguments)
        return self

    def executemany(self, *arguments: Any) -> Cursor:
        with inside:
            super().executemany(*arguments)
        return self

    def executescript(self, script: str) -> Cursor:
        with inside:
            super().executescript(script)
        return self

    def fetchone(self) -> Any:
        with inside:
            return super().fetchone()

    def fetchmany(self, *arguments: Any, **options: Any) -> list[Any]:
        with inside:
            return super().fetchmany(*arguments, **options)

    def fetchall(self) -> list[Any]:
        with inside:
            return super().fetchall()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        while rows := self.fetchmany(1000):
            yield from rows


class ForkSafeConnection(sqlite3.Connection):
    """A connection that no fork interrupts."""

    watch: Watch | None = None  # where it reads without locks
    only_reads = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._cursors: weakref.WeakSet[Cursor] = weakref.WeakSet()

    def cursor(self, factory: Any = Cursor) -> Any:
        made = super().cursor(factory)
        self._cursors.add(made)
        return made

    # Python's own methods do not ask ``cursor``.
    def execute(self, *arguments: Any) -> Any:
        return self.cursor().execute(*arguments)

    def executemany(self, *arguments: Any) -> Any:
        return self.cursor().executemany(*arguments)

    def executescript(self, script: str) -> Any:
        return self.cursor().executescript(script)

    def close(self) -> None:
        """Close it now: a statement that was left in the middle, perhaps by an error that
        is still looked at, would keep its transaction open, and others waiting.
        """
        with inside:
            for cursor in list(self._cursors):
                cursor.close()
            super().close()

    def backup(self, *arguments: Any, **options: Any) -> None:
        with inside:
            super().backup(*arguments, **options)


def connect(uri: str, **options: Any) -> ForkSafeConnection:
    """As ``sqlite3.connect``."""
    with inside:
        made = sqlite3.connect(uri, factory=ForkSafeConnection, uri=True, **options)
    assert isinstance(made, ForkSafeConnection)
    made.only_reads = "mode=ro" in uri
    _all.add(made)
    return made


def _before() -> None:
    global _n_waiting
    _quiet.acquire()
    _n_waiting += 1
    _quiet.wait_for(lambda: not _inside, PATIENCE)


def _in_parent() -> None:
    global _n_waiting
    _n_waiting -= 1
    _quiet.notify_all()
    _quiet.release()


def _in_child() -> None:
    global _quiet, _inside, _n_waiting, _n_forks
    is_quiet = not _inside
    _quiet, _inside, _n_waiting = threading.Condition(threading.Lock()), 0, 0
    _n_forks += 1
    # SQLite believes that this process has the locks of the connections that it inherits, and the
    # system knows better: a reader here would not keep a writer from cutting the log under it.
    # Closing a connection that only reads changes no file. One that writes stays untouched.
    for connection in list(_all) if is_quiet else ():
        if connection.only_reads:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
