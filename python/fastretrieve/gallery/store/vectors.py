"""The vectors of a gallery: index files that never change, and the index that is searched.

Every commit adds one file of ``Index.save``, numbered and named in the database. All of them are
read by mmap and searched where they are: of a vector that is in several files the last one counts,
and deleted ones are left out. Files of similar size are merged into one, a part at a time, so that
there are few and no gallery is too large to be changed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import fastretrieve as fr
from fastretrieve._common.progress import Progress
from fastretrieve.encoders.saved.files import file_sha256
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store import memory, parts
from fastretrieve.gallery.store.database import Database, IndexFile
from fastretrieve.gallery.store.gate import Gate
from fastretrieve.gallery.store.manifest import Manifest

FOLDER = parts.VECTORS
SUFFIX = ".index"
TAIL_SHARE = 0.1  # of the first file: what the later ones may hold after an addition has ended
MIN_TAIL_ROWS = 20_000  # so few cost a search nothing
VERIFIED_BYTES = 32_000_000  # of a file whose checksums are compared on opening; check() does all
TRIES = 1000  # to read a state that a busy writer keeps replacing


@dataclass(frozen=True)
class View:
    """One committed state, held still while it is used."""

    index: fr.Index
    connection: sqlite3.Connection  # read-only, inside a transaction of that state
    generation: int


SAMPLE_BYTES = 1 << 30  # that `optimize` takes for its samples, however few vectors there are


class Vectors:
    """The index of one gallery as of its last commit, whoever made it."""

    def __init__(self, folder: Path, manifest: Manifest, database: Database, device: str) -> None:
        self._gallery = folder
        self._manifest = manifest
        self._database = database
        self._device = device
        self._gate = Gate(self._discard)
        self._discard()

    def _discard(self) -> None:
        self._index: fr.Index | None = None
        self._generation = -1
        self._last = 0  # of the files that were applied
        self._erasures = -1  # until then

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """The last committed state. Files of a state that is not the last any more may be gone,
        then the next one is read.
        """
        with contextlib.ExitStack() as held:
            for _ in range(TRIES):
                with contextlib.ExitStack() as tried:
                    tried.enter_context(self._gate.shared())
                    connection = tried.enter_context(self._database.snapshot())
                    if self._index is not None and db.generation(connection) == self._generation:
                        held.push(tried.pop_all())
                        break
                self._refresh()
            else:
                raise GalleryError(f"{self._gallery} changes faster than it can be read")
            yield View(self._index, connection, self._generation)

    def _refresh(self) -> None:
        missed = -1  # the generation in which a file was missing
        while True:
            with self._gate.exclusive(), self._database.snapshot() as connection:
                try:
                    self._catch_up(connection)
                    return
                except BaseException as error:
                    self._discard()
                    if not isinstance(error, FileNotFoundError):
                        raise
                    # Merged away since the snapshot was taken, unless nothing has changed since.
                    if missed == db.generation(connection):
                        raise GalleryError(
                            f"{error.filename} is missing; restore it, or index the images again"
                        ) from error
                    missed = db.generation(connection)

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        generation = db.generation(connection)
        if generation == self._generation:
            return
        listed = db.index_files(connection)
        new = [file for file in listed if file.last > self._last]
        index, since = self._index, self._generation
        erasures = db.erasures(connection)
        if erasures != self._erasures:
            index = None
        if index is None or any(file.first <= self._last for file in new):
            index, since, new = None, 0, listed
        if index is None:
            index = new_index(self._manifest, self._device)
        newest = db.newest_id(connection)
        for file in new:
            later = self.load(file)
            if len(later) and int(later.ids.max()) > newest:
                raise GalleryError(
                    f"{self._gallery / FOLDER / file.name} holds vectors of items that "
                    f"{self._database.path.name} does not have; restore both"
                )
            apply(index, later)
        drop(index, deleted(connection, since=since))
        self._index, self._generation, self._erasures = index, generation, erasures
        self._last = max((file.last for file in listed), default=0)

    def load(self, file: IndexFile, *, device: str | None = None) -> fr.Index:
        """An index file by mmap. Its length and format are checked; if it is small, every byte."""
        path = parts.index_file(self._gallery, file.name)
        n_bytes = path.stat().st_size
        if n_bytes != file.n_bytes:
            raise GalleryError(
                f"{path} has {n_bytes} bytes instead of {file.n_bytes}: it was cut off or "
                "changed; restore it, or index the images again"
            )
        try:
            is_small = n_bytes <= VERIFIED_BYTES
            where = self._device if device is None else device
            index = fr.Index.load(path, mmap=True, device=where, verify=is_small)
        except fr.StorageError as error:
            raise GalleryError(f"{path} is damaged: {error}; restore it") from error
        wanted = self._manifest
        if (index.dim, index.metric, index.dtype) != (wanted.dim, wanted.metric, wanted.dtype):
            raise GalleryError(
                f"{path} holds {index!r}, but the gallery wants dim={wanted.dim}, "
                f"metric={wanted.metric!r}, dtype={wanted.dtype!r}; restore it"
            )
        if len(index) != file.n_rows:
            raise GalleryError(
                f"{path} holds {len(index)} rows instead of {file.n_rows}; restore it, or index "
                "the images again"
            )
        return index

    def check(self, connection: sqlite3.Connection, progress: Progress | None = None) -> list[str]:
        """Read every byte of every index file, and make all codes again to compare them; returns
        what is wrong.
        """
        faults = []
        listed = db.index_files(connection)
        before, in_all = 0, sum(file.n_bytes for file in listed)

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress(before + file.n_bytes * done // max(total, 1), in_all)

        for file in listed:
            try:
                path = parts.index_file(self._gallery, file.name)
            except GalleryError as error:
                faults.append(str(error))
                continue
            try:
                if file_sha256(path) != file.sha256:
                    faults.append(f"{path}: its SHA-256 is not the one that was committed")
                else:
                    fr.Index.load(path, verify="codes", progress=tell)
            except OSError as error:
                faults.append(f"{path}: {error.strerror}")
            except fr.StorageError as error:
                faults.append(str(error))
            tell(1, 1)
            before += file.n_bytes
        return faults

    # --- writing: the caller holds the writer's lock and an open transaction ----------------------

    def write(self, ids: NDArray[np.int64], vectors: NDArray[Any], commit: int) -> IndexFile:
        """Save the vectors of one commit; the file is on disk when this returns."""
        index = new_index(self._manifest, "cpu")
        index.add(vectors, ids=ids)
        return self._save(index, first=commit, last=commit, commit=commit)

    def merge(
        self,
        old: Sequence[IndexFile],
        gone: NDArray[np.int64],
        commit: int,
        progress: Progress | None = None,
        *,
        optimize: bool = True,
    ) -> IndexFile:
        """One file for several that follow each other, without the deleted rows, and optimized.

        The rows go from file to file; only their ids are held, and what ``optimize`` makes, which
        may take about as much as the vectors for a while. So it is left out where memory is short.
        """
        merged = new_index(self._manifest, "cpu")
        for file in old:
            apply(merged, self.load(file, device="cpu"))
        drop(merged, gone)
        if optimize and self._fits_memory(len(merged)):
            merged.optimize()  # anew, as an older screen shows where deleted rows lay
        return self._save(
            merged, first=old[0].first, last=old[-1].last, commit=commit, progress=progress
        )

    def _fits_memory(self, n_rows: int) -> bool:
        return 4 * n_rows * self._manifest.dim + SAMPLE_BYTES < memory.most_bytes() // 2

    def holds(self, file: IndexFile, ids: NDArray[np.int64]) -> bool:
        """Whether an index file has a row of one of these items."""
        return bool(np.isin(ids, self.load(file, device="cpu").ids).any())

    def _save(
        self,
        index: fr.Index,
        *,
        first: int,
        last: int,
        commit: int,
        progress: Progress | None = None,
    ) -> IndexFile:
        name = f"{commit:010d}{SUFFIX}"
        path = parts.index_file(self._gallery, name)
        index.save(path, progress=progress)
        return IndexFile(last, first, name, len(index), path.stat().st_size, file_sha256(path))

    def sweep(self, named: Sequence[IndexFile]) -> None:
        """Remove the files that no commit names: merged ones, and those of killed writers."""
        parts.remove_index_files(self._gallery, {file.name for file in named})


def new_index(manifest: Manifest, device: str) -> fr.Index:
    """An empty index as the manifest wants it."""
    return fr.Index(
        manifest.dim,
        metric=cast(Any, manifest.metric),
        dtype=cast(Any, manifest.dtype),
        device=device,
    )


def apply(index: fr.Index, later: fr.Index) -> None:
    """Give ``index`` the vectors of a later one, in the memory where they are."""
    drop(index, later.ids)
    index.extend(later)


def drop(index: fr.Index, ids: NDArray[np.int64]) -> None:
    """Remove those of these ids that are there."""
    present = ids[np.isin(ids, index.ids)] if len(ids) and len(index) else ids[:0]
    if len(present):
        index.remove(present)


def to_merge(files: Sequence[IndexFile], *, ended: bool) -> Sequence[IndexFile]:
    """The last files that should become one, or none.

    While items are added, sizes stay geometric: a file is at least twice the one behind it. When
    the addition has ended, all behind the first hold at most a share of it.

    >>> sizes = [IndexFile(i, i, "", n, 0, "") for i, n in enumerate([900, 100, 60, 40])]
    >>> [file.n_rows for file in to_merge(sizes, ended=False)]
    [100, 60, 40]
    """
    if not files:
        return []
    start, tail = len(files) - 1, files[-1].n_rows
    while start > 0 and (files[start - 1].n_rows < 2 * tail):
        start -= 1
        tail += files[start].n_rows
    behind = sum(file.n_rows for file in files[1:])
    if ended and behind > max(TAIL_SHARE * files[0].n_rows, MIN_TAIL_ROWS):
        start = 0
    return files[start:] if start < len(files) - 1 else []


def deleted(connection: sqlite3.Connection, *, since: int) -> NDArray[np.int64]:
    """The items whose vectors left after that generation."""
    rows = connection.execute("SELECT id FROM item WHERE deleted > ?", (since,)).fetchall()
    return np.array([row[0] for row in rows], np.int64)
