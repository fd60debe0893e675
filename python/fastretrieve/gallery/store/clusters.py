"""The clusters of a gallery in its database: their centres, and which item belongs to which.

A centre is a direction where the metric is cosine, else a point. An item belongs to the centre that
is nearest to it, of equally near ones to that with the smaller number: the exact search of a small
index says which. Galleries get the two tables with their first clusters. Each commit that changes
items changes them too (``writing.py``), so readers see items and their clusters of the same moment.
``clustering.py`` finds the centres.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import fastretrieve as fr
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store import schema

MOST = 10_000  # clusters of a gallery
CHUNK = 16_384  # vectors that are assigned at a time
_GONE = "DELETE FROM cluster_of WHERE item IN (SELECT id FROM item WHERE deleted = ?)"


def are_kept(connection: sqlite3.Connection) -> bool:
    """Whether a gallery has clusters."""
    named = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'cluster'").fetchone()
    return bool(named and connection.execute("SELECT 1 FROM cluster LIMIT 1").fetchone())


def have_members(connection: sqlite3.Connection) -> bool:
    """Whether an item is in a cluster."""
    return are_kept(connection) and bool(
        connection.execute("SELECT 1 FROM cluster_of LIMIT 1").fetchone()
    )


def count(connection: sqlite3.Connection) -> int:
    """How many clusters have members."""
    return len(sizes(connection)) if are_kept(connection) else 0


def centres(connection: sqlite3.Connection, vectors: fr.Index) -> fr.Index:
    """The centres of the clusters of ``vectors``, as an index whose ids are their numbers."""
    rows = connection.execute(
        "SELECT number, centre FROM cluster ORDER BY number LIMIT ?", (MOST + 1,)
    ).fetchall()
    is_good = len(rows) <= MOST and all(
        0 <= number < MOST and isinstance(centre, bytes) and len(centre) == 4 * vectors.dim
        for number, centre in rows
    )
    points = np.frombuffer(b"".join(row[1] for row in rows) if is_good else b"", "<f4")
    if not is_good or not np.isfinite(points).all():
        raise sqlite3.DatabaseError("it has a centre of a cluster that no gallery makes")
    return index_of(np.array([row[0] for row in rows], np.int64), points, vectors)


def index_of(numbers: NDArray[np.int64], points: NDArray[np.float32], like: fr.Index) -> fr.Index:
    """An index that finds the nearest of these centres of clusters of the vectors in ``like``.

    Inner products have no nearest centre: a long one would take everything. Distances stand in.
    """
    metric = "l2" if like.metric == "ip" else like.metric
    made = fr.Index(like.dim, metric=cast(Any, metric))
    if len(numbers):
        made.add(points.reshape(len(numbers), like.dim), ids=numbers)
    return made


def nearest(centres: fr.Index, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """The number of the nearest centre for each vector."""
    found: NDArray[np.int64] = centres.search(vectors, k=1).ids[:, 0]
    return found


def chunks(
    vectors: fr.Index, ids: NDArray[np.int64]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The stored vectors of these items, a part at a time."""
    for start in range(0, len(ids), CHUNK):
        part = slice(start, min(start + CHUNK, len(ids)))
        yield part, np.asarray(vectors.get(ids[part]), np.float32)


def sizes(connection: sqlite3.Connection) -> dict[int, int]:
    """How many members each cluster has that has some."""
    rows = connection.execute("SELECT number, count(*) FROM cluster_of GROUP BY number").fetchall()
    if not all(isinstance(number, int) for number, _ in rows):
        raise sqlite3.DatabaseError("an item is in a cluster whose number is none")
    return dict(rows)


def members(connection: sqlite3.Connection, number: int) -> NDArray[np.int64]:
    """The items of one cluster."""
    chosen = "SELECT number, count(*), group_concat(item) FROM cluster_of WHERE number = ?"
    return grouped(connection, f"{chosen} GROUP BY number", number)[2]


