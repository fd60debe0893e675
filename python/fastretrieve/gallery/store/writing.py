"""The writer of a gallery: commits of items and vectors, and the merging of index files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.progress import Progress
from fastretrieve.gallery.store import clusters, written
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store import vectors as vector_files
from fastretrieve.gallery.store.vectors import Vectors, View

WASTED_SHARE = 0.3  # of the rows in the index files, before they are written anew


class NewVectors(NamedTuple):
    """The vectors that a change brings, with the ids of their items."""

    ids: NDArray[np.int64]  # [n]
    vectors: NDArray[Any]  # [n, dim]


class Writer:
    """Commits changes; made by ``Storage.writing``."""

    def __init__(self, folder: Path, vectors: Vectors, connection: Any) -> None:
        self.folder = folder
        self._vectors = vectors
        self.connection = connection  # for reading too: it sees its own transaction

    def commit(self, change: Callable[[Any, int], NewVectors | None]) -> int:
        """Make one change whole or not at all; returns its number.

        ``change(connection, generation)`` writes the items and returns their new vectors. Clusters
        follow: who is removed leaves, and who has a new vector falls into the nearest. The index of
        words follows every transaction.
        """
        with self.transaction() as generation:
            rows = change(self.connection, generation)
            clusters.leave(self.connection, generation)
            if rows is not None and len(rows.ids):
                file = self._vectors.write(rows.ids, rows.vectors, generation)
                self._insert(file)
                if clusters.are_kept(self.connection):
                    clusters.enter(self.connection, self._vectors.load(file, device="cpu"))
        self.merge(ended=False)
        return generation

    def view(self) -> contextlib.AbstractContextManager[View]:
        """The last commit; the writer's own, as nobody else commits."""
        return self._vectors.view()

    def merge(self, *, ended: bool, progress: Progress | None = None) -> None:
        """Keep the index files few. What can be found does not change."""
        listed = db.index_files(self.connection)
        old = vector_files.to_merge(listed, ended=ended)
        if ended and self._is_mostly_gone(listed):
            old = listed
        if not old:
            return
        with self.transaction() as generation:
            gone = vector_files.deleted(self.connection, since=0)
            is_first = old[0] == listed[0]  # the largest, and an index keeps the largest screen
            merged = self._vectors.merge(old, gone, generation, progress, optimize=is_first)
            self.connection.executemany(
                "DELETE FROM segment WHERE last = ?", [(file.last,) for file in old]
            )
            self._insert(merged)
        self._vectors.sweep(db.index_files(self.connection))

    def rewrite(self, gone: NDArray[np.int64], progress: Progress | None = None) -> int:
        """Write the index files anew that hold vectors of these items, without them. Returns how
        many: each is a commit of its own, so that a stop loses nothing.
        """
        listed = db.index_files(self.connection)
        touched = [file for file in listed if self._vectors.holds(file, gone)]
        for number, file in enumerate(touched, 1):
            with self.transaction() as generation:
                rest = self._vectors.merge([file], gone, generation)
                self.connection.execute("DELETE FROM segment WHERE last = ?", (file.last,))
                self._insert(rest)
            self._vectors.sweep(db.index_files(self.connection))
            if progress is not None:
                progress(number, len(touched))
        return len(touched)

    def _is_mostly_gone(self, listed: list[db.IndexFile]) -> bool:
        """Whether deleted and replaced rows waste a share of the files."""
        n_rows = sum(file.n_rows for file in listed)
        n_live = db.count(self.connection)
        return n_rows - n_live > max(WASTED_SHARE * n_rows, vector_files.MIN_TAIL_ROWS)

    def _insert(self, file: db.IndexFile) -> None:
        self.connection.execute("INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?)", file)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[int]:
        """One commit; yields its number."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            generation = db.generation(self.connection) + 1
            yield generation
            written.follow(self.connection)
            self.connection.execute("UPDATE state SET generation = ?", (generation,))
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
