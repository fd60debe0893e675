"""A walk over the items of a gallery that looks at their files again."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fastretrieve.gallery.intake.candidates import Candidate, measured
from fastretrieve.gallery.store import schema
from fastretrieve.gallery.store.items import WORDS
from fastretrieve.gallery.store.storage import Storage

_CHUNK = 8192  # items in memory at a time


def candidates(storage: Storage, vanished: list[int]) -> Iterator[Candidate]:
    """Every item, unreadable ones too, with the present size and time of its file. Ids of items
    without a file go into ``vanished``.
    """
    chosen = "id, key, path, url, caption, left, top, right, bottom, size, mtime_ns, deleted"
    last = 0
    while True:
        with storage.database.reading() as connection:
            rows = connection.execute(
                f"SELECT {chosen} FROM item WHERE id > ? AND (deleted = 0 OR error IS NOT NULL) "
                "ORDER BY id LIMIT ?",
                (last, _CHUNK),
            ).fetchall()
            for row in rows:
                if schema.wrong_listed(row):
                    raise sqlite3.DatabaseError(f"item {row[0]} has no such values as we write")
        if not rows:
            return
        last = rows[-1][0]
        for item_id, key, path, url, caption, *edges, size, mtime_ns, gone in rows:
            box = None if None in edges else tuple(edges)
            one = Candidate(key, path, size, mtime_ns, box=box, url=url)
            if path.startswith(WORDS):
                one = one._replace(caption=caption)
            if url is None and os.path.isabs(path):
                try:
                    now = measured(Path(path))
                except (OSError, ValueError):  # no file has a name like that
                    if not gone:
                        vanished.append(item_id)
                    continue
                one = one._replace(size=now[0], mtime_ns=now[1])
            yield one
