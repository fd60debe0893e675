"""Everything within a radius, and an index compared with itself: pairs and graphs.

``Joins`` is the part of :class:`fastretrieve.Index` that does this. Every call works on the state
that the index had when the call began, an iterator too. What is held besides the result is bounded:
a batch of rows at a time, and a batch that finds too much is halved and tried again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve.arrays import Rows, like, whole
from fastretrieve.filters import masked
from fastretrieve.segments import Format, State, View

ScoreDType = Literal["float32", "float64"]
Progress = Callable[[int, int], object]  # (rows done, rows in all)

GRAPH_ROWS = 16384  # rows of a batch: enough for every thread, few enough to report progress
PAIR_ROWS = 65536
PAIR_BATCH = 1 << 20


class Hits(NamedTuple):
    """The best rows for each query, best first; equal scores come in order of id."""

    scores: Any  # [n_queries, k], NaN where there are fewer than k rows
    ids: Any  # [n_queries, k] int64, -1 there


class InRange(NamedTuple):
    """The rows within the radius of each query: those of query ``i`` are
    ``offsets[i]:offsets[i + 1]``, best first, equal scores in order of id.
    """

    offsets: Any  # [n_queries + 1] int64
    scores: Any  # [n_found]
    ids: Any  # [n_found] int64


class Pairs(NamedTuple):
    """Pairs of rows within a radius, each once."""

    scores: NDArray[Any]  # [n_pairs]
    ids: NDArray[np.int64]  # [n_pairs, 2], the smaller id first


class Graph(NamedTuple):
    """The neighbours of rows of the index, best first; equal scores come in order of id."""

    rows: NDArray[np.int64]  # [n_rows], the ids of the rows
    scores: NDArray[Any]  # [n_rows, k], NaN where there are fewer than k others
    ids: NDArray[np.int64]  # [n_rows, k], -1 there


class Joins:
    """Range search and self-joins, for :class:`fastretrieve.Index`."""

    _form: Format
    _state: State
    _counters: _core.Counters

    def range_search(
        self,
        queries: Any,
        radius: float,
        *,
        where: Any = None,
        exclude: Any = None,
        score_dtype: ScoreDType = "float32",
    ) -> InRange:
        """Return all rows within ``radius`` of each query, exactly.

        Within means a score of at least the radius for similarities (cosine, ip) and of at most the
        radius for distances (l2, sqeuclidean); the float64 score decides. ``where`` and ``exclude``
        restrict the rows as they do in :meth:`search`.

        >>> index = fr.Index(1, metric="l2")
        >>> _ = index.add([[0], [3], [4], [9]])
        >>> index.range_search([[4], [100]], radius=1)
        InRange(offsets=array([0, 2, 2]), scores=array([0., 1.], dtype=float32), ids=array([2, 1]))
        """
        rows = self._form.as_rows(queries, name="queries", dim=self._form.dim)
        number, float64 = as_radius(radius), is_double(score_dtype)
        state = self._state
        if where is None and exclude is None:
            batches = iter([(0, len(rows), state.native)])
        else:
            batches = masked(state, where, exclude, len(rows))
        parts = []
        for begin, end, segments in batches:
            found = self._form.backend.range(
                rows[begin:end], segments, number, self._counters, float64
            )
            assert found is not None  # no limit was given
            parts.append(InRange(*found))
        placed = self._form.memory.placed if self._form.memory.holds(rows) else np.asarray
        return InRange(*(like(placed(array), queries) for array in _joined(parts)))

    def pairs(
        self,
        radius: float,
        *,
        score_dtype: ScoreDType = "float32",
        progress: Progress | None = None,
    ) -> Pairs:
        """Return every pair of different rows within ``radius`` once, in order of their ids.

        Use :meth:`iter_pairs` where they may be more than memory holds.

        >>> index = fr.Index(1, metric="l2")
        >>> _ = index.add([[5], [1], [6], [1]])
        >>> index.pairs(radius=1)
        Pairs(scores=array([1., 0.], dtype=float32), ids=array([[0, 2],
               [1, 3]]))
        """
        parts = list(self.iter_pairs(radius, score_dtype=score_dtype, progress=progress))
        if not parts:
            return Pairs(np.zeros(0, score_dtype), np.zeros((0, 2), np.int64))
        scores = np.concatenate([part.scores for part in parts])
        ids = np.concatenate([part.ids for part in parts])
        del parts
        return _ordered(scores, ids)

    def iter_pairs(
        self,
        radius: float,
        *,
        batch: int = PAIR_BATCH,
        score_dtype: ScoreDType = "float32",
        progress: Progress | None = None,
    ) -> Iterator[Pairs]:
        """Yield the pairs of :meth:`pairs` in parts of at most ``batch``, each in order of ids.

        A row with more than ``batch`` neighbours is found whole and handed over in several parts.
        ``progress`` is called with how many rows are done, and how many there are.

        >>> index = fr.Index(1, metric="l2")
        >>> _ = index.add([[5], [1], [6], [1]])
        >>> sum(len(part.ids) for part in index.iter_pairs(radius=1, batch=1))
        2
        """
        # Not a generator itself: a wrong argument is an error here, and the state is today's.
        search = _PairSearch(self._state, as_radius(radius), is_double(score_dtype), self._counters)
        return search.parts(whole(batch, "batch"), progress)

    def knn_graph(
        self,
        k: int = 10,
        *,
        include_self: bool = False,
        score_dtype: ScoreDType = "float32",
        progress: Progress | None = None,
    ) -> Graph:
        """Return the exact ``k`` nearest rows of every row, in order of ``index.ids``.

        >>> index = fr.Index(1, metric="l2")
        >>> _ = index.add([[0], [1], [5]])
        >>> index.knn_graph(k=1).ids.ravel()
        array([1, 0, 1])
        """
        k, state, done = whole(k, "k"), self._state, 0
        n = len(state)
        graph = Graph(
            np.empty(n, np.int64), np.empty((n, k), score_dtype), np.empty((n, k), np.int64)
        )
        parts = _graph_parts(
            state, k, include_self, is_double(score_dtype), self._counters, GRAPH_ROWS, progress
        )
        for part in parts:
            for whole_array, some in zip(graph, part, strict=True):
                whole_array[done : done + len(part.rows)] = some
            done += len(part.rows)
        return graph

    def iter_knn_graph(
        self,
        k: int = 10,
        *,
        include_self: bool = False,
        batch: int = GRAPH_ROWS,
        score_dtype: ScoreDType = "float32",
        progress: Progress | None = None,
    ) -> Iterator[Graph]:
        """Yield the graph of :meth:`knn_graph` in parts of at most ``batch`` rows.

        >>> index = fr.Index(1, metric="l2")
        >>> _ = index.add([[0], [1], [5]])
        >>> [part.rows.tolist() for part in index.iter_knn_graph(k=1, batch=2)]
        [[0, 1], [2]]
        """
        return _graph_parts(
            self._state,
            whole(k, "k"),
            include_self,
            is_double(score_dtype),
            self._counters,
            whole(batch, "batch"),
            progress,
        )


def as_radius(radius: Any) -> float:
    """The radius as a number; not-a-number is refused."""
    number = float(radius)
    if math.isnan(number):
        raise ValueError("radius must be a number, got NaN")
    return number


def is_double(score_dtype: str) -> bool:
    """Whether scores are returned as float64; what is neither float32 nor float64 is refused."""
    if score_dtype not in ("float32", "float64"):
        raise ValueError(f"score_dtype must be float32 or float64, got {score_dtype!r}")
    return score_dtype == "float64"


def _joined(parts: list[InRange]) -> InRange:
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


def _ordered(scores: NDArray[Any], ids: NDArray[np.int64]) -> Pairs:
    order = np.lexsort((ids[:, 1], ids[:, 0]))
    return Pairs(scores[order], ids[order])


class _PairSearch(NamedTuple):
    """One self-join. Symmetry halves it: a row is compared with the rows behind it only."""

    state: State
    radius: float
    float64: bool
    counters: _core.Counters

    def parts(self, batch: int, progress: Progress | None) -> Iterator[Pairs]:
        total, done, n_rows = sum(v.n_rows for v in self.state.views), 0, PAIR_ROWS
        for segment, view in enumerate(self.state.views):
            begin = 0
            while begin < view.n_rows:
                n_rows = min(n_rows, view.n_rows - begin)
                found = self._find(segment, view, begin, n_rows, batch)
                if found is None:
                    n_rows = -(-n_rows // 2)
                    continue
                for at in range(0, len(found.ids), batch):
                    yield _ordered(found.scores[at : at + batch], found.ids[at : at + batch])
                begin, done = begin + n_rows, done + n_rows
                if len(found.ids) < batch // 4:
                    n_rows = min(2 * n_rows, PAIR_ROWS)
                if progress is not None:
                    progress(done, total)

    def _find(self, segment: int, view: View, begin: int, n_rows: int, limit: int) -> Pairs | None:
        """The pairs of these rows with rows behind them; None where several rows find more than
        ``limit``.
        """
        found = self.state.form.backend.range(
            view.block.rows[begin : begin + n_rows],
            self.state.native,
            self.radius,
            self.counters,
            self.float64,
            self_segment=segment,
            self_row=begin,
            limit=limit if n_rows > 1 else np.iinfo(np.int64).max,
        )
        if found is None:
            return None
        offsets, scores, others = found
        own = np.repeat(view.row_ids()[begin : begin + n_rows], np.diff(offsets))
        return Pairs(scores, np.stack([np.minimum(own, others), np.maximum(own, others)], axis=1))


def _graph_parts(
    state: State,
    k: int,
    include_self: bool,
    float64: bool,
    counters: _core.Counters,
    batch: int,
    progress: Progress | None,
) -> Iterator[Graph]:
    """Searches for rows of the index, a batch at a time, with one more than ``k`` to leave the row
    itself out.

    Symmetry would halve the comparisons here too, at the price of keeping the survivors of all rows
    at once: that is not bounded, so it is not done.
    """
    done, total = 0, len(state)
    for rows, ids in _live_batches(state, batch):
        scores, found = state.form.backend.search(
            rows, state.native, k if include_self else k + 1, counters, float64
        )
        scores, found = state.form.memory.to_host(scores), state.form.memory.to_host(found)
        if not include_self:
            scores, found = without_self(scores, found, ids)
        yield Graph(ids, scores, found)
        done += len(ids)
        if progress is not None:
            progress(done, total)


def without_self(
    scores: NDArray[Any], found: NDArray[np.int64], ids: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Take each row's own id out of its results, or the last result where it did not place: equal
    scores of k others with smaller ids, or an inner product with itself that is not the largest.
    """
    drop = found == ids[:, None]
    drop[~drop.any(axis=1), -1] = True
    shape = (len(ids), found.shape[1] - 1)
    return scores[~drop].reshape(shape), found[~drop].reshape(shape)


def _live_batches(state: State, batch: int) -> Iterator[tuple[Rows, NDArray[np.int64]]]:
    """The live rows of a state and their ids; only batches with removed rows are copied."""
    for view in state.views:
        for begin in range(0, view.n_rows, batch):
            end = min(begin + batch, view.n_rows)
            ids = view.row_ids()[begin:end]
            rows = view.block.rows[begin:end]
            if view.live is not None:
                live = view.alive(np.arange(begin, end))
                ids, rows = ids[live], state.form.memory.taken(rows, live)
            if len(ids):
                yield rows, np.array(ids)
