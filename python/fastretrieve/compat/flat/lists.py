"""``IndexIVFFlat``: FAISS's approximate index, over the leaves of :meth:`Index.optimize`.

FAISS keeps ``nlist`` lists around centres that ``train`` finds, and a search reads ``nprobe`` of
them. Here ``Index.optimize`` makes leaves of 64 vectors, and a search reads the same share of them:
``nprobe`` of ``nlist``. Within these leaves it is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arguments import whole
from fastretrieve._common.locks import ForkSafeLock
from fastretrieve._queries.results import Hits
from fastretrieve._state.slabs import STRIP_ROWS
from fastretrieve.compat.flat.idtable import IdTable, given_ids
from fastretrieve.compat.flat.indexes import METRIC_L2, METRICS, Floats, Index, into
from fastretrieve.compat.flat.selectors import Ids, IDSelector, Mask, SearchParameters
from fastretrieve.index import Index as ExactIndex

AGAIN = 0.1  # new vectors, as a share of those that were there, before leaves are made anew


class SearchParametersIVF(SearchParameters):
    """Options of a single search: the vectors to search among, and how many lists to read.
    ``max_codes`` and ``quantizer_params`` are kept, and change nothing.
    """

    def __init__(
        self,
        sel: IDSelector | None = None,
        nprobe: int = 1,
        max_codes: int = 0,
        quantizer_params: Any = None,
    ) -> None:
        super().__init__(sel)
        self.nprobe, self.max_codes = nprobe, max_codes
        self.quantizer_params = quantizer_params


class DirectMap:
    """The kinds of maps that FAISS finds vectors by id with; here all ids are found."""

    NoMap, Array, Hashtable = 0, 1, 2


class ClusteringParameters:
    """What governs FAISS's ``train``. It is kept, and changes nothing: ``train`` learns nothing."""

    def __init__(self) -> None:
        self.niter, self.nredo, self.seed, self.verbose = 10, 1, 1234, False
        self.min_points_per_centroid, self.max_points_per_centroid = 39, 256
        self.spherical = False


