"""Items: their fixed columns, their metadata, and how both are named and kept.

``database.py`` holds the table they live in.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

# The fixed columns of an item. ``deleted`` is the generation in which the item's vector left the
# index, 0 while it is there. Boxes are in pixels of the upright image.
FIXED = {
    "id": "INTEGER PRIMARY KEY AUTOINCREMENT",  # the id in the index; never used again
    "key": "TEXT NOT NULL UNIQUE",  # what makes it one item: the path with its box, or the URL
    "path": "TEXT NOT NULL",
    "url": "TEXT",
    "left": "REAL",
    "top": "REAL",
    "right": "REAL",
    "bottom": "REAL",
    "width": "INTEGER",  # of the item: of its box if it has one
    "height": "INTEGER",
    "size": "INTEGER",  # of the file, in bytes
    "mtime_ns": "INTEGER",
    "hash": "TEXT",  # SHA-256 of the file's bytes
    "label": "TEXT",
    "caption": "TEXT",
    "error": "TEXT",  # why it cannot be read
    "deleted": "INTEGER NOT NULL DEFAULT 0",
}
FIXED_COLUMNS = tuple(FIXED)
MAX_INTEGER = 2**63 - 1  # that SQLite holds
WORDS = "words/"  # begins the path of a text; the rest is its SHA-256, and the caption is the text
_SHOWN = 200  # characters of a text in a table
_OWN_NAMES = frozenset({*FIXED_COLUMNS, "rowid", "oid", "_rowid_"})


class Item(NamedTuple):
    """One thing that a gallery holds."""

    id: int
    path: str
    label: str | None
    caption: str | None
    width: int | None
    height: int | None
    box: tuple[float, float, float, float] | None
    url: str | None
    metadata: dict[str, Any]  # the further columns
    size: int | None
    mtime_ns: int | None
    hash: str | None
    error: str | None
    deleted: bool

    @property
    def text(self) -> str | None:
        """The words of an item that is a text, else None."""
        return self.caption if self.path.startswith(WORDS) else None

    @property
    def origin(self) -> str:
        """Where it came from: a path or a URL, or its number if it came without a file; a text
        says itself.
        """
        if self.text is not None:
            return one_line(self.text)
        if self.url is not None:
            return self.url
        return self.path if os.path.isabs(self.path) else f"item {self.id}"

    @property
    def name(self) -> str:
        """The last part of its origin, for a caption; of a URL without what may be secret in it; of
        a text the file and the line that it came from.
        """
        if self.text is not None:
            return str(self.metadata.get("source") or f"item {self.id}")
        if self.url is None:
            return Path(self.origin).name
        parts = urlsplit(self.url)
        return Path(parts.path).name or str(parts.hostname)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self._asdict() if self.text is None else {**self._asdict(), "text": self.text}


class Known(NamedTuple):
    """The recorded facts with which a second look at an item is compared."""

    id: int
    size: int | None
    mtime_ns: int | None
    hash: str | None
    error: str | None
    deleted: int
    about: Sequence[Any]  # the columns asked for


def as_item(row: Sequence[Any], names: Sequence[str]) -> Item:
    """An item from a row of the fixed columns and those of metadata."""
    fixed = dict(zip(FIXED_COLUMNS, row, strict=False))
    edges = (fixed["left"], fixed["top"], fixed["right"], fixed["bottom"])
    return Item(
        **{name: fixed[name] for name in ("id", "path", "label", "caption", "width", "height")},
        **{name: fixed[name] for name in ("url", "size", "mtime_ns", "hash", "error")},
        box=None if None in edges else edges,
        metadata=dict(zip(names, row[len(FIXED_COLUMNS) :], strict=True)),
        deleted=bool(fixed["deleted"]),
    )


def words_path(text: str) -> str:
    """What the path of an item says that is this text."""
    return f"{WORDS}{hashlib.sha256(text.encode()).hexdigest()}"


def one_line(text: str) -> str:
    """The beginning of a text, for a line of a table.

    >>> one_line("a red\\nboot"), len(one_line("boot " * 100))
    ('a red boot', 200)
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * _SHOWN]).split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


def quoted(name: str) -> str:
    """A column's name for a statement."""
    return '"' + name.replace('"', '""') + '"'


def column_name(name: str) -> str:
    """The name that a column of a table asks for in the gallery; ``naming.py`` keeps two columns
    from one name.

    A name that the gallery uses itself gets an underscore.

    >>> column_name("id"), column_name("photo grapher"), column_name('a"b')
    ('id_', 'photo grapher', 'ab')
    """
    cleaned = re.sub(r"[\"\x00-\x1f`\[\]]", "", str(name)).strip()[:64] or "column"
    return f"{cleaned}_" if cleaned.lower() in _OWN_NAMES else cleaned


def storable(value: Any) -> Any:
    """A value of metadata as SQLite keeps it; lists and dictionaries become JSON. A ``ValueError``
    says what cannot be kept.

    >>> storable(True), storable(float("nan")), storable([1, "a"]), storable(2**64)
    (1, None, '[1, "a"]', '18446744073709551616')
    """
    value = value.item() if hasattr(value, "item") else value
    if value is None:
        return None
    if isinstance(value, str):
        if not value.isascii():
            value.encode()  # a UnicodeEncodeError where it is no text
        return value
    if isinstance(value, (bool, int)):
        return int(value) if -MAX_INTEGER <= value <= MAX_INTEGER else str(value)
    if isinstance(value, float):
        # No number of JSON, in which the page and exports give it out.
        return None if value != value else str(value) if abs(value) == math.inf else value
    return json.dumps(value, default=str)
