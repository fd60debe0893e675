"""The flat indexes: a :class:`fastretrieve.Index` behind FAISS's names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.metric import Metric
from fastretrieve._queries.results import Hits
from fastretrieve._state.changes import COPY_BYTES, live_rows
from fastretrieve.compat.flat.selectors import Ids, IDSelector, IDSelectorBatch, Mask
from fastretrieve.index import Index as ExactIndex

METRIC_INNER_PRODUCT = 0
METRIC_L2 = 1

Floats = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)

METRICS: dict[int, Metric] = {METRIC_INNER_PRODUCT: "ip", METRIC_L2: "sqeuclidean"}
_LARGEST = np.finfo(np.float32).max
_WORST = {METRIC_INNER_PRODUCT: -_LARGEST, METRIC_L2: _LARGEST}  # where nothing was found


class Index(ABC):
    """The base of all indexes here. Vectors have numbers, 0, 1, 2 and so on, which are their ids in
    ``exact``; a derived class says under which ids its user knows them.
    """

    is_trained = True
    verbose = False
    metric_arg = 0.0

    def __init__(self, d: int, metric: int = METRIC_L2) -> None:
        if metric not in METRICS:
            raise RuntimeError(
                f"metric must be METRIC_L2 ({METRIC_L2}) or METRIC_INNER_PRODUCT "
                f"({METRIC_INNER_PRODUCT}), got {metric}"
            )
        self.d = int(d)
        self.metric_type = metric

    def __repr__(self) -> str:
        return f"{type(self).__name__}(d={self.d}, ntotal={self.ntotal})"

    @property
    @abstractmethod
    def exact(self) -> ExactIndex:
        """The index that does the work; its ids are the numbers of the vectors."""

    @abstractmethod
    def _ids(self) -> Ids:
        """The user's id of every number."""

    @abstractmethod
    def _named(self, numbers: Ids) -> Ids:
        """The user's ids of these numbers."""

    @abstractmethod
    def _numbers(self, keys: Ids) -> Ids:
        """The numbers of the user's ids; an unknown one is an error."""

    @abstractmethod
    def _drop(self, gone: Mask) -> None:
        """Remove vectors; those behind them get smaller numbers."""

    @property
    def ntotal(self) -> int:
        """How many vectors there are."""
        return len(self.exact)

    @property
    def code_size(self) -> int:
        """Bytes of a vector."""
        return 4 * self.d

    def train(self, x: Any) -> None:  # noqa: B027 (there is nothing to override)
        """Do nothing: flat indexes learn nothing."""

    def search(
        self,
        x: Any,
        k: int,
        *,
        params: Any = None,
        D: Floats | None = None,
        I: Ids | None = None,  # noqa: E741
    ) -> tuple[Floats, Ids]:
        """The ``k`` best of each query: (D, I), padded with -1 and the worst float32.

        >>> index = IndexFlatL2(1)
        >>> index.add(np.array([[1.0], [5.0]]))
        >>> index.search(np.array([[2.0]]), 2)
        (array([[1., 9.]], dtype=float32), array([[0, 1]]))
        """
        if k < 1:
            raise AssertionError(f"k must be at least 1, got {k}")
        hits = self._found(self._matrix(x), k, params)
        found = hits.ids >= 0
        scores: Floats = np.where(found, hits.scores, _WORST[self.metric_type])
        ids = np.full(hits.ids.shape, -1, np.int64)
        ids[found] = self._named(hits.ids[found])
        return into(D, scores, "D"), into(I, ids, "I")

    def assign(self, x: Any, k: int = 1, labels: Ids | None = None) -> Ids:
        """The ids of :meth:`search` alone."""
        return into(labels, self.search(x, k)[1], "labels")

    def range_search(
        self, x: Any, thresh: float, *, params: Any = None
    ) -> tuple[NDArray[np.uint64], Floats, Ids]:
        """All vectors nearer than ``thresh`` (or with a larger inner product), without those that
        are exactly there, as FAISS does: (lims, D, I).

        >>> index = IndexFlatL2(1)
        >>> index.add(np.array([[1.0], [5.0]]))
        >>> lims, D, I = index.range_search(np.array([[2.0]]), 9.0)
        >>> lims.tolist(), D.tolist(), I.tolist()
        ([0, 1], [1.0], [0])
        """
        edge = np.float32(thresh)
        found = self.exact.range_search(self._matrix(x), float(edge), where=self._allowed(params))
        inside = found.scores != edge
        lims = np.concatenate([[0], np.cumsum(inside)])[found.offsets].astype(np.uint64)
        return lims, found.scores[inside], self._named(found.ids[inside])

    def search_and_reconstruct(
        self,
        x: Any,
        k: int,
        *,
        params: Any = None,
        D: Floats | None = None,
        I: Ids | None = None,  # noqa: E741
        R: Floats | None = None,
    ) -> tuple[Floats, Ids, Floats]:
        """(D, I, R): :meth:`search`, and the vectors it found; NaN where there are none."""
        scores, ids = self.search(x, k, params=params, D=D, I=I)
        vectors = np.full((*ids.shape, self.d), np.nan, dtype=np.float32)
        vectors[ids >= 0] = self.reconstruct_batch(ids[ids >= 0])
        return scores, ids, into(R, vectors, "R")

    def reconstruct(self, key: int, x: Floats | None = None) -> Floats:
        """The vector with this id."""
        return into(x, self.reconstruct_batch([key])[0], "x")

    def reconstruct_batch(self, key: Any, x: Floats | None = None) -> Floats:
        """The vectors with these ids."""
        wanted = np.asarray(key, dtype=np.int64).reshape(-1)
        found: Floats = self.exact.get(self._numbers(wanted))
        return into(x, found, "x")

    def remove_ids(self, sel: Any) -> int:
        """Remove the vectors that an array of ids or a selector names, and return how many. Ids
        that are not in the index are ignored.
        """
        selector = sel if isinstance(sel, IDSelector) else IDSelectorBatch(sel)
        gone = selector.chosen(self._ids())
        if gone.any():
            self._drop(gone)
        return int(gone.sum())

    def _found(self, queries: Floats, k: int, params: Any) -> Hits:
        """The ``k`` best of each query, by their numbers."""
        return self.exact.search(queries, k, where=self._allowed(params))

    def _allowed(self, params: Any) -> Mask | None:
        """The vectors that a search may find; None: all."""
        if params is None or params.sel is None:
            return None
        mask: Mask = params.sel.chosen(self._ids())
        return mask

    def _matrix(self, x: Any) -> Floats:
        matrix = np.ascontiguousarray(x, dtype=np.float32)
        if matrix.ndim != 2 or matrix.shape[1] != self.d:
            raise AssertionError(  # what FAISS raises
                f"vectors must have shape (n, {self.d}), got {matrix.shape}"
            )
        return matrix


