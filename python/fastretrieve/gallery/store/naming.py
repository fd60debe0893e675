"""How the columns of tables are called in a gallery: two names never become one column.

SQLite does not tell ``Price`` from ``price``, and some names cannot be used as they are. The first
name that comes gets the column that it would like (``items.column_name``), a later one that would
like the same gets a number: ``price_2``. The gallery records who has which column, so that every
table finds its own again. A gallery without a record, made before there was one, keeps its columns:
the first name that would like one of them has it.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from fastretrieve.data import Skipped
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store.items import column_name
from fastretrieve.gallery.store.schema import COLUMN_NAMES


class ColumnNames:
    """Which column of the gallery has the values of which name."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._own: dict[str, str] = _recorded(connection)
        self._taken = {own.lower() for own in self._own.values()}
        self._n_columns = len(db.columns(connection))
        self._unsaved: dict[str, str] = {}
        self.left_out: dict[str, Skipped] = {}
        self._present = {own.lower() for own in db.columns(connection)}

    def renamed(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Values by the names of the gallery's columns; those for which there is no room are left
        out.
        """
        return {
            own: value
            for name, value in metadata.items()
            if (own := self._column(name)) is not None
        }

    def save(self, connection: sqlite3.Connection) -> None:
        """Record what is new, in the transaction that adds the columns."""
        if self._unsaved:
            if not _has_record(connection):
                connection.execute(COLUMN_NAMES)
            connection.executemany(
                "INSERT OR IGNORE INTO column_of VALUES (?, ?)", self._unsaved.items()
            )

    def saved(self) -> None:
        """After the commit."""
        self._unsaved.clear()

    def _column(self, name: str) -> str | None:
        own = self._own.get(name)
        if own is not None or name in self.left_out:
            return own
        wish = column_name(name)
        own, number = wish, 1
        while own.lower() in self._taken:
            number += 1
            own = f"{wish}_{number}"
        if own.lower() not in self._present:
            if self._n_columns >= db.MAX_COLUMNS:
                reason = f"a gallery holds at most {db.MAX_COLUMNS} columns of metadata"
                self.left_out[name] = Skipped(f"column {name[:80]!r}", reason)
                return None
            self._n_columns += 1
        self._taken.add(own.lower())
        self._own[name] = self._unsaved[name] = own
        return own


def _recorded(connection: sqlite3.Connection) -> dict[str, str]:
    """What is recorded, as far as it names columns of metadata: a file may say anything."""
    if not _has_record(connection):
        return {}
    columns = {*db.columns(connection)}
    rows = connection.execute("SELECT name, own FROM column_of").fetchall()
    return {name: own for name, own in rows if isinstance(name, str) and own in columns}


def _has_record(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'column_of'").fetchone()
    return found is not None
