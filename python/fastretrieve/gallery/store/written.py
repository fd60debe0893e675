"""The index of words in the database of a gallery: which words are written about which item.

Table ``written`` has a row for each item that can be found: the words (``spelling.py``) of its file
name, label, caption and of all columns of text, joined by spaces. SQLite's FTS5 indexes them twice.
``words`` finds words, phrases and beginnings of words; ``pieces`` finds parts of the long words, by
trigrams: compounds.

One place keeps all of it in step with the items. The writer's connection has triggers of its own,
in SQLite's temporary schema, which the file never holds. They note each item that a transaction
touches, whatever statement does it; before the transaction commits, ``follow`` compares what was
noted with what is indexed. A gallery without the index, made before there was one, gets it from
the next writer. Where SQLite lacks FTS5, a writer cannot keep the index in step, so it sets it
aside: without ``written`` the tables of FTS5 are nobody's, and empty.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store import parts, schema
from fastretrieve.gallery.store.items import quoted
from fastretrieve.gallery.store.spelling import file_name, words, words_of_name

CHUNK = 5000  # items at a time
LONG_WORD = 4  # letters: shorter words have no part that could be asked for (trigrams)
MOST_STRUCTURE, LONGEST_NUMBER = 1 << 16, 8  # bytes
MEND = "gallery.rebuild_words() or `fastretrieve update GALLERY --words` makes it anew"
_MADE = [("data", (1, b"")), ("data", (10, bytes(7))), ("config", ("version", 4))]
_NOTES = "CREATE TEMP TABLE IF NOT EXISTS noted (item INTEGER PRIMARY KEY)"
_NOTING = (
    "CREATE TEMP TRIGGER IF NOT EXISTS note_{0} AFTER {0} ON main.item "
    "BEGIN INSERT OR IGNORE INTO noted VALUES ({1}.id); END"
)
_INSERT = (
    "INSERT INTO written VALUES (?, ?, ?, ?, ?, ?)",
    "INSERT INTO words (rowid, name, label, caption, more) VALUES (?, ?, ?, ?, ?)",
    "INSERT INTO pieces (rowid, long) VALUES (?, ?)",
)
_PARTS = (slice(6), slice(5), slice(0, 6, 5))  # of a row of ``written``, for these statements
Row = tuple[Any, ...]  # of ``written``: a number and five texts


# --- whether there is one -------------------------------------------------------------------------


@functools.cache
def unavailable() -> str:
    """Why this SQLite cannot index words; empty if it can."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        try:
            for statement in (schema.WRITTEN, *schema.WORD_TABLES.values()):
                model.execute(statement)
            model.execute("INSERT INTO pieces (rowid, long) VALUES (1, 'abcd')")
        except sqlite3.Error as error:
            return f"SQLite {sqlite3.sqlite_version} of this Python cannot index words: {error}"
        made = dict(model.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    if made != {"written": schema.WRITTEN} | {name: sql for (_, name), sql in schema.WORDS.items()}:
        return f"SQLite {sqlite3.sqlite_version} indexes words in a way that is not known yet"
    return ""


def is_kept(connection: sqlite3.Connection) -> bool:
    """Whether the words of the items are indexed."""
    named = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'written'").fetchone()
    return named is not None


def count(connection: sqlite3.Connection) -> int | None:
    """The words of how many items are indexed; None where there is no index."""
    if not is_kept(connection):
        return None
    return int(connection.execute("SELECT count(*) FROM written").fetchone()[0])


@contextlib.contextmanager
def naming_damage() -> Iterator[None]:
    """What SQLite says about a damaged index, as an error that says how to mend it."""
    try:
        yield
    except MemoryError as error:  # a false length, for which no memory is there
        raise damaged("it wants more memory than there is") from error
    except sqlite3.Error as error:
        text = str(error)
        if any(part in text for part in ("malformed", "constructor failed", "fts5", "corrupt")):
            raise damaged(text) from error
        raise


def damaged(what: str) -> GalleryError:
    return GalleryError(f"the index of words in {parts.DATABASE} is damaged ({what}); {MEND}")


def refuse_forged(connection: sqlite3.Connection) -> None:
    """Raise if what FTS5 reads first is not as it writes it: it would believe any number there and
    take memory for it. All else that it reads is as large as it says, or FTS5 says that it is not.
    """
    for name in schema.WORD_TABLES:
        rows = connection.execute(f"SELECT k, v FROM {name}_config LIMIT 2").fetchall()
        if rows != [("version", 4)]:
            raise damaged("it has settings that no gallery makes")
        structure = connection.execute(f"SELECT block FROM {name}_data WHERE id = 10").fetchone()
        if not structure or not _is_structure(structure[0]):
            raise damaged("its list of segments is none")


def _is_structure(block: Any) -> bool:
    """Whether it is FTS5's list of segments: after four bytes a row of numbers of seven bits to a
    byte: how many levels, segments and writes; for each level how many segments merge and how many
    there are; for each of these its number, first and last page.
    """
    if not isinstance(block, bytes) or len(block) > MOST_STRUCTURE:
        return False
    numbers, value, n_bytes = [], 0, 0
    for byte in block[4:]:
        value, n_bytes = value << 7 | byte & 127, n_bytes + 1
        if n_bytes > LONGEST_NUMBER:
            return False
        if byte < 128:
            numbers.append(value)
            value, n_bytes = 0, 0
    if n_bytes or len(numbers) < 3:
        return False
    n_levels, n_segments, at = numbers[0], numbers[1], 3
    for _ in range(min(n_levels, len(numbers))):
        if at + 2 > len(numbers) or not numbers[at] <= numbers[at + 1] <= n_segments:
            return False
        n_segments -= numbers[at + 1]
        at += 2 + 3 * numbers[at + 1]
    return n_segments == 0 and at == len(numbers)


# --- keeping it: by the one writer ----------------------------------------------------------------


def rebuilt(connection: sqlite3.Connection) -> int:
    """Make the index anew if this SQLite can; returns of how many items."""
    if reason := unavailable():
        raise GalleryError(f"the index of words cannot be made: {reason}")
    rebuild(connection)
    return count(connection) or 0


def prepare(connection: sqlite3.Connection) -> None:
    """Make a writer's connection note what changes; make the index where there is none."""
    if unavailable():
        if is_kept(connection):
            _set_aside(connection)
        return
    connection.execute(_NOTES)
    for kind, row in (("INSERT", "new"), ("UPDATE", "new"), ("DELETE", "old")):
        connection.execute(_NOTING.format(kind, row))
    if not is_kept(connection):
        rebuild(connection)


def rebuild(connection: sqlite3.Connection) -> None:
    """Make the whole index anew. Nothing stays in it of what was written before, while what was
    merely deleted stays until FTS5 merges its parts.
    """
    with _transaction(connection):
        _reset(connection)
        connection.execute("DROP TABLE IF EXISTS written")
        connection.execute(schema.WRITTEN)
        db.require_version(connection, db.WORDS_VERSION)
        for rows in _in_chunks(connection):
            connection.executemany(_INSERT[0], rows)
        for name in schema.WORD_TABLES:
            connection.execute(f"INSERT INTO {name} ({name}) VALUES ('rebuild')")
        connection.execute("DELETE FROM noted")


def follow(connection: sqlite3.Connection) -> None:
    """Bring the index up to the items that the open transaction has touched."""
    if unavailable() or not is_kept(connection):
        return
    last = -1
    while noted := connection.execute(
        "SELECT item FROM noted WHERE item > ? ORDER BY item LIMIT ?", (last, CHUNK)
    ).fetchall():
        if last < 0:
            refuse_forged(connection)
        _follow(connection, [row[0] for row in noted])
        last = noted[-1][0]
    connection.execute("DELETE FROM noted")


def _follow(connection: sqlite3.Connection, ids: list[int]) -> None:
    asked = json.dumps(ids)
    chosen = "IN (SELECT value FROM json_each(?))"
    new = {row[0]: row for row in _rows(connection, f"id {chosen}", asked)}
    old = {
        row[0]: row
        for row in connection.execute(f"SELECT * FROM written WHERE item {chosen}", (asked,))
    }
    gone = [(i,) for i in old if new.get(i) != old[i]]
    come = [row for i, row in new.items() if old.get(i) != row]
    with naming_damage():
        # From ``written`` last: FTS5 reads there what it has to take out.
        for name, key in (("words", "rowid"), ("pieces", "rowid"), ("written", "item")):
            connection.executemany(f"DELETE FROM {name} WHERE {key} = ?", gone)
        for statement, part in zip(_INSERT, _PARTS, strict=True):
            connection.executemany(statement, [row[part] for row in come])


def _in_chunks(connection: sqlite3.Connection) -> Iterator[list[Row]]:
    """What is to be written about all items, in order of their ids."""
    last = -1
    while rows := list(_rows(connection, f"id > {last} ORDER BY id LIMIT {CHUNK}")):
        yield rows
        last = rows[-1][0]


def _rows(connection: sqlite3.Connection, condition: str, *values: Any) -> Iterator[Row]:
    """What is to be written about the items that can be found and meet a condition."""
    names = "".join(f", {quoted(name)}" for name in db.columns(connection))
    found = connection.execute(
        f"SELECT id, path, url, label, caption{names} FROM item WHERE deleted = 0 AND {condition}",
        values,
    )
    for item_id, path, url, label, caption, *others in found:
        yield _row(item_id, path, url, label, caption, others)


def _row(item_id: int, path: Any, url: Any, label: Any, caption: Any, others: Iterable[Any]) -> Row:
    """The words of one item; a value of another type than we write has none."""
    name = file_name(_text(path), url if isinstance(url, str) else None)
    more = [word for text in others for word in words(_text(text))]
    fields = (words_of_name(name), words_of_name(_text(label)), words(_text(caption)), more)
    long = dict.fromkeys(word for field in fields for word in field if len(word) >= LONG_WORD)
    first, second, third, fourth, last = (" ".join(field) for field in (*fields, long))
    return item_id, first, second, third, fourth, last


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


# --- without FTS5, or after damage ----------------------------------------------------------------


def _reset(connection: sqlite3.Connection) -> None:
    """Make the tables of FTS5, or make them what they were when FTS5 had made them: by plain
    statements, as FTS5 refuses to look at damaged ones.
    """
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'words'").fetchone()
    for name, statement in schema.WORD_TABLES.items():
        if there is None:
            connection.execute(statement)
            continue
        for part in schema.SHADOWS:
            connection.execute(f"DELETE FROM {name}_{part}")
        for part, row in _MADE:
            connection.execute(f"INSERT INTO {name}_{part} VALUES (?, ?)", row)


def _set_aside(connection: sqlite3.Connection) -> None:
    """Give the index up, as it could not follow: the next writer with FTS5 makes it anew."""
    with _transaction(connection):
        _reset(connection)
        connection.execute("DROP TABLE written")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, without a new generation: what can be found stays the same."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


# --- checking -------------------------------------------------------------------------------------


def faults(connection: sqlite3.Connection) -> list[str]:
    """What is wrong with the index of words: it disagrees with items, or with itself."""
    if not is_kept(connection):
        return []
    odd: list[int] = []
    for rows in _in_chunks(connection):
        first, last = rows[0][0], rows[-1][0]
        kept = connection.execute(
            "SELECT * FROM written WHERE item BETWEEN ? AND ?", (first, last)
        ).fetchall()
        odd += [row[0] for row in {*rows} ^ {*kept}]
    odd = sorted({*odd})
    if odd:
        return [f"{len(odd)} items have other words than are indexed: {odd[:5]}; {MEND}"]
    if (n := count(connection)) != db.count(connection):
        return [f"the index of words has {n} items, and not all of them are there; {MEND}"]
    if reason := unavailable():
        return [f"the index of words cannot be checked: {reason}"]
    try:
        refuse_forged(connection)
        _refuse_inconsistent(connection)
    except GalleryError as error:
        return [str(error)]
    return []


def _refuse_inconsistent(connection: sqlite3.Connection) -> None:
    """Raise what FTS5 finds. Its check needs the right to write, so it looks at a copy."""
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as scratch:
        connection.backup(scratch)
        with naming_damage():
            for name in schema.WORD_TABLES:
                scratch.execute(f"INSERT INTO {name} ({name}, rank) VALUES ('integrity-check', 1)")
