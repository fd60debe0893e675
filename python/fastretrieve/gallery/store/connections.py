"""Connections to the database of a gallery: how they are made, shared and put away.

Each thread that reads takes an idle connection or makes one. What SQLite says about a file comes
out as a ``GalleryError`` that names it. ``database.py`` owns what is read and written.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from fastretrieve._common.locks import ForkSafeLock
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store import access, parts
from fastretrieve.gallery.store.forking import ForkSafeConnection, connect, leave_behind, n_forks

BUSY_SECONDS = 30  # to wait for another process that holds one of SQLite's locks
TRIES = 20  # to open a file beside a writer that comes and goes


class DatabaseFile:
    """The connections of one process to one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: list[ForkSafeConnection] = []
        self._lock = ForkSafeLock()
        self._forks = n_forks()

    def connect(self, *, write: bool = False) -> ForkSafeConnection:
        """A new connection; the caller closes it."""
        if write:
            for end in ("", *parts.BESIDE_DATABASE):
                parts.file(self.path.with_name(self.path.name + end))
            connection = self.connected("rw")
            # A commit that was reported must survive a power cut too.
            connection.execute("PRAGMA synchronous = FULL")
            return connection
        for tried in range(TRIES):  # a writer that ends may take away what was just seen
            watch = access.watch(self.path)
            connection = self.connected("ro" if watch is None else "ro&immutable=1")
            connection.watch = watch
            try:
                # To map a file that others cut while no lock holds them back may end the process.
                connection.execute(f"PRAGMA mmap_size = {0 if watch else 1 << 30}")
                connection.execute("SELECT 1 FROM sqlite_master").fetchone()
                return connection
            except sqlite3.OperationalError as error:
                connection.close()
                if tried == TRIES - 1 or not _is_refusal(error):
                    raise
                time.sleep(0.02)
            except BaseException:
                connection.close()
                raise
        raise AssertionError

    def connected(self, mode: str) -> ForkSafeConnection:
        """A connection with what holds for all of them."""
        connection = connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_SECONDS,
        )
        # A file that somebody sent: its schema calls no functions, and its pages are looked at.
        for pragma in ("cache_size = -65536", "trusted_schema = OFF", "cell_size_check = ON"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[ForkSafeConnection]:
        """A read-only connection from the pool; errors of SQLite come out as ``GalleryError``."""
        with self.naming_faults():
            connection = self._taken() or self.connect()
            forks, watch = n_forks(), connection.watch
            try:
                yield connection
            except BaseException as error:
                put_away(connection, forks)
                if watch and isinstance(error, Exception) and not watch.is_unchanged():
                    raise self._changed() from error
                raise
        if watch and not watch.is_unchanged():
            put_away(connection, forks)
            raise self._changed()
        if forks != n_forks():
            put_away(connection, forks)
            return
        with self._lock:
            self._idle.append(connection)

    def _taken(self) -> ForkSafeConnection | None:
        """An idle connection, if there is one that still shows the last commit."""
        with self._lock:
            if self._forks != n_forks():  # after a fork a connection belongs to the parent
                leave_behind(self._idle)
                self._idle, self._forks = [], n_forks()
            while self._idle:
                connection = self._idle.pop()
                if connection.watch is None or connection.watch.is_current():
                    return connection
                connection.close()
            return None

    def _changed(self) -> GalleryError:
        return GalleryError(
            f"{self.path} was changed while it was read by a user who may not lock it; try again, "
            "or get the right to write its folder"
        )

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[ForkSafeConnection]:
        """All statements inside see the same commit."""
        with self.reading() as connection:
            connection.execute("BEGIN")
            forks = n_forks()
            try:
                yield connection
            finally:
                if forks == n_forks() and connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def naming_faults(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.NotSupportedError):
            raise  # a fault of ours
        except sqlite3.Error as error:
            raise self.fault(error) from error

    def fault(self, error: sqlite3.Error) -> GalleryError:
        """What an error of SQLite says about the file, and what to do."""
        text = str(error)
        if "locked" in text or "busy" in text:
            return GalleryError(f"{self.path} is in use by another process ({text}); try again")
        if _is_refusal(error):
            return access.refused(self.path, text)
        if "full" in text or "disk I/O" in text:
            return GalleryError(
                f"{self.path}: {text}; what was committed before is kept, so make room and do it "
                "again"
            )
        if "interrupted" in text:
            return GalleryError(f"{self.path}: reading was {text}")
        return self.damaged(text)

    def damaged(self, what: str) -> GalleryError:
        return GalleryError(
            f"{self.path} is damaged ({what}); restore it, or index the images again"
        )

    def close(self) -> None:
        with self._lock:
            if self._forks == n_forks():
                for connection in self._idle:
                    connection.close()
            self._idle.clear()


def put_away(connection: ForkSafeConnection, forks: int) -> None:
    """Close a connection that was opened after so many forks."""
    if forks == n_forks():
        connection.close()
    else:
        leave_behind([connection])  # it is the parent's


def _is_refusal(error: sqlite3.Error) -> bool:
    """Whether the system, not the content of the file, stands against it."""
    return any(part in str(error) for part in ("unable to open", "readonly", "authoriz", "denied"))


def cut_log(connection: sqlite3.Connection, *, patience: float) -> bool:
    """Write the log into the main file and cut it to nothing. Readers that still look into it are
    waited for, not inside SQLite, where a fork would wait too. Returns whether it was done.
    """
    deadline = time.monotonic() + patience
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            with contextlib.suppress(sqlite3.OperationalError):
                busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not busy:
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS}")
