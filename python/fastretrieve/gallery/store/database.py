"""The items of a gallery, and the one place where a change of it is committed: SQLite.

A commit is one transaction over the items, the list of index files and the generation. The
files that it names are on disk before; a file that no row names is debris of a killed writer. The
database is in WAL mode, so readers in other processes never wait and never see half a commit.

``items.py`` defines items. Table ``item`` keeps everything; view ``items`` shows what can
be found, and is what ``where`` sees.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store import parts, schema
from fastretrieve.gallery.store.connections import DatabaseFile
from fastretrieve.gallery.store.items import FIXED, FIXED_COLUMNS, Item, Known, as_item, quoted

FILE = parts.DATABASE
FIRST_VERSION = 1
CLUSTERS_VERSION = 2  # of galleries that keep clusters
WORDS_VERSION = SCHEMA_VERSION = 3  # of galleries whose words are indexed
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


class IndexFile(NamedTuple):
    """An index file: the rows of the commits ``first`` to ``last``."""

    last: int
    first: int
    name: str
    n_rows: int
    n_bytes: int
    sha256: str


class Database(DatabaseFile):
    """The SQLite file of one gallery. Any number of threads may read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / FILE)

    @classmethod
    def create(cls, folder: Path) -> Database:
        """Make the file anew, replacing debris of a creation that was cut off."""
        database = cls(folder)
        for end in ("", *parts.BESIDE_DATABASE):
            parts.file(folder / (FILE + end)).unlink(missing_ok=True)
        with contextlib.closing(database.connected("rwc")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA user_version = {FIRST_VERSION}; COMMIT;"
            )
        return database

    def check_version(self) -> None:
        """Refuse a file that is not there, not ours, damaged at its head, or newer than we are."""
        if not parts.file(self.path).exists():
            raise GalleryError(f"{self.path} is missing; restore it, or index the images again")
        with self.reading() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if not FIRST_VERSION <= version <= SCHEMA_VERSION:
                raise GalleryError(
                    f"{self.path} has schema version {version}, this fastretrieve reads 1 to "
                    f"{SCHEMA_VERSION}; upgrade fastretrieve"
                )
            if stranger := schema.stranger(connection, _SCHEMA):
                raise self.damaged(f"it has {stranger}, which no gallery makes")


# --- reading: functions over a connection ---------------------------------------------------------


def generation(connection: sqlite3.Connection) -> int:
    """The number of the last commit."""
    rows = connection.execute("SELECT generation FROM state").fetchall()
    if len(rows) != 1 or schema.wrong_state(rows[0][0]):
        raise sqlite3.DatabaseError("its number of the last commit is none")
    return int(rows[0][0])


def erasures(connection: sqlite3.Connection) -> int:
    """How often items were erased: their rows are gone, so no row says that a vector is."""
    return int(connection.execute("PRAGMA application_id").fetchone()[0])


def count_erasure(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA application_id = {(erasures(connection) + 1) % 2**31}")


def index_files(connection: sqlite3.Connection) -> list[IndexFile]:
    """The index files, oldest rows first."""
    rows = connection.execute("SELECT last, first, file, n_rows, n_bytes, sha256 FROM segment")
    listed = []
    for row in rows:
        if schema.wrong_index_file(row):
            raise sqlite3.DatabaseError("an entry of its list of index files is none")
        listed.append(IndexFile(*row))
    if len({file.name for file in listed}) < len(listed):
        raise sqlite3.DatabaseError("its list of index files names one twice")
    return sorted(listed)


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
    """The recorded facts of those keys that the gallery has."""
    extra = "".join(f", item.{quoted(name)}" for name in about)
    rows = connection.execute(
        "SELECT item.key, item.id, item.size, item.mtime_ns, item.hash, item.error, item.deleted"
        f"{extra} FROM json_each(?) asked CROSS JOIN item ON item.key = asked.value",
        (json.dumps(keys),),
    )
    found = {row[0]: Known._make((*row[1:7], row[7:])) for row in rows}
    for one in found.values():
        if not isinstance(one.deleted, int) or not isinstance(one.error, (str, type(None))):
            raise sqlite3.DatabaseError(f"item {one.id} has values of other types than we write")
    return found


def fetch(connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, Item]:
    """The items of these ids."""
    names = columns(connection)
    chosen = ", ".join(f"item.{quoted(name)}" for name in (*FIXED_COLUMNS, *names))
    rows = connection.execute(
        f"SELECT {chosen} FROM json_each(?) asked CROSS JOIN item ON item.id = asked.value",
        (json.dumps([int(each) for each in ids]),),
    )
    found = {}
    for row in rows:
        if (wrong := schema.wrong_value(row)) is not None:
            raise sqlite3.DatabaseError(f"item {row[0]} has no such value as column {wrong} takes")
        found[row[0]] = as_item(row, names)
    return found


def fetch_all(connection: sqlite3.Connection, ids: Sequence[int]) -> list[Item]:
    """The items of these ids, in their order; all of them are there unless the file is damaged."""
    found = fetch(connection, ids)
    try:
        return [found[item_id] for item_id in ids]
    except KeyError as error:
        raise sqlite3.DatabaseError(f"item {error} has a vector but no entry") from None


def label_counts(connection: sqlite3.Connection, ids: Sequence[int]) -> dict[str, int]:
    """How many of these items have each label."""
    rows = connection.execute(
        "SELECT item.label, count(*) FROM json_each(?) asked CROSS JOIN item "
        "ON item.id = asked.value WHERE item.label IS NOT NULL GROUP BY item.label",
        (json.dumps(list(ids)),),
    )
    return {str(label): int(n) for label, n in rows}


def newest_id(connection: sqlite3.Connection) -> int:
    """No item has a larger id."""
    oldest, newest = connection.execute(
        "SELECT (SELECT min(id) FROM item), (SELECT max(id) FROM item)"
    ).fetchone()
    if newest is not None and not 0 <= oldest <= newest <= schema.MAX_ID:
        raise sqlite3.DatabaseError(f"items {oldest} to {newest} have ids that no gallery gives")
    return int(newest or 0)


# --- writing: inside a transaction of the one writer ----------------------------------------------


def require_version(connection: sqlite3.Connection, version: int) -> None:
    """Let versions of fastretrieve say that they are too old which would not keep in step what
    came with this version of the schema.
    """
    (present,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {max(version, present)}")


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
