"""An index compared with itself: pairs within a radius, and graphs of neighbours.

Every call, an iterator too, works on the state that the index had when the call began. Memory
beside the result is bounded: rows are searched in batches, and a batch that finds too much is
halved and tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._backends.interface import NO_LIMIT
from fastretrieve._common.arguments import whole
from fastretrieve._common.arrays import Rows
from fastretrieve._common.ordering import order_of, taken
from fastretrieve._common.progress import Progress
from fastretrieve._queries.results import (
    Graph,
    Pairs,
    ScoreDType,
    as_radius,
    without_self,
)
from fastretrieve._queries.searching import Searcher, best_rows, rows_within
from fastretrieve._state.checking import finite_rows
from fastretrieve._state.locating import ids_as_added, rows_at, slots_as_added
from fastretrieve._state.state import State

GRAPH_ROWS = 16384  # rows of a batch: enough for every thread, few enough to report progress
PAIR_ROWS = 65536
PAIR_BATCH = 1 << 20


def pairs(
    searcher: Searcher, radius: float, score_dtype: ScoreDType, progress: Progress | None
) -> Pairs:
    """Every pair of different rows within ``radius`` once, in order of their ids."""
    parts = list(iter_pairs(searcher, radius, PAIR_BATCH, progress))
    n = sum(len(part.ids) for part in parts)
    found, done = Pairs(np.empty(n, score_dtype), np.empty((n, 2), np.int64)), 0
    is_ordered, last = True, (-1, -1)
    for part in parts:  # one by one, so that Ctrl-C need not wait for all of them
        end = done + len(part.ids)
        found.scores[done:end], found.ids[done:end] = part
        is_ordered &= last < tuple(part.ids[0])
        done, last = end, tuple(part.ids[-1])
    return found if is_ordered else _ordered(found)


def iter_pairs(
    searcher: Searcher, radius: float, batch: int, progress: Progress | None
) -> Iterator[Pairs]:
    """The pairs in parts of at most ``batch``, each in order of ids."""
    # Not a generator itself, so that a wrong argument is an error here.
    return _PairSearch(searcher, as_radius(radius)).parts(whole(batch, "batch"), progress)


def knn_graph(
    searcher: Searcher,
    k: int,
    include_self: bool,
    score_dtype: ScoreDType,
    progress: Progress | None,
) -> Graph:
    """The ``k`` nearest rows of every row, in order of ``index.ids``."""
    k, n, done = whole(k, "k"), len(searcher.state), 0
    graph = Graph(np.empty(n, np.int64), np.empty((n, k), score_dtype), np.empty((n, k), np.int64))
    for part in iter_knn_graph(searcher, k, include_self, GRAPH_ROWS, progress):
        for whole_array, some in zip(graph, part, strict=True):
            whole_array[done : done + len(part.rows)] = some
        done += len(part.rows)
    return graph


def iter_knn_graph(
    searcher: Searcher, k: int, include_self: bool, batch: int, progress: Progress | None
) -> Iterator[Graph]:
    """The graph in parts of at most ``batch`` rows."""
    search = _GraphSearch(searcher, whole(k, "k"), include_self)
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

    searcher: Searcher
    radius: float

    def parts(self, batch: int, progress: Progress | None) -> Iterator[Pairs]:
        segments, done, n_rows = self.searcher.state.segments, 0, PAIR_ROWS
        total = sum(segment.n_rows for segment in segments)
        for number, segment in enumerate(segments):
            begin = 0
            while begin < segment.n_rows:
                n_rows = min(n_rows, segment.n_rows - begin)
                found = self._find(number, range(begin, begin + n_rows), batch)
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

    def _find(self, number: int, rows: range, limit: int) -> Pairs | None:
        """The pairs of these rows of a segment with rows behind them; None where several rows find
        more than ``limit``.
        """
        state = self.searcher.state
        segment = state.segments[number]
        found = rows_within(
            self.searcher,
            state.snapshot,
            finite_rows(segment, rows.start, rows.stop),
            self.radius,
            self_segment=number,
            self_row=rows.start,
            limit=limit if len(rows) > 1 else NO_LIMIT,
        )
        if found is None:
            return None
        offsets, scores, others = found
        own = np.repeat(segment.row_ids()[rows.start : rows.stop], np.diff(offsets))
        ids = np.stack([np.minimum(own, others), np.maximum(own, others)], axis=1)
        return _ordered(Pairs(scores, ids))


class _GraphSearch(NamedTuple):
    """Searches for the rows of the index, with one more than ``k`` to leave the row itself out.

    Symmetry would halve the comparisons here too, but it would keep the survivors of all rows at
    once, and their number has no bound.
    """

    searcher: Searcher
    k: int
    include_self: bool

    def parts(self, batch: int, progress: Progress | None) -> Iterator[Graph]:
        state, done = self.searcher.state, 0
        total = len(state)
        k = self.k if self.include_self else self.k + 1
        for rows, ids in _live_batches(state, batch):
            best = best_rows(self.searcher, state.snapshot, rows, k)
            scores, found = (state.form.memory.to_host(part) for part in best)
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
    for segment in state.segments:
        for begin in range(0, segment.n_rows, batch):
            end = min(begin + batch, segment.n_rows)
            ids = segment.row_ids()[begin:end]
            rows = finite_rows(segment, begin, end)
            if segment.live is not None:
                live = segment.alive(np.arange(begin, end))
                ids, rows = ids[live], state.form.memory.taken(rows, live)
            if len(ids):
                yield rows, np.array(ids)
