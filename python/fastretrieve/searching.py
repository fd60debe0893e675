"""Searches of an index: the best rows, all rows within a radius, the neighbours of its own rows.

``Searches`` is the part of :class:`fastretrieve.Index` that does this. Every call works on the
state that the index had when the call began. ``filters.py`` owns the row masks, ``plans.py`` what
is prepared beforehand, ``csrc/cpu/search.cpp`` the search.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastretrieve.arguments import whole
from fastretrieve.arrays import Rows, joined, like
from fastretrieve.backend import Counters, Pair
from fastretrieve.filters import masked
from fastretrieve.ids import as_ids
from fastretrieve.locating import stored_rows
from fastretrieve.plans import SearchPlan, checked_out, search_into
from fastretrieve.results import (
    Hits,
    InRange,
    ScoreDType,
    as_radius,
    is_double,
    without_self,
)
from fastretrieve.segments import Format, State


class Searches:
    """Searching, for :class:`fastretrieve.Index`."""

    _form: Format
    _state: State
    _counters: Counters

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        where: Any = None,
        exclude: Any = None,
        score_dtype: ScoreDType = "float32",
        out: Pair | None = None,
        check: bool = False,
    ) -> Hits:
        """Return the exact top ``k`` rows for each query.

        One vector gives one row of results, a matrix gives a matrix, in the kind of array that
        came. The scores are float64 inside; ``score_dtype`` says how they are returned.

        Only the rows of ``where`` are considered, and none of ``exclude``: booleans are a mask over
        ``index.ids``, integers are ids, two dimensions are one row of them for each query. Ids that
        are not in the index are passed over, and -1 is, so that rows may be filled up with it.

        ``out`` is a pair of arrays (scores, ids) that receive the results, of their shape and type
        and where the queries are. Queries that are not finite are an error; those on a GPU come
        back as id -1 and NaN instead and are counted in :meth:`stats`, because to look would be to
        wait: ``check=True`` waits.

        >>> index = fr.Index(2, metric="ip")
        >>> ids = index.add([[1, 0], [0, 1]], ids=[7, 5])
        >>> index.search([[1, 1]], k=3)
        Hits(scores=array([[ 1.,  1., nan]], dtype=float32), ids=array([[ 5,  7, -1]]))
        >>> index.search([[1, 1]], k=1, exclude=[5]).ids
        array([[7]])
        """
        plain = type(queries) is np.ndarray and queries.dtype == np.float32 and queries.ndim == 2
        ready = plain and queries.flags.c_contiguous and queries.flags.aligned
        rows = queries if ready else self._form.backend.as_rows(queries, name="queries")
        if rows.shape[1] != self._form.dim:
            raise ValueError(
                f"queries have dimension {rows.shape[1]} but the index has dimension "
                f"{self._form.dim}; encode them as the vectors of the index were encoded"
            )
        k, float64 = whole(k, "k"), is_double(score_dtype)
        if check:
            self._form.backend.refuse_not_finite(rows)
        if out is not None:
            shape = (k,) if np.ndim(queries) == 1 else (len(rows), k)
            out = checked_out(out, shape, float64, self._form, rows)
            wide = (out[0].reshape(-1, k), out[1].reshape(-1, k))
            self._search(self._state, rows, k, where, exclude, float64, wide)
            return Hits(*out)
        scores, ids = self._search(self._state, rows, k, where, exclude, float64)
        if plain:
            return Hits(scores, ids)
        if np.ndim(queries) == 1:
            scores, ids = scores[0], ids[0]
        return Hits(like(scores, queries), like(ids, queries))

    def search_ids(
        self,
        ids: Any,
        k: int = 10,
        *,
        include_self: bool = False,
        where: Any = None,
        exclude: Any = None,
        score_dtype: ScoreDType = "float32",
    ) -> Hits:
        """Return the exact top ``k`` neighbours of rows of the index, by default without the row
        itself.

        >>> index = fr.Index(1, metric="l2")
        >>> _ = index.add([[0], [1], [5]])
        >>> index.search_ids([2, 0], k=1).ids
        array([[1],
               [1]])
        """
        k, state, wanted = whole(k, "k"), self._state, as_ids(ids)
        rows = stored_rows(state, wanted)
        scores, found = self._search(
            state, rows, k if include_self else k + 1, where, exclude, is_double(score_dtype)
        )
        if not include_self:
            scores, found = without_self(scores, found, wanted)
        if np.ndim(ids) == 0:
            scores, found = scores[0], found[0]
        return Hits(like(scores, ids), like(found, ids))

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
        rows = self._form.backend.as_rows(queries, name="queries", dim=self._form.dim)
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
        return InRange(*(like(placed(array), queries) for array in _joined_ranges(parts)))

    def _search(
        self,
        state: State,
        rows: Rows,
        k: int,
        where: Any,
        exclude: Any,
        float64: bool,
        out: Pair | None = None,
    ) -> Pair:
        if where is None and exclude is None:
            if out is None:
                return self._form.backend.search(rows, state.native, k, self._counters, float64)
            return search_into(self._form, rows, state.native, k, self._counters, float64, out)
        parts = []
        for begin, end, segments in masked(state, where, exclude, len(rows)):
            here = None if out is None else (out[0][begin:end], out[1][begin:end])
            arguments = (self._form, rows[begin:end], segments, k, self._counters, float64, here)
            parts.append(search_into(*arguments))
        return joined([scores for scores, _ in parts]), joined([ids for _, ids in parts])

    def plan(
        self,
        batch: int,
        k: int = 10,
        *,
        where: Any = None,
        exclude: Any = None,
        score_dtype: ScoreDType = "float32",
    ) -> SearchPlan:
        """Prepare searches of up to ``batch`` queries over the index as it is now: workspace and
        results are allocated here, and a call of the plan is a search.

        On a GPU such a call can be captured in a CUDA graph. ``where`` and ``exclude`` are those of
        :meth:`search`, with one dimension.

        >>> index = fr.Index(2, metric="ip")
        >>> _ = index.add([[1, 0], [0, 1]])
        >>> plan = index.plan(8, k=1)
        >>> plan([[0, 1], [1, 0]]).ids
        array([[1],
               [0]])
        """
        batch, k, state = whole(batch, "batch"), whole(k, "k"), self._state
        segments = state.native
        if where is not None or exclude is not None:
            for given, name in ((where, "where"), (exclude, "exclude")):
                if np.ndim(given) > 1:
                    raise ValueError(
                        f"{name} of a plan must have one dimension, got {np.ndim(given)}"
                    )
            (_, _, segments), *_ = masked(state, where, exclude, 1)
        float64 = is_double(score_dtype)
        return SearchPlan(self._form, segments, self._counters, batch=batch, k=k, float64=float64)


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