class IndexIVFFlat(Index):
    """Vectors of which a search reads a share: ``nprobe`` of ``nlist``.

    ``nprobe = nlist`` is the exact search. Fewer make it faster where ``Index.optimize`` finds
    leaves to keep to, and it misses some neighbours; :attr:`leaves` is 0 where it finds none, and
    then every search is exact. Leaves are made by the first search, and by one that finds a tenth
    more vectors; vectors in no leaf are always read.

    ``train`` learns nothing and checks what FAISS's checks. Ids stay when others are removed.
    ``reconstruct`` needs no ``make_direct_map``.

    >>> from fastretrieve.compat.faiss import IndexFlatL2
    >>> index = IndexIVFFlat(IndexFlatL2(2), 2, 4)
    >>> index.train(np.eye(4, 2))
    >>> index.add_with_ids(np.eye(4, 2), np.array([70, 30, 20, 10]))
    >>> index.nprobe = 4
    >>> index.search(np.array([[0.0, 1.0]]), 1)
    (array([[0.]], dtype=float32), array([[30]]))
    """

    max_codes = 0
    parallel_mode = 0
    own_fields = False
    own_invlists = True
    quantizer_trains_alone = 0

    def __init__(
        self,
        quantizer: Index,
        d: int,
        nlist: int,
        metric: int = METRIC_L2,
        own_invlists: bool = True,
    ) -> None:
        if not isinstance(quantizer, Index):
            raise TypeError(f"quantizer must be an index of this module, got {quantizer!r}")
        if quantizer.d != d:
            raise RuntimeError(f"quantizer must have dimension {d}, got {quantizer.d}")
        if whole(nlist, "nlist", least=0) == 0:
            raise RuntimeError("nlist must be at least 1, got 0")
        super().__init__(d, metric)
        self.quantizer, self.nlist, self.cp = quantizer, int(nlist), ClusteringParameters()
        self.is_trained = quantizer.is_trained and quantizer.ntotal == self.nlist
        self._nprobe = 1
        self._making = ForkSafeLock()
        self.reset()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_making"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _making=ForkSafeLock())

    @property
    def exact(self) -> ExactIndex:
        """The index that does the work; its ids are the numbers of the vectors."""
        return self._exact

    @property
    def nprobe(self) -> int:
        """How many of ``nlist`` lists a search reads."""
        return self._nprobe

    @nprobe.setter
    def nprobe(self, n: int) -> None:
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
            raise TypeError(f"nprobe must be an integer, got {n!r}")
        if n < 0:
            raise OverflowError(f"nprobe must be at least 1, got {n}")
        self._nprobe = int(n)

    @property
    def leaves(self) -> int:
        """How many leaves there are to keep to; 0: every search is exact."""
        screen = self._exact._state.screen
        return 0 if screen is None else len(screen.places) // STRIP_ROWS

    def reset(self) -> None:
        """Remove all vectors; numbers start at 0 again."""
        self._exact = ExactIndex(self.d, metric=METRICS[self.metric_type])
        self._table = IdTable()
        self._live: IdTable | None = None  # of the vectors that are there; made when it is asked
        self._judged = 0  # how many vectors had been added when leaves were made
        self._stored = 0  # how many vectors lie in memory, those that were removed too

    def train(self, x: Any) -> None:
        """Check that there are enough vectors; from then on others can be added."""
        n = len(self._matrix(x))
        if not self.is_trained and n < self.nlist:
            raise RuntimeError(
                f"the number of training vectors must be at least nlist, {self.nlist}, got {n}"
            )
        self.is_trained = True

    def add(self, x: Any) -> None:
        """Append vectors; their ids go on from ``ntotal``."""
        matrix = self._matrix(x)
        self._append(matrix, np.arange(self.ntotal, self.ntotal + len(matrix)))

    def add_with_ids(self, x: Any, ids: Any) -> None:
        """Add vectors under these ids: any integers, several vectors may share one."""
        matrix = self._matrix(x)
        self._append(matrix, given_ids(ids, len(matrix)))

    def update_vectors(self, keys: Any, x: Any) -> None:
        """Give the vectors with these ids new numbers."""
        matrix = self._matrix(x)
        self._exact.update(self._numbers(given_ids(keys, len(matrix))), matrix)

    def range_search(
        self, x: Any, thresh: float, *, params: Any = None
    ) -> tuple[NDArray[np.uint64], Floats, Ids]:
        """All vectors within ``thresh``, as of a flat index: no list is left out."""
        self._share(params)
        self._make_leaves()
        return super().range_search(x, thresh, params=params)

    def make_direct_map(self, new_maintain_direct_map: bool = True) -> None:
        """Do nothing: every vector is found by its id."""

    def set_direct_map_type(self, type: int) -> None:
        """Do nothing: every vector is found by its id."""

    def reconstruct_n(self, n0: int = 0, ni: int = -1, x: Floats | None = None) -> Floats:
        """The ``ni`` vectors from id ``n0`` on; -1: as many as there are behind it."""
        count = self.ntotal - n0 if ni == -1 else ni
        return into(x, self.reconstruct_batch(np.arange(n0, n0 + count)), "x")

    def merge_from(self, otherIndex: IndexIVFFlat, add_id: int = 0) -> None:
        """Append the vectors of another index of the same kind, with ``add_id`` added to their
        ids, and empty that one.
        """
        self.check_compatible_for_merge(otherIndex)
        vectors = otherIndex.exact.get(otherIndex.exact.ids)
        self._append(vectors, otherIndex._ids() + add_id)
        otherIndex.reset()

    def check_compatible_for_merge(self, otherIndex: IndexIVFFlat) -> None:
        """Raise unless the other's vectors can be appended."""
        if not isinstance(otherIndex, IndexIVFFlat) or otherIndex is self:
            raise RuntimeError(f"wants another IndexIVFFlat of this module, got {otherIndex!r}")
        ours, others = ((index.d, index.metric_type, index.nlist) for index in (self, otherIndex))
        if ours != others:
            raise RuntimeError(f"dimension, metric and nlist must be {ours}, got {others}")

    def _append(self, matrix: Floats, ids: Ids) -> None:
        self._want_training()
        self._table.reserve(len(ids))
        numbers = self._exact.add(matrix)
        assert len(ids) == 0 or numbers[0] == len(self._table)
        self._table.append(ids)
        self._stored, self._live = self._stored + len(ids), None

    def _found(self, queries: Floats, k: int, params: Any) -> Hits:
        self._want_training()
        nprobe, where = self._share(params), self._allowed(params)
        self._make_leaves()
        if nprobe >= self.nlist:
            return self._exact.search(queries, k, where=where)
        probes = max(1, -(-self.leaves * nprobe // self.nlist))
        return self._exact.search(queries, k, where=where, probes=probes)

    def _share(self, params: Any) -> int:
        """How many of ``nlist`` this search reads."""
        if params is not None and not isinstance(params, SearchParametersIVF):
            raise RuntimeError(
                f"params of an IVF index must be SearchParametersIVF, got {params!r}"
            )
        nprobe = self._nprobe if params is None else params.nprobe
        if nprobe < 1:
            raise RuntimeError(f"nprobe must be at least 1, got {nprobe}")
        return nprobe

    def _make_leaves(self) -> None:
        """Make leaves if many vectors are in none, and have not been looked at either."""
        if len(self._table) <= (1 + AGAIN) * self._judged:
            return
        with self._making:
            n = len(self._table)
            if n > (1 + AGAIN) * self._judged:
                self._exact.optimize()
                self._judged = n

    def _want_training(self) -> None:
        if not self.is_trained:
            raise RuntimeError("the index is not trained; call train first")

    def _living(self) -> IdTable:
        live = self._live
        if live is None:
            live = self._live = IdTable(self._ids())
        return live

    def _ids(self) -> Ids:
        return self._named(self._exact.ids)

    def _named(self, numbers: Ids) -> Ids:
        return self._table.ids[numbers]

    def _numbers(self, keys: Ids) -> Ids:
        return self._exact.ids[self._living().last(keys)]

    def _drop(self, gone: Mask) -> None:
        """Those behind them keep their numbers, so that leaves stay."""
        self._exact.remove(self._exact.ids[gone])
        self._live = None
        if 2 * len(self._exact) < self._stored:
            self._exact.compact()
            self._stored = len(self._exact)
