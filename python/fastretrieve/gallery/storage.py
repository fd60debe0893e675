"""The directory of a gallery, and how it changes.

    gallery.json     what the gallery is (manifest.py)
    encoder/         the encoder with its weights
    items.sqlite     the items, and which index files are valid: the one commit point (database.py)
    vectors/         index files, numbered, never changed (vectors.py)
    pictures/        downloads and pictures that came without a file
    lock             held by the one process that changes the gallery

A change opens a transaction, writes the items, saves the new index file and flushes it to disk,
names it in the database and commits. Killed before the commit, it leaves a file that nothing names;
the next writer removes it. Killed after, it has happened. A file is only removed after the commit
that stopped naming it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._files.tensorfile import Progress
from fastretrieve.encoders.saved import files
from fastretrieve.gallery import database as db
from fastretrieve.gallery import manifest as manifests
from fastretrieve.gallery import vectors as vector_files
from fastretrieve.gallery.database import Database
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.manifest import Manifest
from fastretrieve.gallery.vectors import Vectors

ENCODER = "encoder"
PICTURES = "pictures"
LOCK = "lock"
WASTED_SHARE = 0.3  # of the rows in the index files, before they are written anew
_OURS = {
    manifests.FILE,
    ENCODER,
    vector_files.FOLDER,
    PICTURES,
    LOCK,
    *(db.FILE + end for end in ("", "-wal", "-shm")),
}


class Rows(NamedTuple):
    """The vectors that a change brings, with the ids of their items."""

    ids: NDArray[np.int64]  # [n]
    vectors: NDArray[Any]  # [n, dim]


class Storage:
    """One gallery on disk."""

    def __init__(self, folder: Path, manifest: Manifest, *, device: str = "cpu") -> None:
        self.folder = folder
        self.manifest = manifest
        self.database = Database(folder)
        self.vectors = Vectors(folder, manifest, self.database, device)

    @classmethod
    def create(
        cls,
        folder: Path,
        save_encoder: Callable[[Path], Any],
        manifest: Callable[[files.SavedEncoder], Manifest],
    ) -> None:
        """Make the directory. The manifest comes last: without it there is no gallery."""
        if (folder / manifests.FILE).exists():
            raise GalleryError(
                f"{folder} is a gallery already; open it, or choose another directory"
            )
        folder.mkdir(parents=True, exist_ok=True)
        if strangers := sorted({path.name for path in folder.iterdir()} - _OURS):
            raise GalleryError(
                f"{folder} holds other files ({', '.join(strangers[:3])}); a gallery needs a "
                "directory of its own"
            )
        with locked(folder, wait=0):
            for name in (vector_files.FOLDER, PICTURES):
                (folder / name).mkdir(exist_ok=True)
            save_encoder(folder / ENCODER)
            Database.create(folder)
            manifest(files.read_encoder(folder / ENCODER)).write(folder)

    @classmethod
    def open(cls, folder: Path, *, device: str = "cpu") -> Storage:
        """Open and check what can be checked without reading everything."""
        manifest = Manifest.read(folder)
        vector_files.new_index(manifest, device)  # a device that is not there is an error here
        storage = cls(folder, manifest, device=device)
        storage.database.check_version()
        return storage

    @contextlib.contextmanager
    def writing(self, *, wait: float = 0.0) -> Iterator[Writer]:
        """The right to change the gallery, which one process has at a time."""
        with locked(self.folder, wait=wait), self.database.naming_faults():
            connection = self.database.connect(write=True)
            try:
                self.vectors.sweep(db.segments(connection))
                yield Writer(self, connection)
                # Into the main file, so that readers need not look into a long log.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.close()

    def close(self) -> None:
        self.database.close()


class Writer:
    """Commits changes; made by ``Storage.writing``."""

    def __init__(self, storage: Storage, connection: Any) -> None:
        self._storage = storage
        self._vectors = storage.vectors
        self.connection = connection  # for reading too: it sees its own transaction

    def commit(self, change: Callable[[Any, int], Rows | None]) -> int:
        """Make one change whole or not at all; returns its number.

        ``change(connection, generation)`` writes the items and returns their new vectors.
        """
        with self._transaction() as generation:
            rows = change(self.connection, generation)
            if rows is not None and len(rows.ids):
                self._insert(self._vectors.write(rows.ids, rows.vectors, generation))
        self.merge(ended=False)
        return generation

    def merge(self, *, ended: bool, progress: Progress | None = None) -> None:
        """Keep the index files few. What can be found does not change."""
        listed = db.segments(self.connection)
        old = vector_files.to_merge(listed, ended=ended)
        if ended and self._is_mostly_gone(listed):
            old = listed
        if not old:
            return
        with self._transaction() as generation:
            gone = vector_files.deleted(self.connection, since=0)
            merged = self._vectors.merge(old, gone, generation, progress)
            self.connection.executemany(
                "DELETE FROM segment WHERE last = ?", [(segment.last,) for segment in old]
            )
            self._insert(merged)
        self._vectors.sweep(db.segments(self.connection))

    def _is_mostly_gone(self, listed: list[db.Segment]) -> bool:
        """Whether deleted and replaced rows waste a share of the files."""
        n_rows = sum(segment.n_rows for segment in listed)
        n_live = db.count(self.connection)
        return n_rows - n_live > max(WASTED_SHARE * n_rows, vector_files.MIN_TAIL_ROWS)

    def _insert(self, segment: db.Segment) -> None:
        self.connection.execute("INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?)", segment)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[int]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            generation = db.generation(self.connection) + 1
            yield generation
            self.connection.execute("UPDATE state SET generation = ?", (generation,))
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise


@contextlib.contextmanager
def locked(folder: Path, *, wait: float) -> Iterator[None]:
    """Hold the writer's lock; the system frees it when the process ends, however it ends."""
    with (folder / LOCK).open("a+b") as file:
        deadline = time.monotonic() + wait
        while not _try_lock(file):
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = file.read(100).decode("ascii", "replace").strip() or "unknown"
                raise GalleryError(
                    f"{folder} is being changed by process {holder}; wait for it to end, or give "
                    "a time to wait"
                )
            time.sleep(0.05)
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        yield


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
