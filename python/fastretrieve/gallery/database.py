"""The items of a gallery, and the one place where a change of it is committed: SQLite.

A commit is one transaction over the items, the list of index files and the generation. What it
names was on disk before; what a killed writer left unnamed is nobody's. The file is in WAL mode, so
readers in other processes never wait and never see half a commit.

What an item is says ``items.py``. Table ``item`` keeps everything; view ``items`` shows what can
be found, and is what ``where`` sees.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.items import FIXED, FIXED_COLUMNS, Item, Known, as_item, quoted

FILE = "items.sqlite"
SCHEMA_VERSION = 1
MAX_COLUMNS = 400

_SCHEMA = f"""
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL);
INSERT INTO state VALUES (1, 0);
CREATE TABLE segment (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, file TEXT NOT NULL,
    n_rows INTEGER NOT NULL, n_bytes INTEGER NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE item ({", ".join(f'"{name}" {kind}' for name, kind in FIXED.items())});
CREATE INDEX item_label ON item (label, deleted);
CREATE INDEX item_deleted ON item (deleted) WHERE deleted > 0;
CREATE INDEX item_error ON item (id) WHERE error IS NOT NULL;
CREATE VIEW items AS SELECT * FROM item WHERE deleted = 0;
"""


class Segment(NamedTuple):
    """An index file: the rows of the commits ``first`` to ``last``."""

    last: int
    first: int
    file: str
    n_rows: int
    n_bytes: int
    sha256: str


class Database:
    """The SQLite file of one gallery. Any number of threads may read."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @classmethod
    def create(cls, folder: Path) -> Database:
        """Make the file anew, replacing debris of a creation that was cut off."""
        for suffix in ("", "-wal", "-shm"):
            (folder / (FILE + suffix)).unlink(missing_ok=True)
        database = cls(folder)
        with contextlib.closing(sqlite3.connect(database.path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION};")
            connection.commit()
        return database

    def check_version(self) -> None:
        """Refuse a file that is not there, not ours, damaged at its head, or newer than we are."""
        if not self.path.is_file():
            raise GalleryError(f"{self.path} is missing; restore it, or index the images again")
        with self.reading() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        if not 1 <= version <= SCHEMA_VERSION:
            raise GalleryError(
                f"{self.path} has schema version {version}, this fastretrieve reads 1 to "
                f"{SCHEMA_VERSION}; upgrade fastretrieve"
            )

    def connect(self, *, write: bool = False) -> sqlite3.Connection:
        """A new connection; the caller closes it."""
        uri = f"{self.path.resolve().as_uri()}?mode={'rw' if write else 'ro'}"
        if not write and not os.access(self.path.parent, os.W_OK):
            uri += "&immutable=1"  # WAL needs a writable folder; here nobody can write
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30
        )
        connection.execute("PRAGMA cache_size = -65536")
        if write:
            # A commit that was reported must survive a power cut too.
            connection.execute("PRAGMA synchronous = FULL")
        else:
            connection.execute("PRAGMA mmap_size = 1073741824")
        return connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection from the pool; errors of SQLite come out as ``GalleryError``."""
        with self._lock:
            if self._pid != os.getpid():  # after a fork a connection belongs to the parent
                self._idle, self._pid = [], os.getpid()
            connection = self._idle.pop() if self._idle else None
        with self.naming_faults():
            connection = connection or self.connect()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
        with self._lock:
            self._idle.append(connection)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """All statements inside see the same commit."""
        with self.reading() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def naming_faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            # OperationalError and others are about the statement; these two are about the file.
            if "malformed" in str(error) or "not a database" in str(error):
                raise GalleryError(
                    f"{self.path} is damaged ({error}); restore it, or index the images again"
                ) from error
            raise

    def close(self) -> None:
        with self._lock:
            for connection in self._idle:
                connection.close()
            self._idle.clear()


# --- reading: functions over a connection ---------------------------------------------------------


def generation(connection: sqlite3.Connection) -> int:
    """The number of the last commit."""
    return int(connection.execute("SELECT generation FROM state").fetchone()[0])


def segments(connection: sqlite3.Connection) -> list[Segment]:
    """The index files, oldest rows first."""
    rows = connection.execute("SELECT last, first, file, n_rows, n_bytes, sha256 FROM segment")
    return sorted(Segment(*row) for row in rows)


def count(connection: sqlite3.Connection) -> int:
    """How many items can be found."""
    return int(connection.execute("SELECT count(*) FROM item WHERE deleted = 0").fetchone()[0])


def columns(connection: sqlite3.Connection) -> list[str]:
    """The columns of metadata."""
    names = [row[1] for row in connection.execute("PRAGMA table_info(item)")]
    return names[len(FIXED_COLUMNS) :]


def known(
    connection: sqlite3.Connection, keys: Sequence[str], about: Sequence[str] = ()
) -> dict[str, Known]:
    """What is recorded about those of these keys that are there."""
    extra = "".join(f", item.{quoted(name)}" for name in about)
    rows = connection.execute(
        "SELECT item.key, item.id, item.size, item.mtime_ns, item.hash, item.error, item.deleted"
        f"{extra} FROM json_each(?) asked CROSS JOIN item ON item.key = asked.value",
        (json.dumps(keys),),
    )
    return {row[0]: Known._make((*row[1:7], row[7:])) for row in rows}


def fetch(connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, Item]:
    """The items of these ids."""
    names = columns(connection)
    chosen = ", ".join(f"item.{quoted(name)}" for name in (*FIXED_COLUMNS, *names))
    rows = connection.execute(
        f"SELECT {chosen} FROM json_each(?) asked CROSS JOIN item ON item.id = asked.value",
        (json.dumps([int(each) for each in ids]),),
    )
    return {row[0]: as_item(row, names) for row in rows}


# --- writing: inside a transaction of the one writer ----------------------------------------------


def add_columns(connection: sqlite3.Connection, names: Iterable[str]) -> None:
    """Add the columns of metadata that are not there yet."""
    present = {name.lower() for name in columns(connection)}
    new = [name for name in dict.fromkeys(names) if name.lower() not in present]
    if len(present) + len(new) > MAX_COLUMNS:
        raise GalleryError(
            f"a gallery holds at most {MAX_COLUMNS} columns of metadata, this would make "
            f"{len(present) + len(new)}"
        )
    for name in new:
        connection.execute(f"ALTER TABLE item ADD COLUMN {quoted(name)}")


def put(connection: sqlite3.Connection, values: Mapping[str, Any], item_id: int | None) -> int:
    """Insert an item, or change the one with this id; returns its id."""
    names = list(values)
    if item_id is not None:
        assigned = ", ".join(f"{quoted(name)} = ?" for name in names)
        connection.execute(f"UPDATE item SET {assigned} WHERE id = ?", (*values.values(), item_id))
        return item_id
    marks = ", ".join("?" * len(names))
    cursor = connection.execute(
        f"INSERT INTO item ({', '.join(map(quoted, names))}) VALUES ({marks})",
        tuple(values.values()),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid
