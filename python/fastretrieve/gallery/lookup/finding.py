"""Items by id, path, folder, URL or condition."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arguments import shown
from fastretrieve.evaluation.directions import MOST_ROWS, n_directions
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup.conditions import Where
from fastretrieve.gallery.lookup.opened import Opened
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store import parts
from fastretrieve.gallery.store.items import Item
from fastretrieve.gallery.store.storage import Storage


def item(storage: Storage, item_id: int) -> Item:
    """The item with this id, unless it was removed."""
    if not isinstance(item_id, (int, np.integer)):
        raise TypeError(f"an item's id is a whole number, got {shown(item_id)}")
    return _item(storage, item_id, hidden=False)


def _item(storage: Storage, item_id: int, *, hidden: bool) -> Item:
    with storage.database.reading() as connection:
        found = db.fetch(connection, [item_id]).get(item_id)
    if found is None or (found.deleted and not hidden):
        raise GalleryError(f"{storage.folder} has no item {item_id}")
    return found


def items(
    opened: Opened, where: Where, *, offset: int, limit: int | None, within: Any = None
) -> list[Item]:
    """Items in order of id: all of them, or ``limit`` after the first ``offset``."""
    with opened.view() as view:
        mask = opened.conditions.mask(where, view)
        if within is not None:
            own = opened.clusters.mask(opened.clusters.chosen(within, None, view), view)
            mask = own if mask is None else own & mask
        if mask is None:
            part = view.connection.execute(
                "SELECT id FROM items ORDER BY id LIMIT ? OFFSET ?",
                (-1 if limit is None else limit, offset),
            )
            ids = [row[0] for row in part]
        else:
            end = None if limit is None else offset + limit
            ids = np.sort(view.index.ids[mask])[offset:end].tolist()
        return db.fetch_all(view.connection, ids)


def vectors(opened: Opened, ids: Sequence[int] | None) -> NDArray[Any]:
    """The stored vectors of these items, or of all in order of id."""
    with opened.view() as view:
        wanted = np.sort(view.index.ids) if ids is None else np.asarray(ids, np.int64)
        found: NDArray[Any] = view.index.get(wanted)
        return found


def sample(opened: Opened, most: int) -> NDArray[Any]:
    """Vectors of up to ``most`` items, evenly spread over the gallery."""
    with opened.view() as view:
        ids = view.index.ids
        step = max(-(-len(ids) // most), 1)
        found: NDArray[Any] = np.asarray(view.index.get(ids[::step]))
        return found


def directions(opened: Opened) -> int:
    """In how many directions the vectors of a random sample of the items vary."""
    with opened.view() as view:
        ids = view.index.ids
        sample = np.random.default_rng(0).permutation(len(ids))[:MOST_ROWS]
        return n_directions(view.index.get(ids[sample])) if len(ids) else 0


def path_of(storage: Storage, one: Item) -> Path:
    """Where the file of an item should be."""
    return parts.item_path(storage.folder, one.path)


def unreadable(storage: Storage) -> list[Item]:
    """The items with an error."""
    with storage.database.snapshot() as connection:
        rows = connection.execute("SELECT id FROM item WHERE error IS NOT NULL").fetchall()
        return db.fetch_all(connection, sorted(row[0] for row in rows))


def hidden(storage: Storage) -> list[int]:
    """The items that were removed or could not be read."""
    with storage.database.reading() as connection:
        return [row[0] for row in connection.execute("SELECT id FROM item WHERE deleted > 0")]


def ids_where(opened: Opened, where: Where) -> list[int]:
    """The ids of the items that meet a condition."""
    with opened.view() as view:
        return [int(i) for i in opened.conditions.ids(where, view.connection)]


def ids_of(storage: Storage, what: Any, *, hidden: bool = False) -> list[int]:
    """The ids of items, ids, paths, folders or URLs; each must be in the gallery. With
    ``hidden`` removed ones count too.
    """
    ids: list[int] = []
    for each in several(what):
        if isinstance(each, (str, os.PathLike)):
            ids += ids_named(storage, os.fspath(each), hidden=hidden)
        else:
            item_id = each.id if isinstance(each, Item) else int(each)
            ids.append(_item(storage, item_id, hidden=hidden).id)
    return list(dict.fromkeys(ids))


def ids_named(storage: Storage, name: str, *, hidden: bool = False) -> list[int]:
    """The items of a file (several if it has boxes, or holds many), of a URL, or of a folder; with
    ``hidden`` those too that were removed or could not be read.
    """
    is_url = name.lower().startswith(("http://", "https://"))
    key = name if is_url else os.path.abspath(name)
    with storage.database.reading() as connection:
        for inner in ("#box=", "#item=", "/"):
            first = f"{key}{inner}"
            end = first[:-1] + chr(ord(first[-1]) + 1)
            rows = connection.execute(
                "SELECT id FROM item "
                "WHERE (deleted = 0 OR ?) AND (key = ? OR (key >= ? AND key < ?))",
                (hidden, key, first, end),
            ).fetchall()
            if rows:
                return [row[0] for row in rows]
    raise GalleryError(f"{storage.folder} has no item {key}")


def is_item(query: Any) -> bool:
    """Whether a query names an item: the item itself, or its id."""
    return isinstance(query, (Item, int, np.integer)) and not isinstance(query, bool)


def several(what: Any) -> Iterator[Any]:
    """One thing, or each of several."""
    if isinstance(what, (list, tuple, set, frozenset)) and not isinstance(what, Item):
        yield from what
    else:
        yield what
