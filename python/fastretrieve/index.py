"""An exact top-k index.

``Index`` checks what the caller passes, keeps ids, and publishes states; ``segments.py`` owns the
memory and ``csrc/cpu/search.cpp`` the search. What "exact" means is written in
``docs/exactness.md``.
"""

from __future__ import annotations

import threading
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve.arrays import DTYPES, DType, Rows, as_rows, like, storage_dtype, whole
from fastretrieve.ids import MAX_ID, IdMap, as_ids, first_duplicate, named
from fastretrieve.joins import Joins
from fastretrieve.runtime import backend_for
from fastretrieve.segments import Block, Format, State, View, new_capacity

Metric = Literal["cosine", "ip", "l2", "sqeuclidean"]


class Hits(NamedTuple):
    """The best rows for each query, best first; equal scores come in order of id."""

    scores: Any  # [n_queries, k], NaN where there are fewer than k rows
    ids: Any  # [n_queries, k] int64, -1 there


class Index(Joins):
    """Vectors of one dimension, searched exactly.

    Any number of threads may search while others add, remove or update: a search sees the index as
    it was when it began. ``dtype`` is how vectors are stored; scores are those of the stored
    values.

    >>> index = fr.Index(2, metric="l2")
    >>> index.add([[0, 0], [3, 4], [6, 8]])
    array([0, 1, 2])
    >>> index.search([3, 4], k=2)
    Hits(scores=array([0., 5.], dtype=float32), ids=array([1, 0]))
    """

    def __init__(
        self, dim: int, *, metric: Metric = "cosine", dtype: DType = "float32", device: str = "cpu"
    ) -> None:
        if metric not in get_args(Metric):
            raise ValueError(f"metric must be cosine, ip, l2 or sqeuclidean, got {metric!r}")
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be float32, float16 or bfloat16, got {dtype!r}")
        if whole(dim, "dim") > _core.MAX_DIM:
            raise ValueError(f"dim must be in [1, {_core.MAX_DIM}], got {dim}")
        self._form = Format(int(dim), metric, dtype, backend_for(device))
        self._device = device
        self._state = State(self._form, (), IdMap(), 0)
        self._writing = threading.RLock()
        self._counters = _core.Counters()

    # --- what it is -------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._form.dim

    @property
    def metric(self) -> str:
        """How rows are compared."""
        return self._form.metric

    @property
    def dtype(self) -> DType:
        """How vectors are stored."""
        return self._form.dtype

    @property
    def device(self) -> str:
        """Where vectors are kept and searched."""
        return self._device

    @property
    def nbytes(self) -> int:
        """Bytes that the index holds: vectors, codes and ids."""
        return self._state.nbytes

    @property
    def ids(self) -> NDArray[np.int64]:
        """The ids of all rows, in the order in which a mask over them is read."""
        parts = [view.row_ids()[view.live_mask()] for view in self._state.views]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._state)

    def __contains__(self, row_id: int) -> bool:
        return row_id >= 0 and bool(self._locate(self._state, as_ids([row_id]))[0] >= 0)

    def __repr__(self) -> str:
        what = f"dim={self.dim}, metric={self.metric!r}, dtype={self.dtype!r}"
        return f"Index({what}, device={self.device!r}, rows={len(self)})"

    def stats(self) -> dict[str, float]:
        """What the searches of this index did so far.

        ``rows_scored_per_query`` is how many rows int8 codes could not rule out; ``overflows``
        counts how often a query had more of them than its buffer holds, which costs time and never
        changes an answer.
        """
        counts: dict[str, float] = dict(self._counters.read())
        counts["rows_scored_per_query"] = counts["rows_scored"] / max(counts["queries"], 1)
        return counts

    # --- searching --------------------------------------------------------------------------------

    def search(
        self, queries: Any, k: int = 10, *, score_dtype: Literal["float32", "float64"] = "float32"
    ) -> Hits:
        """Return the exact top ``k`` rows for each query.

        One vector gives one row of results, a matrix gives a matrix, in the kind of array that
        came. The scores are float64 inside; ``score_dtype`` says how they are returned.

        >>> index = fr.Index(2, metric="ip")
        >>> ids = index.add([[1, 0], [0, 1]], ids=[7, 5])
        >>> index.search([[1, 1]], k=3)
        Hits(scores=array([[ 1.,  1., nan]], dtype=float32), ids=array([[ 5,  7, -1]]))
        """
        plain = type(queries) is np.ndarray and queries.dtype == np.float32 and queries.ndim == 2
        ready = plain and queries.flags.c_contiguous and queries.flags.aligned
        rows = queries if ready else as_rows(queries, name="queries")
        if rows.shape[1] != self.dim:
            raise ValueError(
                f"queries have dimension {rows.shape[1]} but the index has dimension {self.dim}; "
                f"encode them as the vectors of the index were encoded"
            )
        if score_dtype not in ("float32", "float64"):
            raise ValueError(f"score_dtype must be float32 or float64, got {score_dtype!r}")
        state = self._state
        scores, ids = self._form.backend.search(
            rows, state.native, whole(k, "k"), self._counters, score_dtype == "float64"
        )
        if plain:
            return Hits(scores, ids)
        if np.ndim(queries) == 1:
            scores, ids = scores[0], ids[0]
        return Hits(like(scores, queries), like(ids, queries))

    def get(self, ids: Any) -> NDArray[Any]:
        """Return the stored vectors of these ids, bit for bit (bfloat16 comes as the float32 of the
        same value).

        >>> index = fr.Index(2)
        >>> _ = index.add([[1, 2], [3, 4]])
        >>> index.get([1])
        array([[3., 4.]], dtype=float32)
        """
        state = self._state
        wanted = as_ids(ids)
        slots = self._require(state, wanted)
        out = np.empty((len(wanted), self.dim), dtype=storage_dtype(self.dtype))
        for view in state.views:
            here = view.holds(slots)
            out[here] = view.block.rows[slots[here] - view.block.slot]
        if self.dtype == "bfloat16":
            return (out.astype(np.uint32) << 16).view(np.float32)
        return out

    # --- changing ---------------------------------------------------------------------------------

    def add(self, vectors: Any, ids: Any = None) -> NDArray[np.int64]:
        """Copy vectors into the index and return their ids: the given ones, or the next unused.

        Either all of them are in afterwards or, after an error, none.
        """
        rows = as_rows(vectors, name="vectors", dim=self.dim)
        given = None if ids is None else as_ids(ids)
        if given is not None and len(given) != len(rows):
            raise ValueError(
                f"there must be one id for each vector, "
                f"got {len(given)} ids for {len(rows)} vectors"
            )
        with self._writing:
            if given is not None:
                self._refuse_known(given)
            return self._append(self._state, rows, given)

    def remove(self, ids: Any) -> None:
        """Remove the rows with these ids. An unknown id is an error, and then nothing is removed.

        Searches that are running still see the rows. Their memory is freed by :meth:`compact`.
        """
        gone = as_ids(ids)
        self._refuse_twice(gone)
        with self._writing:
            self._state = self._without(self._state, gone)

    def update(self, ids: Any, vectors: Any) -> None:
        """Give the rows with these ids new vectors, in one step for every search."""
        changed = as_ids(ids)
        rows = as_rows(vectors, name="vectors", dim=self.dim)
        if len(changed) != len(rows):
            raise ValueError(
                f"there must be one vector for each id, "
                f"got {len(rows)} vectors for {len(changed)} ids"
            )
        self._refuse_twice(changed)
        with self._writing:
            self._append(self._without(self._state, changed), rows, changed)

    def reserve(self, n_rows: int) -> None:
        """Make room for ``n_rows`` more rows at once, so that adding them one by one allocates
        nothing.
        """
        n_rows = whole(n_rows, "n_rows")
        with self._writing:
            state = self._state
            views = state.views
            if n_rows > (views[-1].free if views else 0):
                block = Block(
                    self._form,
                    n_rows,
                    slot=_next_slot(views),
                    first_id=state.next_id,
                    own_ids=False,
                )
                views = (*views, View(block, 0, 0, None, 0))
                self._state = State(self._form, views, state.id_map, state.next_id)

    def compact(self) -> None:
        """Put all rows into one block and give the memory of removed ones back. Ids and answers do
        not change.
        """
        with self._writing:
            before = self._state
            ids = self.ids
            own_ids = not _consecutive(ids)
            view = View(
                Block(
                    self._form,
                    max(len(ids), 1),
                    slot=0,
                    first_id=int(ids[0]) if len(ids) else 0,
                    own_ids=own_ids,
                ),
                0,
                0,
                None,
                0,
            )
            for old in before.views:
                rows, row_ids = old.block.rows[: old.n_rows], old.row_ids()
                if old.live is not None:
                    live = old.live_mask()
                    rows, row_ids = rows[live], row_ids[live]
                view.block.write(rows, row_ids, view.n_rows)
                view = view.grown(len(rows))
            id_map = IdMap().put(ids, 0) if own_ids else IdMap()
            views = (view,) if len(ids) else ()
            self._state = State(self._form, views, id_map, before.next_id)

    # --- inside: the caller holds the lock --------------------------------------------------------

    def _append(
        self, state: State, rows: Rows, given: NDArray[np.int64] | None
    ) -> NDArray[np.int64]:
        """Publish ``state`` with these rows behind it, by one assignment: what fails on the way
        leaves the index as it was.
        """
        ids = _automatic_ids(state.next_id, len(rows)) if given is None else given
        id_map, next_id = state.id_map, state.next_id
        views = state.views
        if len(rows):
            own_ids = not _consecutive(ids)
            begin = 0
            if views and views[-1].free and self._may_grow(views[-1], int(ids[0]), own_ids):
                begin = min(views[-1].free, len(rows))
                views = (*views[:-1], self._grow(views[-1], rows[:begin], ids[:begin], 0))
            if begin < len(rows):
                held = sum(view.n_rows for view in views)
                capacity = new_capacity(self._form, len(rows) - begin, held)
                block = Block(
                    self._form,
                    capacity,
                    slot=_next_slot(views),
                    first_id=int(ids[begin]),
                    own_ids=own_ids,
                )
                views = (
                    *views,
                    self._grow(View(block, 0, 0, None, 0), rows[begin:], ids[begin:], begin),
                )
            id_map = _remember(id_map, state.views, views)
            next_id = max(next_id, int(ids.max()) + 1)
        self._state = State(self._form, views, id_map, next_id)
        return ids

    @staticmethod
    def _may_grow(view: View, first_id: int, own_ids: bool) -> bool:
        block = view.block
        if view.n_rows == 0 and block.ids is None:  # reserved
            block.first_id = first_id
            if own_ids:
                block.own_ids()
        return block.ids is not None or (not own_ids and view.may_continue(first_id))

    def _grow(self, view: View, rows: Rows, ids: NDArray[np.int64], begin: int) -> View:
        bad = view.block.write(rows, ids, view.n_rows)
        if bad >= 0:
            raise ValueError(
                f"vectors hold a value that is not finite in {self.dtype} in row {begin + bad}; "
                f"nothing was added: remove NaN and infinity first"
            )
        return view.grown(len(rows))

    @staticmethod
    def _locate(state: State, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The slot of the live row of each id; -1 where there is none."""
        mapped = state.id_map.find(ids)
        slots = np.full(len(ids), -1, dtype=np.int64)
        for view in state.views:  # an id may have had several rows, of which one at most is alive
            first = view.block.first_id
            if view.block.ids is None:
                here = (ids >= first) & (ids < first + view.n_rows)
                rows = ids[here] - first
            else:
                here = view.holds(mapped)
                rows = mapped[here] - view.block.slot
            slots[here] = np.where(view.alive(rows), view.block.slot + rows, slots[here])
        return slots

    def _require(self, state: State, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        slots = self._locate(state, ids)
        if (slots < 0).any():
            missing = ids[slots < 0]
            raise KeyError(
                f"{len(missing)} of {len(ids)} ids are not in the index: {named(missing.tolist())}"
            )
        return slots

    def _without(self, state: State, ids: NDArray[np.int64]) -> State:
        slots = self._require(state, ids)
        views = []
        for view in state.views:
            here = slots[view.holds(slots)]
            views.append(view.without(here - view.block.slot) if len(here) else view)
        return State(self._form, tuple(views), state.id_map, state.next_id)

    def _refuse_known(self, ids: NDArray[np.int64]) -> None:
        self._refuse_twice(ids)
        if len(ids) and ids.min() >= self._state.next_id:
            return  # larger than every id so far
        known = ids[self._locate(self._state, ids) >= 0]
        if len(known):
            raise ValueError(
                f"{len(known)} of {len(ids)} ids are in the index already: "
                f"{named(known.tolist())}; use update() to give them new vectors"
            )

    @staticmethod
    def _refuse_twice(ids: NDArray[np.int64]) -> None:
        twice = first_duplicate(ids)
        if twice is not None:
            raise ValueError(f"id {twice} is given twice")


def _consecutive(ids: NDArray[np.int64]) -> bool:
    return len(ids) == 0 or bool((ids == np.arange(ids[0], int(ids[0]) + len(ids))).all())


def _automatic_ids(first: int, n: int) -> NDArray[np.int64]:
    if first + n - 1 > MAX_ID:
        raise ValueError(
            f"there are no {n} automatic ids after {first - 1}, the largest so far; give ids"
        )
    return np.arange(first, first + n)


def _remember(id_map: IdMap, before: tuple[View, ...], after: tuple[View, ...]) -> IdMap:
    """The map with the ids of new rows, where they are not consecutive."""
    for i, view in enumerate(after):
        n_known = before[i].n_rows if i < len(before) else 0
        if view.block.ids is not None and view.n_rows > n_known:
            id_map = id_map.put(view.block.ids[n_known : view.n_rows], view.block.slot + n_known)
    return id_map


def _next_slot(views: tuple[View, ...]) -> int:
    return views[-1].block.slot + views[-1].block.capacity if views else 0
