"""What leaves a gallery: vectors as .npy, items as .csv or .jsonl."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastretrieve as fr
from fastretrieve._common.atomic import replacing
from fastretrieve._common.progress import Progress
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store.items import FIXED_COLUMNS, quoted
from fastretrieve.gallery.store.vectors import View

_CHUNK = 8192  # rows in memory at a time
_KEPT_SEPARATE = ("key", "deleted")


def export(
    view: View, vectors: Path | None, items: Path | None, progress: Progress | None = None
) -> int:
    """Write vectors and items in order of id."""
    ids = np.sort(view.index.ids)
    if vectors is not None:
        if vectors.suffix != ".npy":
            raise GalleryError(f"vectors are exported as .npy, got {vectors.name!r}")
        _write_vectors(view.index, ids, vectors, progress)
    if items is not None:
        if items.suffix not in (".csv", ".jsonl"):
            raise GalleryError(f"items are exported as .csv or .jsonl, got {items.name!r}")
        _write_items(view.connection, ids, items)
    return len(ids)


def _write_vectors(
    index: fr.Index, ids: NDArray[np.int64], path: Path, progress: Progress | None
) -> None:
    kind = np.dtype(np.float16 if index.dtype == "float16" else np.float32)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": kind.str, "fortran_order": False, "shape": (len(ids), index.dim)}
    )
    with replacing(path) as file:
        file.write(header.getvalue())
        for start in range(0, len(ids), _CHUNK):
            file.write(np.ascontiguousarray(index.get(ids[start : start + _CHUNK])).tobytes())
            if progress is not None:
                progress(min(start + _CHUNK, len(ids)), len(ids))


def _write_items(connection: sqlite3.Connection, ids: NDArray[np.int64], path: Path) -> None:
    metadata = db.columns(connection)
    names = [name for name in FIXED_COLUMNS if name not in _KEPT_SEPARATE] + metadata
    chosen = ", ".join(map(quoted, names))
    rows = _readable(connection.execute(f"SELECT {chosen} FROM item WHERE deleted = 0 ORDER BY id"))
    with replacing(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        if path.suffix == ".csv":
            writer = csv.writer(text)
            writer.writerow(names)
            writer.writerows(rows)
        else:
            for row in rows:
                text.write(json.dumps(dict(zip(names, row, strict=True))) + "\n")
        text.flush()
        text.detach()


def _readable(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        if bytes in map(type, row):
            raise sqlite3.DatabaseError(f"item {row[0]} has bytes where we write text")
        yield row
