"""FAISS's flat indexes, so that a script runs by changing ``import faiss``.

    import fastretrieve.compat.faiss as faiss

Shapes, types, padding and the shifting of ids on removal are FAISS's; answers are exact, and equal
scores come in order of id, which FAISS does not promise. FAISS itself is not needed. What differs:
see ``docs/adapters.md``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve import ops, runtime
from fastretrieve.ids import as_ids
from fastretrieve.index import Index as _Index
from fastretrieve.index import Metric as _Metric

METRIC_INNER_PRODUCT = 0
METRIC_L2 = 1

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

_METRICS: dict[int, _Metric] = {METRIC_INNER_PRODUCT: "ip", METRIC_L2: "sqeuclidean"}
_LARGEST = np.finfo(np.float32).max
_WORST = {METRIC_INNER_PRODUCT: -_LARGEST, METRIC_L2: _LARGEST}  # where nothing was found


class IDSelectorBatch:
    """The ids of a list, for ``remove_ids``."""

    def __init__(self, indices: Any) -> None:
        self.ids = as_ids(indices)

    def chosen(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of ``ids`` are selected."""
        return np.isin(ids, self.ids)


class IDSelectorRange:
    """Ids from ``imin`` up to, and without, ``imax``, for ``remove_ids``."""

    def __init__(self, imin: int, imax: int) -> None:
        self.imin, self.imax = imin, imax

    def chosen(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of ``ids`` are selected."""
        return (ids >= self.imin) & (ids < self.imax)


class Index:
    """What all indexes here have in common: a :class:`fastretrieve.Index` and FAISS's names."""

    is_trained = True
    verbose = False

    def __init__(self, d: int, metric: int = METRIC_L2) -> None:
        if metric not in _METRICS:
            raise RuntimeError(
                f"metric must be METRIC_L2 ({METRIC_L2}) or METRIC_INNER_PRODUCT "
                f"({METRIC_INNER_PRODUCT}), got {metric}"
            )
        self.d = int(d)
        self.metric_type = metric
        self.exact = _Index(self.d, metric=_METRICS[metric])
        self._ids: Ids | None = None  # of the rows, in order; None: not known since a change

    @property
    def ntotal(self) -> int:
        """How many vectors there are."""
        return len(self.exact)

    def train(self, x: Any) -> None:
        """Do nothing: flat indexes learn nothing."""

    def reset(self) -> None:
        """Remove all vectors; ids start at 0 again."""
        self.exact, self._ids = _Index(self.d, metric=_METRICS[self.metric_type]), None

    def search(
        self,
        x: Any,
        k: int,
        *,
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
        hits = self.exact.search(self._matrix(x), k)
        missing = hits.ids < 0
        scores = np.where(missing, _WORST[self.metric_type], hits.scores)
        ids = np.where(missing, -1, self._outward(hits.ids))
        return _into(D, scores, "D"), _into(I, ids, "I")

    def assign(self, x: Any, k: int = 1) -> Ids:
        """The ids of :meth:`search` alone."""
        return self.search(x, k)[1]

    def range_search(self, x: Any, thresh: float) -> tuple[NDArray[np.uint64], Floats, Ids]:
        """All vectors nearer than ``thresh`` (or with a larger inner product), without those that
        are exactly there, as FAISS does: (lims, D, I).

        >>> index = IndexFlatL2(1)
        >>> index.add(np.array([[1.0], [5.0]]))
        >>> lims, D, I = index.range_search(np.array([[2.0]]), 9.0)
        >>> lims.tolist(), D.tolist(), I.tolist()
        ([0, 1], [1.0], [0])
        """
        edge = np.float32(thresh)
        found = self.exact.range_search(self._matrix(x), float(edge))
        inside = found.scores != edge
        lims = np.concatenate([[0], np.cumsum(inside)])[found.offsets].astype(np.uint64)
        return lims, found.scores[inside], self._outward(found.ids[inside])

    def search_and_reconstruct(self, x: Any, k: int) -> tuple[Floats, Ids, Floats]:
        """(D, I, R): :meth:`search`, and the vectors it found; NaN where there are none."""
        scores, ids = self.search(x, k)
        vectors = np.full((*ids.shape, self.d), np.nan, dtype=np.float32)
        vectors[ids >= 0] = self.reconstruct_batch(ids[ids >= 0])
        return scores, ids, vectors

    def reconstruct(self, key: int) -> Floats:
        """The vector with this id."""
        vector: Floats = self.reconstruct_batch([key])[0]
        return vector

    def reconstruct_batch(self, keys: Any) -> Floats:
        """The vectors with these ids."""
        wanted = np.asarray(keys, dtype=np.int64).reshape(-1)
        found: Floats = self.exact.get(self._inward(wanted))
        return found

    def remove_ids(self, sel: Any) -> int:
        """Remove the vectors that an array of ids or a selector names, and say how many those were.
        Ids that are not in the index are passed over.
        """
        selector = sel if hasattr(sel, "chosen") else IDSelectorBatch(sel)
        ids = self._row_ids()
        gone = ids[selector.chosen(self._outward(ids))]
        if len(gone):
            self.exact.remove(gone)
            self._ids = None
            self.exact.compact()
        return len(gone)

    # --- inside -----------------------------------------------------------------------------------

    def _add(self, x: Any, ids: Any = None) -> None:
        self.exact.add(self._matrix(x), ids=ids)
        self._ids = None

    def _matrix(self, x: Any) -> Floats:
        matrix = np.ascontiguousarray(x, dtype=np.float32)
        if matrix.ndim != 2 or matrix.shape[1] != self.d:
            raise AssertionError(  # what FAISS raises
                f"vectors must have shape (n, {self.d}), got {matrix.shape}"
            )
        return matrix

    def _row_ids(self) -> Ids:
        if self._ids is None:
            self._ids = self.exact.ids
        return self._ids

    def _outward(self, ids: Ids) -> Ids:
        """From ids of ``exact`` to those that the user sees."""
        return ids

    def _inward(self, keys: Ids) -> Ids:
        """From ids that the user sees to those of ``exact``; unknown ones are an error."""
        unknown = keys[~np.isin(keys, self._row_ids())]
        if len(unknown):
            raise RuntimeError(f"key {unknown[0]} not found among {self.ntotal} vectors")
        return keys


class IndexFlat(Index):
    """Vectors numbered 0, 1, 2, ...; removing some gives those behind them smaller numbers.

    >>> index = IndexFlat(2, METRIC_INNER_PRODUCT)
    >>> index.add(np.eye(2))
    >>> index.ntotal
    2
    """

    def add(self, x: Any) -> None:
        """Append vectors."""
        self._add(x)

    def add_with_ids(self, x: Any, ids: Any) -> None:
        """Not for flat indexes, as in FAISS."""
        raise RuntimeError("IndexFlat numbers its vectors itself; wrap it: IndexIDMap(index)")

    def reconstruct_n(self, n0: int = 0, ni: int = -1) -> Floats:
        """The ``ni`` vectors from number ``n0`` on; -1: to the end."""
        count = self.ntotal - n0 if ni == -1 else ni
        return self.reconstruct_batch(np.arange(n0, n0 + count))

    # Ids of `exact` only grow, so a vector's number is its rank among them.
    def _outward(self, ids: Ids) -> Ids:
        return np.searchsorted(self._row_ids(), ids)

    def _inward(self, keys: Ids) -> Ids:
        outside = keys[(keys < 0) | (keys >= self.ntotal)]
        if len(outside):
            raise RuntimeError(f"key {outside[0]} is not in [0, {self.ntotal})")
        return self._row_ids()[keys]


class IndexFlatL2(IndexFlat):
    """Squared Euclidean distances, smallest first."""

    def __init__(self, d: int) -> None:
        super().__init__(d, METRIC_L2)


class IndexFlatIP(IndexFlat):
    """Inner products, largest first."""

    def __init__(self, d: int) -> None:
        super().__init__(d, METRIC_INNER_PRODUCT)


class IndexIDMap(Index):
    """Vectors with ids of the user's own, which must be 0 or more and differ.

    >>> index = IndexIDMap(IndexFlatL2(1))
    >>> index.add_with_ids(np.array([[1.0], [5.0]]), np.array([70, 30]))
    >>> index.search(np.array([[5.0]]), 1)[1]
    array([[30]])
    """

    def __init__(self, index: IndexFlat) -> None:
        if not isinstance(index, IndexFlat):
            raise TypeError(f"wants one of the flat indexes of this module, got {index!r}")
        if index.ntotal:
            raise RuntimeError(f"index must be empty on input, it has {index.ntotal} vectors")
        super().__init__(index.d, index.metric_type)
        self.index = index
        self.exact = index.exact

    def reset(self) -> None:
        """Remove all vectors."""
        super().reset()
        self.index.exact, self.index._ids = self.exact, None

    def add(self, x: Any) -> None:
        """Not for this index, as in FAISS."""
        raise RuntimeError("add does not make sense with IndexIDMap, use add_with_ids")

    def add_with_ids(self, x: Any, ids: Any) -> None:
        """Add vectors under these ids."""
        self._add(x, ids)

    @property
    def id_map(self) -> Ids:
        """The ids, in the order in which they were added."""
        return self._row_ids()


class IndexIDMap2(IndexIDMap):
    """The same here; in FAISS the one that can reconstruct."""


def vector_to_array(v: Any) -> NDArray[Any]:
    """What is an array here already, as an array: ``vector_to_array(index.id_map)``."""
    return np.asarray(v)


def index_factory(d: int, description: str, metric: int = METRIC_L2) -> Index:
    """The flat indexes by name: ``Flat``, ``IDMap,Flat``, ``IDMap2,Flat``.

    >>> type(index_factory(8, "IDMap,Flat")).__name__
    'IndexIDMap'
    """
    flat = IndexFlat(d, metric)
    made: dict[str, type[IndexIDMap]] = {"IDMap,Flat": IndexIDMap, "IDMap2,Flat": IndexIDMap2}
    if description == "Flat":
        return flat
    if description not in made:
        raise RuntimeError(
            f"description must be Flat, IDMap,Flat or IDMap2,Flat, got {description!r}: "
            f"an exact search needs no other"
        )
    return made[description](flat)


def knn(xq: Any, xb: Any, k: int, metric: int = METRIC_L2) -> tuple[Floats, Ids]:
    """The ``k`` nearest of ``xb`` for each query, without an index.

    >>> knn(np.array([[1.0]]), np.array([[4.0], [2.0]]), 1)
    (array([[1.]], dtype=float32), array([[1]]))
    """
    base = np.asarray(xb)
    index = IndexFlat(base.shape[1], metric)
    index.add(base)
    return index.search(xq, k)


def pairwise_distances(xq: Any, xb: Any, metric: int = METRIC_L2) -> Floats:
    """Every query with every vector."""
    matrix: Floats = ops.scores(np.asarray(xq), np.asarray(xb), metric=_METRICS[metric])
    return matrix


def normalize_L2(x: NDArray[Any]) -> None:
    """Divide the rows of a contiguous float32 matrix by their norms, in place."""
    ops.normalize(x, out=x)


def omp_set_num_threads(n: int) -> None:
    """Let every call use up to ``n`` threads."""
    runtime.set_num_threads(n)


def omp_get_max_threads() -> int:
    """The threads that a call may use."""
    return runtime.num_threads()


def _into(out: NDArray[Any] | None, values: NDArray[Any], name: str) -> NDArray[Any]:
    """``values``, in the caller's array if one was given."""
    if out is None:
        return values
    if out.shape != values.shape or out.dtype != values.dtype:
        raise AssertionError(
            f"{name} must be {values.dtype} of shape {values.shape}, got {out.dtype} {out.shape}"
        )
    out[...] = values
    return out
