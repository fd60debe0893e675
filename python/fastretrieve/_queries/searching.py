"""Searches of one state of an index: the best rows, all rows within a radius.

``index.py`` says what each search promises. Every answer of a backend comes through ``search``,
``best_rows`` or ``rows_within``, which refuse answers that cannot be true. ``filters.py`` owns row
masks, ``plans.py`` prepared searches, ``csrc/cpu/search.cpp`` the search itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._backends.interface import Pair, Ranges, SearchCounters
from fastretrieve._backends.snapshot import Snapshot
from fastretrieve._common.arguments import shown, whole
from fastretrieve._common.arrays import Rows, device_of, is_tensor, joined, like
from fastretrieve._queries.doubting import refuse_doubtful
from fastretrieve._queries.filters import masked
from fastretrieve._queries.results import (
    Hits,
    InRange,
    ScoreDType,
    as_radius,
    hits_of,
    is_double,
    without_self,
)
from fastretrieve._state.ids import as_ids
from fastretrieve._state.locating import stored_rows
from fastretrieve._state.recall import probes_for
from fastretrieve._state.slabs import Format
from fastretrieve._state.state import State

MANY_QUERIES, SHARED = 64, 64  # from so many queries on, and from one leaf in so many on


class Among(NamedTuple):
    """The rows that a search may return, as the caller gives them."""

    where: Any
    exclude: Any


class Searcher(NamedTuple):
    """A state to search, and the counters of the work."""

    state: State
    counters: SearchCounters
    float64: bool  # the type of the scores

    @property
    def form(self) -> Format:
        return self.state.form


def search(
    state: State,
    counters: SearchCounters,
    queries: Any,
    k: int,
    among: Among | None,
    *,
    score_dtype: ScoreDType,
    out: Pair | None,
    check: bool,
    probes: int | None = None,
    recall: float | None = None,
) -> Hits:
    """The best ``k`` rows for each query; making a ``Searcher`` first would slow small searches."""
    form = state.form
    plain = type(queries) is np.ndarray and queries.dtype == np.float32 and queries.ndim == 2
    ready = plain and queries.flags.c_contiguous and queries.flags.aligned
    rows = queries if ready else form.backend.as_rows(queries, name="queries")
    if rows.shape[1] != form.dim:
        raise ValueError(
            f"queries have dimension {rows.shape[1]} but the index has dimension "
            f"{form.dim}; encode them as the vectors of the index were encoded"
        )
    k, float64 = whole(k, "k"), score_dtype != "float32" and is_double(score_dtype)
    if check:
        form.backend.refuse_not_finite(rows)
    if probes is not None or recall is not None:
        n_leaves = _leaves_to_read(state, len(rows), k, probes, recall)
        if n_leaves < _n_leaves(state):  # else it is an exact search
            searcher, fill = Searcher(state, counters, float64), recall is not None
            return _probe(searcher, queries, rows, k, n_leaves, among, out, fill=fill)
    if out is not None:
        shape = (k,) if np.ndim(queries) == 1 else (len(rows), k)
        return _search_into(out, shape, Searcher(state, counters, float64), rows, among)
    if among is None:  # the shortest way, for small searches
        snapshot = state.snapshot
        found = form.backend.search(rows, snapshot, k, counters, float64)
        if snapshot.is_doubtful:
            refuse_doubtful(snapshot, *(form.memory.to_host(array) for array in found))
    else:
        found = _search_among(Searcher(state, counters, float64), rows, k, among)
    if plain:
        return hits_of(found, form.metric)
    scores, ids = found
    if np.ndim(queries) == 1:
        scores, ids = scores[0], ids[0]
    return Hits(like(scores, queries), like(ids, queries), metric=form.metric)


def _n_leaves(state: State) -> int:
    screen = state.snapshot.screen
    return 0 if screen is None else int(screen.n_leaves)


def _leaves_to_read(
    state: State, n_queries: int, k: int, probes: int | None, recall: float | None
) -> int:
    """How many leaves a search reads that was asked for a number of them, or for a recall."""
    if recall is None:
        return whole(probes, "probes")
    if probes is not None:
        raise ValueError(f"give probes or recall, not both; got {probes} and {recall}")
    if not isinstance(recall, (int, float)) or not 0 < recall <= 1:
        raise ValueError(f"recall must be above 0 and at most 1, got {shown(recall)}")
    screen, n_leaves = state.snapshot.screen, _n_leaves(state)
    if screen is None or recall == 1:
        return n_leaves
    probes = probes_for(screen, float(recall), k)
    # Queries of a large batch share the leaves, and soon all of them cost less than some of each.
    return n_leaves if n_queries >= MANY_QUERIES and probes * SHARED > n_leaves else probes


def _probe(
    searcher: Searcher,
    queries: Any,
    rows: Rows,
    k: int,
    probes: int,
    among: Among | None,
    out: Pair | None,
    *,
    fill: bool,
) -> Hits:
    """The best rows of the leaves nearest to each query, and of the rows in no leaf. With ``fill``
    more leaves are read where they hold fewer than ``k`` rows.
    """
    form, state = searcher.form, searcher.state
    if among is None:
        found = _probe_rows(searcher, state.snapshot, rows, k, probes, fill=fill)
    else:
        parts = [
            _probe_rows(searcher, snapshot, rows[begin:end], k, probes, fill=fill)
            for begin, end, snapshot in _batches(state, among, len(rows))
        ]
        found = tuple(joined(list(some)) for some in zip(*parts, strict=True))
    scores, ids, proven = found
    if np.ndim(queries) == 1:
        scores, ids, proven = scores[0], ids[0], proven[0]
    if out is None:
        hits = Hits(like(scores, queries), like(ids, queries), metric=form.metric)
    else:
        shape = np.shape(scores)
        hits = Hits(*checked_out(out, shape, searcher.float64, form, rows), metric=form.metric)
        as_array(out[0])[...], as_array(out[1])[...] = scores, ids
    hits._proven = proven if np.ndim(queries) == 1 else like(proven, queries)
    return hits


def _probe_rows(
    searcher: Searcher, snapshot: Snapshot, rows: Rows, k: int, n_leaves: int, *, fill: bool
) -> tuple[Any, ...]:
    """Scores, ids and numbers of proven rows."""
    form, asked = searcher.form, (searcher.counters, searcher.float64)
    found = form.backend.probe(rows, snapshot, k, n_leaves, *asked)
    while fill and n_leaves < _n_leaves(searcher.state) and bool((found[1][:, -1] < 0).any()):
        n_leaves *= 4
        found = form.backend.probe(rows, snapshot, k, n_leaves, *asked)
    if snapshot.is_doubtful:
        scores, ids = (form.memory.to_host(array) for array in found[:2])
        refuse_doubtful(snapshot, scores, ids, is_complete=False)
    return found


def search_ids(
    searcher: Searcher, ids: Any, k: int, among: Among | None, *, include_self: bool
) -> Hits:
    """The best ``k`` neighbours of rows of the index."""
    k, wanted = whole(k, "k"), as_ids(ids)
    rows = stored_rows(searcher.state, wanted)
    scores, found = _search_among(searcher, rows, k if include_self else k + 1, among)
    if not include_self:
        scores, found = without_self(scores, found, wanted)
    if np.ndim(ids) == 0:
        scores, found = scores[0], found[0]
    return Hits(like(scores, ids), like(found, ids), metric=searcher.form.metric)


def range_search(searcher: Searcher, queries: Any, radius: float, among: Among | None) -> InRange:
    """All rows within ``radius`` of each query."""
    form = searcher.form
    rows = form.backend.as_rows(queries, name="queries", dim=form.dim)
    number = as_radius(radius)
    parts = []
    for begin, end, snapshot in _batches(searcher.state, among, len(rows)):
        found = rows_within(searcher, snapshot, rows[begin:end], number)
        assert found is not None  # no limit was given
        parts.append(InRange(*found))
    placed = form.memory.placed if form.memory.holds(rows) else np.asarray
    return InRange(*(like(placed(array), queries) for array in _joined_ranges(parts)))


def best_rows(
    searcher: Searcher, snapshot: Snapshot, rows: Any, k: int, out: Pair | None = None
) -> Pair:
    """Scores and ids of the best ``k`` rows, in ``out`` if given."""
    form = searcher.form
    in_place = out is None or form.memory.holds(out[0])
    found = form.backend.search(
        rows, snapshot, k, searcher.counters, searcher.float64, out=out if in_place else None
    )
    if snapshot.is_doubtful:
        refuse_doubtful(snapshot, *(form.memory.to_host(array) for array in found))
    if out is not None and not in_place:
        as_array(out[0])[...], as_array(out[1])[...] = found
    return found if out is None else out


def rows_within(
    searcher: Searcher, snapshot: Snapshot, rows: Any, radius: float, **own: int
) -> Ranges | None:
    """Every row within a radius; ``own`` holds the options of a self-join of ``Backend.range``."""
    found = searcher.form.backend.range(
        rows, snapshot, radius, searcher.counters, searcher.float64, **own
    )
    if found is not None and snapshot.is_doubtful:
        refuse_doubtful(snapshot, *found[1:])
    return found


def _search_into(
    out: Pair, shape: tuple[int, ...], searcher: Searcher, rows: Rows, among: Among | None
) -> Hits:
    """The best rows for each query, in the caller's arrays, which must have this shape."""
    k, form = shape[-1], searcher.form
    scores, ids = checked_out(out, shape, searcher.float64, form, rows)
    _search_among(searcher, rows, k, among, (scores.reshape(-1, k), ids.reshape(-1, k)))
    return Hits(scores, ids, metric=form.metric)


