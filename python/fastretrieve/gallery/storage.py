"""The directory of a gallery, and how it changes.

    gallery.json     what the gallery is (manifest.py)
    encoder/         the encoder with its weights
    items.sqlite     the items, and which index files are valid: the one commit point (database.py)
    vectors/         index files, numbered, never changed (vectors.py)
    pictures/        downloads and pictures that came without a file
    lock             held by the one process that changes the gallery (locking.py)
    forgetting       there while items are erased (forgetting.py)

A change opens a transaction, writes the items, saves the new index file and flushes it to disk,
names it in the database and commits. Killed before the commit, it leaves a file that nothing names;
the next writer removes it. Killed after, it has happened. A file is only removed after the commit
that stopped naming it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.progress import Progress
from fastretrieve.encoders.saved import files
from fastretrieve.gallery import connections, forgetting, locking, parts
from fastretrieve.gallery import database as db
from fastretrieve.gallery import manifest as manifests
from fastretrieve.gallery import vectors as vector_files
from fastretrieve.gallery.database import Database
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.forking import n_forks
from fastretrieve.gallery.manifest import Manifest
from fastretrieve.gallery.vectors import Vectors

ENCODER, PICTURES, LOCK = parts.ENCODER, parts.PICTURES, parts.LOCK
WASTED_SHARE = 0.3  # of the rows in the index files, before they are written anew


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
        if strangers := parts.strangers(folder):
            raise GalleryError(
                f"{folder} holds other files ({', '.join(strangers[:3])}); a gallery needs a "
                "directory of its own"
            )
        parts.check(folder)
        with locking.locked(folder, wait=0):
            parts.make_folders(folder)
            parts.remove_debris(folder)
            save_encoder(folder / ENCODER)
            Database.create(folder)
            made = manifest(files.read_encoder(folder / ENCODER))
            locking.note_identity(folder)
            made.write(folder)

    @classmethod
    def open(cls, folder: Path, *, device: str = "cpu") -> Storage:
        """Open and check what can be checked without reading everything."""
        manifest = Manifest.read(folder)
        parts.check(folder)
        vector_files.new_index(manifest, device)  # a device that is not there is an error here
        storage = cls(folder, manifest, device=device)
        storage.database.check_version()
        return storage

    @contextlib.contextmanager
    def writing(self, *, wait: float = 0.0) -> Iterator[Writer]:
        """The right to change the gallery, which one process has at a time."""
        with locking.locked(self.folder, wait=wait), self.database.naming_faults():
            parts.check(self.folder)
            parts.make_folders(self.folder)
            parts.remove_debris(self.folder)
            connection, forks = self.database.connect(write=True), n_forks()
            try:
                self.vectors.sweep(db.segments(connection))
                writer = Writer(self, connection)
                forgetting.finish(writer)
                yield writer
                if forks == n_forks():  # else the parent is the writer
                    # Into the main file, so that readers need not look into a long log. Where one
                    # of them needs the log, the next writer does it.
                    connections.cut_log(connection, patience=1.0)
                    locking.note_identity(self.folder)
            finally:
                connections.put_away(connection, forks)

    def close(self) -> None:
        self.database.close()


class Writer:
    """Commits changes; made by ``Storage.writing``."""

    def __init__(self, storage: Storage, connection: Any) -> None:
        self.folder = storage.folder
        self._vectors = storage.vectors
        self.connection = connection  # for reading too: it sees its own transaction

    def commit(self, change: Callable[[Any, int], Rows | None]) -> int:
        """Make one change whole or not at all; returns its number.

        ``change(connection, generation)`` writes the items and returns their new vectors.
        """
        with self.transaction() as generation:
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
        with self.transaction() as generation:
            gone = vector_files.deleted(self.connection, since=0)
            merged = self._vectors.merge(old, gone, generation, progress)
            self.connection.executemany(
                "DELETE FROM segment WHERE last = ?", [(segment.last,) for segment in old]
            )
            self._insert(merged)
        self._vectors.sweep(db.segments(self.connection))

    def rewrite(self, gone: NDArray[np.int64], progress: Progress | None = None) -> int:
        """Write the index files anew that hold vectors of these items, without them. Returns how
        many: each is a commit of its own, so that a stop loses nothing.
        """
        listed = db.segments(self.connection)
        touched = [segment for segment in listed if self._vectors.holds(segment, gone)]
        for number, segment in enumerate(touched, 1):
            with self.transaction() as generation:
                rest = self._vectors.merge([segment], gone, generation)
                self.connection.execute("DELETE FROM segment WHERE last = ?", (segment.last,))
                self._insert(rest)
            self._vectors.sweep(db.segments(self.connection))
            if progress is not None:
                progress(number, len(touched))
        return len(touched)

    def _is_mostly_gone(self, listed: list[db.Segment]) -> bool:
        """Whether deleted and replaced rows waste a share of the files."""
        n_rows = sum(segment.n_rows for segment in listed)
        n_live = db.count(self.connection)
        return n_rows - n_live > max(WASTED_SHARE * n_rows, vector_files.MIN_TAIL_ROWS)

    def _insert(self, segment: db.Segment) -> None:
        self.connection.execute("INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?)", segment)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[int]:
        """One commit; yields its number."""
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
