"""What leaves a gallery: facts, faults, vectors and tables; and walks over all of its items."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import fastretrieve as fr
from fastretrieve._common.atomic import replacing
from fastretrieve._common.progress import Progress
from fastretrieve.gallery import database as db
from fastretrieve.gallery import schema
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.items import FIXED_COLUMNS, Item, quoted
from fastretrieve.gallery.listing import Candidate, measured
from fastretrieve.gallery.storage import Storage
from fastretrieve.gallery.vectors import View

if TYPE_CHECKING:
    from fastretrieve.gallery.gallery import Gallery

_CHUNK = 8192  # rows in memory at a time
_KEPT_SEPARATE = ("key", "deleted")


def info(storage: Storage) -> dict[str, Any]:
    """Facts about a gallery."""
    manifest = storage.manifest
    with storage.database.snapshot() as connection:
        labels = connection.execute(
            "SELECT label, count(*) FROM item WHERE deleted = 0 AND label IS NOT NULL "
            "GROUP BY label ORDER BY count(*) DESC, label LIMIT 1000"
        ).fetchall()
        unread = connection.execute("SELECT count(*) FROM item WHERE error IS NOT NULL").fetchone()
        listed = db.segments(connection)
        return {
            "path": str(storage.folder),
            "items": db.count(connection),
            "unreadable": unread[0],
            "encoder": manifest.encoder,
            "dim": manifest.dim,
            "metric": manifest.metric,
            "dtype": manifest.dtype,
            "modality": manifest.modality,
            "columns": db.columns(connection),
            "labels": _checked(labels),
            "generation": db.generation(connection),
            "index_files": len(listed),
            "index_bytes": sum(segment.n_bytes for segment in listed),
            "database_bytes": storage.database.path.stat().st_size,
            "format_version": manifest.format_version,
            "made_by": manifest.made_by,
        }


def _checked(labels: list[tuple[Any, int]]) -> dict[str, int]:
    for label, _ in labels:
        if not isinstance(label, str):
            raise sqlite3.DatabaseError("it has a label that is no text")
    return dict(labels)


def unreadable(storage: Storage) -> list[Item]:
    """The items with an error."""
    with storage.database.snapshot() as connection:
        rows = connection.execute("SELECT id FROM item WHERE error IS NOT NULL").fetchall()
        return db.fetch_all(connection, sorted(row[0] for row in rows))


def hidden(storage: Storage) -> list[int]:
    """The items that were removed or could not be read."""
    with storage.database.reading() as connection:
        return [row[0] for row in connection.execute("SELECT id FROM item WHERE deleted > 0")]


def ids_of(storage: Storage, name: str, *, hidden: bool = False) -> list[int]:
    """The items of a file (more than one if it has boxes), of a URL, or of a folder; with
    ``hidden`` those too that were removed or could not be read.
    """
    is_url = name.lower().startswith(("http://", "https://"))
    key = name if is_url else os.path.abspath(name)
    with storage.database.reading() as connection:
        for first, end in ((f"{key}#box=", f"{key}#box>"), (f"{key}/", f"{key}0")):
            rows = connection.execute(
                "SELECT id FROM item "
                "WHERE (deleted = 0 OR ?) AND (key = ? OR (key >= ? AND key < ?))",
                (hidden, key, first, end),
            ).fetchall()
            if rows:
                return [row[0] for row in rows]
    raise GalleryError(f"{storage.folder} has no item {key}")


def candidates(storage: Storage, vanished: list[int]) -> Iterator[Candidate]:
    """Every item that is there or could not be read, with its file as it is now. The ids of those
    whose file is gone go into ``vanished``.
    """
    chosen = "id, key, path, url, left, top, right, bottom, size, mtime_ns, deleted"
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
        for item_id, key, path, url, *edges, size, mtime_ns, gone in rows:
            box = None if None in edges else tuple(edges)
            one = Candidate(key, path, size, mtime_ns, box=box, url=url)
            if url is None and os.path.isabs(path):
                try:
                    now = measured(Path(path))
                except (OSError, ValueError):  # no file has a name like that
                    if not gone:
                        vanished.append(item_id)
                    continue
                one = one._replace(size=now[0], mtime_ns=now[1])
            yield one


def groups(index: fr.Index, threshold: float, progress: Progress | None = None) -> list[list[int]]:
    """The connected components of the pairs within the threshold, the largest first."""
    ids = np.sort(index.ids)
    parent = np.arange(len(ids))  # positions; a root is its own parent, and the smallest
    for part in index.iter_pairs(threshold, progress=progress):
        _join(parent, np.searchsorted(ids, part.ids))
    roots = _roots(parent)
    order = np.argsort(roots, kind="stable")
    starts = np.flatnonzero(np.diff(roots[order], prepend=-1))
    found = [part.tolist() for part in np.split(ids[order], starts[1:]) if len(part) > 1]
    return sorted(found, key=lambda group: (-len(group), group[0]))


def _join(parent: NDArray[np.int64], pairs: NDArray[np.int64]) -> None:
    """Link the roots of pairs. Ten thousand equal rows make fifty million pairs but few links, so
    all pairs are looked up at once and only those that link something are walked.
    """
    while True:
        parent[:] = _roots(parent)
        linked = np.sort(parent[pairs], axis=1)
        linked = np.unique(linked[linked[:, 0] != linked[:, 1]], axis=0)
        if not len(linked):
            return
        # Of several links of one root the smallest stays; the others come in the next round.
        np.minimum.at(parent, linked[:, 1], linked[:, 0])


def _roots(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """The root of every position."""
    while True:
        above = parent[parent]
        if (above == parent).all():
            return parent
        parent = above


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


def evaluation(gallery: Gallery, storage: Storage, queries: Any, options: dict[str, Any]) -> Any:
    """Figures of retrieval by label."""
    from fastretrieve.data import open_dataset
    from fastretrieve.encoders.encoding import encode_dataset
    from fastretrieve.evaluation import evaluate

    with storage.vectors.view() as view:
        ids = np.sort(view.index.ids)
        vectors = np.asarray(view.index.get(ids), np.float32)
        rows = view.connection.execute("SELECT label FROM item WHERE deleted = 0 ORDER BY id")
        labels = [row[0] for row in rows]
    if len(labels) != len(ids):
        raise GalleryError(f"{storage.folder}: items and vectors do not fit; check the gallery")
    if not any(label is not None for label in labels):
        raise GalleryError(f"no item of {storage.folder} has a label, so nothing can be evaluated")
    options = {"metric": storage.manifest.metric, **options}
    if queries is None:
        return evaluate(vectors, labels=labels, **options)
    dataset = open_dataset(queries, modality=gallery.manifest.modality)  # type: ignore[arg-type]
    found = encode_dataset(gallery.encoder, dataset)
    return evaluate(found.vectors, dataset.subset(found.rows), gallery=(vectors, labels), **options)