class IndexFlat(Index):
    """Vectors numbered 0, 1, 2, ...; removing some gives those behind them smaller numbers.

    >>> index = IndexFlat(2, METRIC_INNER_PRODUCT)
    >>> index.add(np.eye(2))
    >>> index.ntotal
    2
    """

    def __init__(self, d: int, metric: int = METRIC_L2) -> None:
        super().__init__(d, metric)
        self._exact = self._empty()

    @property
    def exact(self) -> ExactIndex:
        """The index that does the work; its ids are the numbers of the vectors."""
        return self._exact

    def add(self, x: Any) -> None:
        """Append vectors."""
        self._exact.add(self._matrix(x))

    def add_with_ids(self, x: Any, ids: Any) -> None:
        """Raise, as in FAISS: flat indexes number their vectors."""
        raise RuntimeError("IndexFlat numbers its vectors itself; wrap it: IndexIDMap(index)")

    def reset(self) -> None:
        """Remove all vectors; numbers start at 0 again."""
        self._exact = self._empty()

    def reconstruct_n(self, n0: int = 0, ni: int = -1, x: Floats | None = None) -> Floats:
        """The ``ni`` vectors from number ``n0`` on; -1: to the end."""
        count = self.ntotal - n0 if ni == -1 else ni
        return into(x, self.reconstruct_batch(np.arange(n0, n0 + count)), "x")

    def merge_from(self, otherIndex: IndexFlat, add_id: int = 0) -> None:
        """Append the vectors of another index of the same kind and empty that one."""
        self.check_compatible_for_merge(otherIndex)
        if add_id:
            raise RuntimeError(f"IndexFlat numbers its vectors itself: add_id is {add_id}, not 0")
        self.add(otherIndex.reconstruct_n())
        otherIndex.reset()

    def check_compatible_for_merge(self, otherIndex: IndexFlat) -> None:
        """Raise unless the other's vectors can be appended."""
        if not isinstance(otherIndex, IndexFlat) or otherIndex is self:
            raise RuntimeError(f"wants another flat index of this module, got {otherIndex!r}")
        ours, others = (self.d, self.metric_type), (otherIndex.d, otherIndex.metric_type)
        if ours != others:
            raise RuntimeError(f"dimension and metric must be {ours}, got {others}")

    def _empty(self) -> ExactIndex:
        return ExactIndex(self.d, metric=METRICS[self.metric_type])

    def _ids(self) -> Ids:
        return np.arange(self.ntotal)

    def _named(self, numbers: Ids) -> Ids:
        return numbers

    def _numbers(self, keys: Ids) -> Ids:
        outside = keys[(keys < 0) | (keys >= self.ntotal)]
        if len(outside):
            raise RuntimeError(f"key {outside[0]} is not in [0, {self.ntotal})")
        return keys

    def _drop(self, gone: Mask) -> None:
        state = self._exact._state
        kept = self._empty()
        if not gone.all():
            kept.reserve(int((~gone).sum()))
        begin = 0
        for rows in live_rows(state, COPY_BYTES):  # nothing is ever removed: these are all
            kept.add(rows[~gone[begin : begin + len(rows)]])
            begin += len(rows)
        self._exact = kept


class IndexFlatL2(IndexFlat):
    """Squared Euclidean distances, smallest first."""

    def __init__(self, d: int) -> None:
        super().__init__(d, METRIC_L2)


class IndexFlatIP(IndexFlat):
    """Inner products, largest first."""

    def __init__(self, d: int) -> None:
        super().__init__(d, METRIC_INNER_PRODUCT)


def into(out: NDArray[T] | None, values: NDArray[T], name: str) -> NDArray[T]:
    """``values``, in the caller's array if one was given."""
    if out is None:
        return values
    if out.shape != values.shape or out.dtype != values.dtype:
        raise AssertionError(
            f"{name} must be {values.dtype} of shape {values.shape}, got {out.dtype} {out.shape}"
        )
    out[...] = values
    return out