def owners(connection: sqlite3.Connection, ids: NDArray[np.int64]) -> dict[int, int]:
    """The numbers of the clusters of these items."""
    return dict(
        connection.execute(
            "SELECT item, number FROM cluster_of WHERE item IN (SELECT value FROM json_each(?))",
            (str(ids.tolist()),),
        )
    )


def assignment(connection: sqlite3.Connection) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All items that are in clusters, in ascending order, and the numbers of theirs."""
    chosen = "SELECT number, count(*), group_concat(item) FROM cluster_of GROUP BY number"
    numbers, places, ids = grouped(connection, chosen)
    if not all(isinstance(number, int) and 0 <= number < MOST for number in numbers):
        raise sqlite3.DatabaseError("an item is in a cluster whose number is none")
    order = np.argsort(ids, kind="stable")
    return ids[order], np.array(numbers, np.int64)[places[order]]


def grouped(
    connection: sqlite3.Connection, statement: str, *values: Any
) -> tuple[list[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Ids by value: the values, the place of its value there for each id, and the ids.

    The statement chooses a value, how many ids it has, and these joined by commas: one string is
    read ten times faster than a row for each.
    """
    rows = connection.execute(statement, values).fetchall()
    places = np.repeat(np.arange(len(rows)), [row[1] for row in rows])
    ids = np.fromstring(",".join(row[2] for row in rows), np.int64, sep=",")
    return [row[0] for row in rows], places, ids


# --- writing: inside a transaction of the one writer ----------------------------------------------


def replace(
    connection: sqlite3.Connection,
    centres: fr.Index,
    ids: NDArray[np.int64],
    numbers: NDArray[np.int64],
) -> None:
    """Keep these clusters instead of those that were there."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'cluster'").fetchone() is None:
        for statement in schema.CLUSTERS.values():
            connection.execute(statement)
        db.require_version(connection, db.CLUSTERS_VERSION)
    connection.execute("DELETE FROM cluster_of")
    connection.execute("DELETE FROM cluster")
    points = np.asarray(centres.get(centres.ids), "<f4") if len(centres) else ()
    connection.executemany(
        "INSERT INTO cluster VALUES (?, ?)",
        [(int(n), point.tobytes()) for n, point in zip(centres.ids, points, strict=True)],
    )
    _put(connection, ids, numbers)


def leave(connection: sqlite3.Connection, generation: int) -> None:
    """Take the items out of their clusters that the commit of this number removes."""
    if are_kept(connection):
        connection.execute(_GONE, (generation,))


def enter(connection: sqlite3.Connection, added: fr.Index) -> None:
    """Put items with new vectors into the nearest clusters."""
    known = centres(connection, added)
    for part, vectors in chunks(added, added.ids):
        _put(connection, added.ids[part], nearest(known, vectors))


def _put(
    connection: sqlite3.Connection, ids: NDArray[np.int64], numbers: NDArray[np.int64]
) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO cluster_of VALUES (?, ?)",
        zip(ids.tolist(), numbers.tolist(), strict=True),
    )


# --- checking -------------------------------------------------------------------------------------


def faults(connection: sqlite3.Connection, vectors: fr.Index) -> list[str]:
    """What is wrong with the clusters: items in none, or not in the nearest one."""
    if not are_kept(connection):
        return []
    known = centres(connection, vectors)
    ids, numbers = assignment(connection)
    there = np.sort(vectors.ids)
    if not np.array_equal(ids, there):
        odd = np.setxor1d(ids, there)
        return [f"{len(odd)} items are in no cluster, or gone and in one: {odd[:5].tolist()}"]
    wrong = [
        ids[part][nearest(known, rows) != numbers[part]] for part, rows in chunks(vectors, ids)
    ]
    odd = np.concatenate([ids[:0], *wrong])
    return [f"{len(odd)} items are not in the nearest cluster: {odd[:5].tolist()}"][: len(odd)]
