"""The directory of a gallery, and how it changes.

    gallery.json     what the gallery is (manifest.py)
    encoder/         the encoder with its weights
    fitted-encoder/  in its place, once it was fitted to the first items
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
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.encoders.saved import files
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store import connections, forgetting, locking, parts, written
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store import manifest as manifests
from fastretrieve.gallery.store import vectors as vector_files
from fastretrieve.gallery.store.database import Database
from fastretrieve.gallery.store.forking import n_forks
from fastretrieve.gallery.store.manifest import Manifest
from fastretrieve.gallery.store.vectors import Vectors
from fastretrieve.gallery.store.writing import Writer

ENCODER, PICTURES, LOCK = parts.ENCODER, parts.PICTURES, parts.LOCK


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
                self.vectors.sweep(db.index_files(connection))
                written.prepare(connection)
                writer = Writer(self.folder, self.vectors, connection)
                forgetting.finish(writer)
                yield writer
                if forks == n_forks():  # else the parent is the writer
                    # Into the main file, so that readers need not look into a long log. Where one
                    # of them needs the log, the next writer does it.
                    connections.cut_log(connection, patience=1.0)
                    locking.note_identity(self.folder)
            finally:
                connections.put_away(connection, forks)

    def saved_encoder(self, *, verify: bool = True) -> files.SavedEncoder:
        """The encoder that the manifest names, or what lies in its place."""
        folder = parts.folder(self.folder / ENCODER)
        with contextlib.suppress(EncoderError):  # none, or a part that a killed writer left
            fitted = files.read_encoder(parts.folder(self.folder / parts.FITTED), verify=False)
            if fitted.weights_sha256 == self.manifest.weights_sha256:
                folder = fitted.directory
        return files.read_encoder(folder, verify=verify)

    def replace_encoder(self, encoder: Encoder) -> None:
        """Keep another encoder while no vectors are there; the caller holds the writer's lock.

        It is the one that counts from the moment at which the manifest names it.
        """
        fitted = parts.folder(self.folder / parts.FITTED)
        encoder.save(fitted)
        saved = files.read_encoder(fitted)
        made = dataclasses.replace(self.manifest, weights_sha256=saved.weights_sha256)
        made.write(self.folder)
        self.manifest = made
        shutil.rmtree(parts.folder(self.folder / ENCODER), ignore_errors=True)

    def kept_weights(self) -> str:
        """The hash of the weights of the encoder that the gallery keeps now: another process may
        have fitted it since this one opened the gallery.
        """
        self.manifest = Manifest.read(self.folder)
        return self.manifest.weights_sha256

    def close(self) -> None:
        self.database.close()
