"""Facts about a gallery, for people and programs."""

from __future__ import annotations

import sqlite3
from typing import Any

from fastretrieve.encoders.errors import EncoderError
from fastretrieve.gallery.store import clusters, written
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store.storage import Storage


def info(storage: Storage) -> dict[str, Any]:
    """Facts about a gallery."""
    manifest = storage.manifest
    with storage.database.snapshot() as connection:
        labels = connection.execute(
            "SELECT label, count(*) FROM item WHERE deleted = 0 AND label IS NOT NULL "
            "GROUP BY label ORDER BY count(*) DESC, label LIMIT 1000"
        ).fetchall()
        unread = connection.execute("SELECT count(*) FROM item WHERE error IS NOT NULL").fetchone()
        listed = db.index_files(connection)
        return {
            "path": str(storage.folder),
            "items": db.count(connection),
            "unreadable": unread[0],
            "encoder": manifest.encoder,
            "fitted_to": _fitted_to(storage),
            "dim": manifest.dim,
            "metric": manifest.metric,
            "dtype": manifest.dtype,
            "modality": manifest.modality,
            "columns": db.columns(connection),
            "labels": _checked(labels),
            "clusters": clusters.count(connection),
            "words_of": written.count(connection),  # items; None where no words are indexed
            "generation": db.generation(connection),
            "index_files": len(listed),
            "index_bytes": sum(file.n_bytes for file in listed),
            "database_bytes": storage.database.path.stat().st_size,
            "format_version": manifest.format_version,
            "made_by": manifest.made_by,
        }


def _fitted_to(storage: Storage) -> int | None:
    """How many items the encoder was fitted to; None where nothing is to be fitted."""
    try:
        return storage.saved_encoder(verify=False).fitted_to
    except EncoderError:  # ``check`` says what is wrong
        return None


def _checked(labels: list[tuple[Any, int]]) -> dict[str, int]:
    for label, _ in labels:
        if not isinstance(label, str):
            raise sqlite3.DatabaseError("it has a label that is no text")
    return dict(labels)