def _search_among(
    searcher: Searcher, rows: Rows, k: int, among: Among | None, out: Pair | None = None
) -> Pair:
    parts = []
    for begin, end, snapshot in _batches(searcher.state, among, len(rows)):
        here = None if out is None else (out[0][begin:end], out[1][begin:end])
        parts.append(best_rows(searcher, snapshot, rows[begin:end], k, here))
    if len(parts) == 1:
        return parts[0]
    return joined([scores for scores, _ in parts]), joined([ids for _, ids in parts])


def _batches(
    state: State, among: Among | None, n_queries: int
) -> Iterator[tuple[int, int, Snapshot]]:
    """The snapshots that queries ``begin`` to ``end`` search."""
    if among is None:
        return iter([(0, n_queries, state.snapshot)])
    return masked(state, among.where, among.exclude, n_queries)


def _joined_ranges(parts: list[InRange]) -> InRange:
    """The results of batches of queries as one."""
    if len(parts) == 1:
        return parts[0]
    found = np.cumsum([0, *(len(part.ids) for part in parts)])
    offsets = [part.offsets[1:] + n for part, n in zip(parts, found[:-1], strict=True)]
    return InRange(
        np.concatenate([[0], *offsets]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.ids for part in parts]),
    )


def as_array(out: Any) -> NDArray[Any]:
    """The memory of an array, or of a tensor on the CPU, as NumPy."""
    array: NDArray[Any] = out.detach().numpy() if is_tensor(out) else out
    return array


def checked_out(out: Any, shape: tuple[int, ...], float64: bool, form: Format, rows: Any) -> Pair:
    """``out`` if it can receive results of this shape, else an error that says why not."""
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError(f"out must be a tuple (scores, ids), got {type(out).__name__}")
    kinds = ("float64" if float64 else "float32", "int64")
    for array, name, kind in zip(out, ("scores", "ids"), kinds, strict=True):
        dtype = str(getattr(array, "dtype", type(array).__name__)).removeprefix("torch.")
        got = tuple(getattr(array, "shape", ()))
        if dtype != kind or got != shape:
            raise ValueError(
                f"out must hold {name} of type {kind} and shape {shape}, got {dtype} {got}"
            )
        adjacent = array.is_contiguous() if is_tensor(array) else array.flags.c_contiguous
        if not adjacent or not (is_tensor(array) or array.flags.writeable):
            raise ValueError(f"out must hold {name} that are contiguous and writeable")
        wanted = device_of(rows) if form.memory.holds(rows) else "cpu"
        if device_of(array) != wanted:
            raise ValueError(
                f"out must be where the queries are, on {wanted}, got {name} on {device_of(array)}"
            )
    return out
