"""Range search on a GPU: tiles of exact scores on the device; the host takes those within reach.

It reads no codes, so it computes a canonical score for every pair; the answers are those of
``csrc/cpu/range_search.cpp``. Memory holds one tile and the rows found so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastretrieve._backends.memory import Array, HostMemory
from fastretrieve._backends.snapshot import SegmentView, Snapshot
from fastretrieve._common.arrays import unpack
from fastretrieve._common.metric import is_distance

TILE_PAIRS = 1 << 22  # 32 MB of scores
TILE_QUERIES = 64

Found = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


class Own(NamedTuple):
    """The queries are rows of a segment, from this one on, and every pair of rows comes once."""

    segment: int
    row: int


class Within(NamedTuple):
    """Which pairs are wanted."""

    radius: float
    own: Own | None
    limit: int  # of pairs


class TileScorer(Protocol):
    """A backend that scores some queries with some rows."""

    memory: HostMemory

    def score_tile(self, queries: Array, rows: Array, metric: str) -> Array:
        """The canonical score of every query with every row."""


class _Hits(NamedTuple):
    queries: NDArray[np.int64]
    scores: NDArray[np.float64]
    ids: NDArray[np.int64]


class _Tile(NamedTuple):
    """Some queries with some rows of one segment."""

    queries: range
    segment: SegmentView
    number: int  # of the segment
    rows: range


def in_range(
    backend: TileScorer, queries: Array, snapshot: Snapshot, within: Within
) -> Found | None:
    """(offsets, scores, ids) of all rows within the radius of queries on the device, best first;
    None for more than the limit.
    """
    radius, own, limit = within
    parts, total = [], 0
    for tile in _tiles(len(queries), snapshot.segments, own):
        asked = queries[tile.queries.start : tile.queries.stop]
        rows = tile.segment.rows[tile.rows.start : tile.rows.stop]
        scores = backend.score_tile(asked, rows, snapshot.metric)
        near = scores <= radius if is_distance(snapshot.metric) else scores >= radius
        query, row = np.nonzero(backend.memory.to_host(near) & _allowed(tile, snapshot, own))
        total += len(row)
        if total > limit:
            return None
        if len(row):
            best = backend.memory.to_host(scores)[query, row]
            ids = tile.segment.row_ids()[tile.rows.start + row]
            parts.append(_Hits(tile.queries.start + query, best, ids))
    return _ordered(parts, len(queries), snapshot.metric)


def _tiles(n_queries: int, segments: Sequence[SegmentView], own: Own | None) -> Iterator[_Tile]:
    for first in range(0, n_queries, TILE_QUERIES):
        queries = range(first, min(first + TILE_QUERIES, n_queries))
        step = TILE_PAIRS // len(queries)
        for number, segment in enumerate(segments):
            begin = 0
            if own is not None:  # the rows before the queries were compared with them
                begin = own.row + first + 1 if number == own.segment else 0
                begin = segment.n_rows if number < own.segment else begin
            for row in range(begin, segment.n_rows, step):
                yield _Tile(queries, segment, number, range(row, min(row + step, segment.n_rows)))


def _allowed(tile: _Tile, snapshot: Snapshot, own: Own | None) -> NDArray[np.bool_]:
    """Which pairs of the tile count."""
    rows, queries = np.asarray(tile.rows), np.asarray(tile.queries)
    allowed = np.tile(tile.segment.alive(rows), (len(queries), 1))
    if snapshot.mask is not None and snapshot.mask.words is not None:
        words = snapshot.mask.words[tile.number]
        for i, query in enumerate(queries):
            mask = unpack(words[query if len(words) > 1 else 0], tile.segment.n_rows)
            allowed[i] &= mask[rows]
    if own is not None:
        own_rows = own.row + queries
        allowed &= snapshot.segments[own.segment].alive(own_rows)[:, None]
        if tile.number == own.segment:
            allowed &= rows > own_rows[:, None]
    return allowed


def _ordered(parts: list[_Hits], n_queries: int, metric: str) -> Found:
    if not parts:
        return np.zeros(n_queries + 1, np.int64), np.zeros(0), np.zeros(0, np.int64)
    queries, scores, ids = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.lexsort((ids, scores if is_distance(metric) else -scores, queries))
    counts = np.bincount(queries, minlength=n_queries)
    return np.concatenate([[0], np.cumsum(counts)]), scores[order], ids[order]
