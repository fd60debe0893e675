"""What is wrong with the files of a gallery: each part alone, and all of them together."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from fastretrieve._common.progress import Progress
from fastretrieve.encoders import EncoderError
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store import access, clusters, locking, parts, schema, written
from fastretrieve.gallery.store.items import FIXED_COLUMNS, WORDS, words_path
from fastretrieve.gallery.store.storage import Storage

SHOWN = 20  # faults of one kind
_PATH, _CAPTION, _DELETED = map(FIXED_COLUMNS.index, ("path", "caption", "deleted"))


def check(storage: Storage, progress: Progress | None = None, *, words: bool = True) -> list[str]:
    """Everything that is wrong with the files of a gallery; ``words`` looks at their index, too."""
    faults = parts.faults(storage.folder)
    try:
        saved = storage.saved_encoder()
        if saved.weights_sha256 != storage.manifest.weights_sha256:
            faults.append(f"{saved.directory} is not the encoder that the manifest names")
        faults += saved.faults()
    except EncoderError as error:
        faults.append(str(error))
    try:
        found = _database(storage)
        with storage.database.snapshot() as connection:
            found += storage.vectors.check(connection, progress)
    except (GalleryError, sqlite3.Error) as error:
        return [*faults, str(error)]
    faults += found
    return (
        faults if found else faults + (_parted(storage) or _clustered(storage) + _worded(storage))
    )


def _database(storage: Storage) -> list[str]:
    """What SQLite finds, and values that we would not write."""
    path = storage.database.path
    storage.database.check_version()
    with storage.database.snapshot() as connection:
        lines = connection.execute("PRAGMA integrity_check(10)").fetchall()
        if faults := [f"{path}: {line}" for (line,) in lines if line != "ok"]:
            return faults
        for row in connection.execute("SELECT * FROM item"):  # its first columns are the fixed ones
            if (wrong := schema.wrong_value(row)) is not None:
                faults.append(f"{path}: item {row[0]} has no such value as column {wrong} takes")
            elif fault := _unkept(storage, row):
                faults.append(f"item {row[0]}: {fault}")
            if len(faults) == SHOWN:
                break
    return faults


def _unkept(storage: Storage, row: Sequence[Any]) -> str | None:
    """Whether the file of an item would lie elsewhere than it may, or its words are others."""
    path, is_gone = row[_PATH], row[_DELETED] != 0
    if path.startswith("/") or (not path and is_gone):  # one that is being forgotten has no path
        return None
    if path.startswith(WORDS):
        text = row[_CAPTION]
        is_whole = text is not None and words_path(text) == path
        return None if is_whole else "its words are not those that were added; remove it"
    try:
        parts.item_file(storage.folder, path)
    except GalleryError as error:
        return str(error)
    return None


def _parted(storage: Storage) -> list[str]:
    """Items without a vector, and vectors without an item."""
    try:
        with storage.vectors.view() as view:
            rows = view.connection.execute("SELECT id FROM item WHERE deleted = 0").fetchall()
            items, vectors = {row[0] for row in rows}, set(view.index.ids.tolist())
    except GalleryError as error:
        return [str(error)]
    faults = []
    if missing := sorted(items - vectors):
        faults.append(f"{len(missing)} items have no vector: {missing[:5]}")
    if extra := sorted(vectors - items):
        faults.append(f"{len(extra)} vectors have no item: {extra[:5]}")
    return faults


def _clustered(storage: Storage) -> list[str]:
    """What is wrong with the clusters."""
    try:
        with storage.vectors.view() as view:
            return clusters.faults(view.connection, view.index)
    except GalleryError as error:
        return [str(error)]


def _worded(storage: Storage) -> list[str]:
    """What is wrong with the index of words."""
    with storage.database.snapshot() as connection:
        return written.faults(connection)


def refuse_torn_copy(storage: Storage) -> None:
    """Look once at a gallery whose files were copied one by one, perhaps while somebody wrote."""
    if not locking.is_copy(storage.folder):
        return
    if faults := _database(storage) or _parted(storage):
        raise GalleryError(
            f"{storage.folder} was copied while it was changed, and is not whole: {faults[0]}; "
            "copy it again with `fastretrieve copy`, which needs no pause"
        )
    if access.may_write(storage.folder):
        try:
            with locking.locked(storage.folder, wait=0):
                locking.note_identity(storage.folder)
        except GalleryError:
            return  # a writer is at work, and will note it
