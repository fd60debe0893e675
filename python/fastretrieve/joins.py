"""An index compared with itself: pairs within a radius, and graphs of neighbours.

``Joins`` is the part of :class:`fastretrieve.Index` that does this. Every call works on the state
that the index had when the call began, an iterator too. What is held besides the result is bounded:
a batch of rows at a time, and a batch that finds too much is halved and tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve.arguments import whole
from fastretrieve.arrays import Rows
from fastretrieve.backend import NO_LIMIT, Counters
from fastretrieve.checking import finite_rows
from fastretrieve.locating import ids_as_added, rows_at, slots_as_added
from fastretrieve.ordering import order_of, taken
from fastretrieve.results import (
    Graph,
    Pairs,
    Progress,
    ScoreDType,
    as_radius,
    is_double,
    without_self,
)
from fastretrieve.segments import Format, State, View

GRAPH_ROWS = 16384  # rows of a batch: enough for every thread, few enough to report progress
PAIR_ROWS = 65536
PAIR_BATCH = 1 << 20


class Joins:
    """Self-joins, for :class:`fastretrieve.Index`."""

    _form: Format
    _state: State
    _counters: Counters

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
        n = sum(len(part.ids) for part in parts)
        pairs, done = Pairs(np.empty(n, score_dtype), np.empty((n, 2), np.int64)), 0
        is_ordered, last = True, (-1, -1)
        for part in parts:  # one by one, so that Ctrl-C need not wait for all of them
            end = done + len(part.ids)
            pairs.scores[done:end], pairs.ids[done:end] = part
            is_ordered &= last < tuple(part.ids[0])
            done, last = end, tuple(part.ids[-1])
        return pairs if is_ordered else _ordered(pairs)

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
        k, float64, done = whole(k, "k"), is_double(score_dtype), 0
        search = _GraphSearch(self._state, k, include_self, float64, self._counters)
        n = len(search.state)
        graph = Graph(
            np.empty(n, np.int64), np.empty((n, k), score_dtype), np.empty((n, k), np.int64)
        )
        for part in search.parts(GRAPH_ROWS, progress):
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
        k, float64 = whole(k, "k"), is_double(score_dtype)
        search = _GraphSearch(self._state, k, include_self, float64, self._counters)
        return search.parts(whole(batch, "batch"), progress)


def _ordered(pairs: Pairs) -> Pairs:
    """The pairs in order of ids."""
    first, second = pairs.ids[:, 0], pairs.ids[:, 1]
    if len(pairs.ids) and int(second.max()) >= 2**31:
        order = order_of(second)
        order = taken(order, order_of(taken(first, order)))
    else:
        order = order_of(first << 31 | second)  # one number says both
    return Pairs(taken(pairs.scores, order), taken(pairs.ids, order))


class _PairSearch(NamedTuple):
    """One self-join. Symmetry halves it: a row is compared with the rows behind it only."""

    state: State
    radius: float
    float64: bool
    counters: Counters

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
                    yield Pairs(found.scores[at : at + batch], found.ids[at : at + batch])
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
            finite_rows(view, begin, begin + n_rows),
            self.state.native,
            self.radius,
            self.counters,
            self.float64,
            self_segment=segment,
            self_row=begin,
            limit=limit if n_rows > 1 else NO_LIMIT,
        )
        if found is None:
            return None
        offsets, scores, others = found
        own = np.repeat(view.row_ids()[begin : begin + n_rows], np.diff(offsets))
        ids = np.stack([np.minimum(own, others), np.maximum(own, others)], axis=1)
        return _ordered(Pairs(scores, ids))


class _GraphSearch(NamedTuple):
    """Searches for the rows of the index, with one more than ``k`` to leave the row itself out.

    Symmetry would halve the comparisons here too, at the price of keeping the survivors of all rows
    at once: that is not bounded, so it is not done.
    """

    state: State
    k: int
    include_self: bool
    float64: bool
    counters: Counters

    def parts(self, batch: int, progress: Progress | None) -> Iterator[Graph]:
        form, done, total = self.state.form, 0, len(self.state)
        k = self.k if self.include_self else self.k + 1
        for rows, ids in _live_batches(self.state, batch):
            best = form.backend.search(rows, self.state.native, k, self.counters, self.float64)
            scores, found = (form.memory.to_host(part) for part in best)
            if not self.include_self:
                scores, found = without_self(scores, found, ids)
            yield Graph(ids, scores, found)
            done += len(ids)
            if progress is not None:
                progress(done, total)


def _live_batches(state: State, batch: int) -> Iterator[tuple[Rows, NDArray[np.int64]]]:
    """The live rows of a state and their ids, in the order in which these were first added; only
    batches with removed or updated rows are copied.
    """
    if state.order is not None:
        ids, slots = ids_as_added(state), slots_as_added(state)
        for begin in range(0, len(ids), batch):
            yield rows_at(state, slots[begin : begin + batch]), ids[begin : begin + batch]
        return
    for view in state.views:
        for begin in range(0, view.n_rows, batch):
            end = min(begin + batch, view.n_rows)
            ids = view.row_ids()[begin:end]
            rows = finite_rows(view, begin, end)
            if view.live is not None:
                live = view.alive(np.arange(begin, end))
                ids, rows = ids[live], state.form.memory.taken(rows, live)
            if len(ids):
                yield rows, np.array(ids)
