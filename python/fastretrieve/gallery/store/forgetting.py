"""Erase items for good; ``remove`` only hides them.

``remove`` keeps the row of an item and its vector, so that it stays out when its folder is added
again. Forgetting leaves nothing of it in the directory. It takes five steps, and a
process may be killed after any of them. A file named ``forgetting`` says that steps are left; the
next writer takes them:

1. One transaction empties the rows and gives them keys that no source has.
2. Each index file that holds one of their vectors is written anew without it.
3. Centres of clusters, which are means of vectors, become the means of those that stay.
4. Pictures that no row names are removed.
5. The rows are deleted, and the index of words is made anew, since FTS5 keeps deleted words for a
   while; the database is written anew (VACUUM), and its log is cut to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastretrieve._common.atomic import replacing
from fastretrieve._common.progress import Progress
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store import clustering, connections, parts, written
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store.items import FIXED_COLUMNS, quoted
from fastretrieve.gallery.store.writing import Writer

_KEY = "forgotten:"  # with the id: no path, URL or picture has such a key
PATIENCE = 5.0  # seconds to wait for readers of an old state to end


class Forgotten(NamedTuple):
    """What was erased."""

    items: int = 0
    pictures: int = 0  # files that the gallery kept
    index_files: int = 0  # that were written anew
    ids: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self._asdict()


def forget(writer: Writer, ids: Sequence[int], progress: Progress | None = None) -> Forgotten:
    """Erase these items; when this returns, nothing of them is left in the directory."""
    with replacing(writer.folder / parts.FORGETTING) as file:
        file.write(b"the next process that changes this gallery erases what is left\n")
    writer.commit(lambda connection, generation: _empty(connection, ids, generation))
    forgotten = finish(writer, progress)
    if (writer.folder / parts.FORGETTING).exists():
        raise GalleryError(
            f"{writer.folder} is erased but for its log, which a reader still uses; end that "
            "reader, then forget again (or change the gallery) to erase the log too"
        )
    return forgotten


def finish(writer: Writer, progress: Progress | None = None) -> Forgotten:
    """Take the steps that are left, if somebody began. The last has to wait for readers that still
    look into the log; if they do not end, it is left to the next writer.
    """
    marker = parts.file(writer.folder / parts.FORGETTING)
    if not marker.exists():
        return Forgotten()
    connection = writer.connection
    connection.execute("PRAGMA secure_delete = ON")
    chosen = f"SELECT id FROM item WHERE key >= '{_KEY}' AND key < '{_KEY[:-1]};'"
    ids = tuple(row[0] for row in connection.execute(f"{chosen} ORDER BY id").fetchall())
    n_files = writer.rewrite(np.array(ids, np.int64), progress)
    clustering.recentre(writer)
    n_pictures = _remove_pictures(writer.folder, connection)
    with writer.transaction():
        connection.execute(f"DELETE FROM item WHERE id IN ({chosen})")
        db.count_erasure(connection)
    if written.is_kept(connection):
        written.rebuild(connection)
    connection.execute("VACUUM")
    if connections.cut_log(connection, patience=PATIENCE):
        marker.unlink()
        _flush(writer.folder)
    return Forgotten(len(ids), n_pictures, n_files, ids)


def _empty(connection: Any, ids: Sequence[int], generation: int) -> None:
    connection.execute("PRAGMA secure_delete = ON")
    kept = {"id", "key", "path", "deleted"}
    names = [name for name in (*FIXED_COLUMNS, *db.columns(connection)) if name not in kept]
    emptied = ", ".join(f"{quoted(name)} = NULL" for name in names)
    connection.executemany(
        f"UPDATE item SET key = '{_KEY}' || id, path = '', deleted = max(deleted, ?), {emptied} "
        "WHERE id = ?",
        [(generation, item_id) for item_id in ids],
    )


def _remove_pictures(folder: Path, connection: Any) -> int:
    """Remove the kept pictures that no row names."""
    kept = f"path >= '{parts.PICTURES}/' AND path < '{parts.PICTURES}0'"
    named = {row[0] for row in connection.execute(f"SELECT path FROM item WHERE {kept}").fetchall()}
    n = 0
    for where in parts.kept_folders(folder):
        start = f"{parts.PICTURES}/{where.name}/"
        unnamed = {
            name
            for name in os.listdir(where)
            # A row whose picture could not be fetched has no suffix yet.
            if not named & {start + name, start + name.partition(".")[0]}
        }
        n += parts.remove(where, unnamed.__contains__)
        _flush(where)
    return n


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
