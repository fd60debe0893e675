"""Whether the tables of a database are ours, and its values of the types that we write.

SQLite keeps any value in any column, and a database that somebody sent may hold triggers, or a
view that never ends. So a file is opened only if its tables, indexes and its view are, letter by
letter, what ``database.py`` makes; and what is read from it is looked at before it is used.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Sequence
from typing import Any

from fastretrieve.gallery.store.items import FIXED, FIXED_COLUMNS, quoted

Objects = dict[tuple[str, str], str]  # of a database: (kind, name) and the SQL that made it
MAX_GENERATION = 2**53
MAX_ID = 2**34  # ids are given one after the other; a mask of all of them must fit into memory
_NONE = type(None)
_TYPES: dict[str, set[type]] = {"REAL": {int, float, _NONE}, "INTEGER": {int, _NONE}}
_NEVER_EMPTY: dict[str, set[type]] = {"key": {str}, "path": {str}, "deleted": {int}}
_ALLOWED = tuple(
    _NEVER_EMPTY.get(name) or _TYPES.get(kind.split()[0], {str, _NONE})
    for name, kind in FIXED.items()
)
COLUMN_NAMES = "CREATE TABLE column_of (name TEXT PRIMARY KEY, own TEXT NOT NULL)"  # naming.py
CLUSTERS = {  # clusters.py
    ("table", "cluster"): "CREATE TABLE cluster (number INTEGER PRIMARY KEY, centre BLOB NOT NULL)",
    ("table", "cluster_of"): (
        "CREATE TABLE cluster_of (item INTEGER PRIMARY KEY, number INTEGER NOT NULL)"
    ),
    ("index", "cluster_members"): "CREATE INDEX cluster_members ON cluster_of (number)",
}
# The index of words (written.py): what it is made of, and two tables of SQLite's FTS5.
WRITTEN = (
    "CREATE TABLE written (item INTEGER PRIMARY KEY, name TEXT, label TEXT, caption TEXT, "
    "more TEXT, long TEXT)"
)
_CONTENT = "content='written', content_rowid='item'"
WORD_TABLES = {
    # ``spelling.py`` puts spaces between words and folds them, so that nothing is left to do.
    "words": (
        f"CREATE VIRTUAL TABLE words USING fts5(name, label, caption, more, {_CONTENT}, "
        "tokenize=\"unicode61 remove_diacritics 0 categories 'L* M* N* P* S* Co'\")"
    ),
    "pieces": f"CREATE VIRTUAL TABLE pieces USING fts5(long, {_CONTENT}, tokenize='trigram')",
}
# The tables in which FTS5 keeps its own, as all its versions make them.
SHADOWS = {
    "data": "CREATE TABLE '{}_data'(id INTEGER PRIMARY KEY, block BLOB)",
    "idx": "CREATE TABLE '{}_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) WITHOUT ROWID",
    "docsize": "CREATE TABLE '{}_docsize'(id INTEGER PRIMARY KEY, sz BLOB)",
    "config": "CREATE TABLE '{}_config'(k PRIMARY KEY, v) WITHOUT ROWID",
}
WORDS = {("table", name): sql for name, sql in WORD_TABLES.items()} | {
    ("table", f"{name}_{part}"): sql.format(name)
    for name in WORD_TABLES
    for part, sql in SHADOWS.items()
}
# Galleries get them with their first table of metadata, their first clusters, and when they are
# first changed.
_OPTIONAL = {
    ("table", "column_of"): COLUMN_NAMES,
    **CLUSTERS,
    ("table", "written"): WRITTEN,
    **WORDS,
}
_KNOWN: set[tuple[type, ...]] = set()  # rows of these types have been looked at


def stranger(connection: sqlite3.Connection, script: str) -> str | None:
    """A table, index, view or trigger that is not one of those that ``script`` makes, or is
    missing.
    """
    wanted, found = dict(_made_by(script)), _objects(connection)
    names = [row[1] for row in connection.execute("PRAGMA table_info(item)")]
    ours, head = ("table", "item"), len(FIXED_COLUMNS)
    if ours in found:  # what ALTER TABLE ADD COLUMN makes of it
        added = "".join(f", {quoted(name)}" for name in names[head:])
        wanted[ours] = wanted[ours][:-1] + added + ")"
    for each in {**wanted, **found}:
        if each not in found:
            return f"no {each[0]} {each[1]}"
        if found[each] != wanted.get(each, _OPTIONAL.get(each)):
            return f"another {each[0]} {each[1][:80]!r}"
    for what, parts in (("clusters", CLUSTERS), ("index of words", WORDS)):
        if 0 < sum(each in found for each in parts) < len(parts):
            return f"one part of its {what} without the others"
    if ("table", "written") in found and ("table", "words") not in found:
        return "words of its items without an index of them"
    return None


@functools.cache
def _made_by(script: str) -> Objects:
    """What ``script`` makes of an empty database."""
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        model.executescript(script)
        return _objects(model)


def _objects(connection: sqlite3.Connection) -> Objects:
    """What a database holds, but for the tables of SQLite's own."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master")
    return {
        (str(kind), str(name)): str(sql)
        for kind, name, sql in rows
        if not (kind in ("table", "index") and str(name).startswith("sqlite_"))
    }


def wrong_value(row: Sequence[Any]) -> str | None:
    """The name of a column of an item in which a value is of a type that we never write.

    >>> wrong_value([7, "a", "a", *[None] * 13, 0]), wrong_value([7, "a", b"a", *[None] * 13, 0])
    (None, 'path')
    """
    kinds = tuple(map(type, row))
    if kinds in _KNOWN:
        return None
    for name, kind, allowed in zip(FIXED_COLUMNS, kinds, _ALLOWED, strict=False):
        if kind not in allowed:
            return name
    if bytes in kinds:
        return "of metadata"
    if len(_KNOWN) < 10_000:
        _KNOWN.add(kinds)
    return None


def wrong_listed(row: Sequence[Any]) -> bool:
    """Whether (id, key, path, url, caption, ...numbers) holds a value of a type that we never
    write.
    """
    _, key, path, url, caption, *numbers = row
    return not (
        isinstance(key, str)
        and isinstance(path, str)
        and isinstance(url, (str, _NONE))
        and isinstance(caption, (str, _NONE))
        and all(isinstance(number, (int, float, _NONE)) for number in numbers)
    )


def wrong_state(value: Any) -> bool:
    """Whether it is no number of a commit."""
    return type(value) is not int or not 0 <= value <= MAX_GENERATION


def wrong_index_file(row: Sequence[Any]) -> bool:
    """Whether it describes no index file."""
    *numbers, file, digest = (row[0], row[1], row[3], row[4], row[2], row[5])
    return (
        any(wrong_state(number) for number in numbers)
        or not (isinstance(file, str) and isinstance(digest, str))
        or row[1] > row[0]
    )
