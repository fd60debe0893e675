"""Flat indexes whose vectors have ids of the user's own: FAISS's ``IndexIDMap``."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastretrieve.compat.flat.indexes import Index, IndexFlat
from fastretrieve.compat.flat.selectors import Ids, Mask
from fastretrieve.index import Index as ExactIndex


class IndexIDMap(Index):
    """Vectors with ids of the user's own: any integers, several vectors may share one.

    >>> index = IndexIDMap(IndexFlat(1))
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
        self._memory: Ids = np.zeros(0, np.int64)  # grows by doubling, so that one id costs little
        self._n_ids = 0
        self._order: Ids | None = None  # numbers, in order of their ids; made when it is asked for

    @property
    def exact(self) -> ExactIndex:
        """The index that does the work; its ids are the numbers of the vectors."""
        return self.index.exact

    @property
    def id_map(self) -> Ids:
        """The id of every vector, in the order in which they were added."""
        return self._memory[: self._n_ids]

    def reset(self) -> None:
        """Remove all vectors."""
        self.index.reset()
        self._own(np.zeros(0, np.int64))

    def add(self, x: Any) -> None:
        """Not for this index, as in FAISS."""
        raise RuntimeError("add does not make sense with IndexIDMap, use add_with_ids")

    def add_with_ids(self, x: Any, ids: Any) -> None:
        """Add vectors under these ids."""
        matrix, given = self._matrix(x), np.asarray(ids)
        if given.size and given.dtype.kind not in "iu":
            raise TypeError(f"ids must be integers, got dtype {given.dtype}")
        if given.shape != (len(matrix),):
            raise AssertionError(
                f"there must be one id for each vector, got {given.shape} ids for {len(matrix)}"
            )
        n = self._n_ids + len(given)
        if n > len(self._memory):
            grown = np.empty(max(n, 2 * len(self._memory)), np.int64)
            grown[: self._n_ids] = self.id_map
            self._memory = grown
        self._memory[self._n_ids : n] = given
        self.index.add(matrix)
        self._n_ids, self._order = n, None

    def merge_from(self, otherIndex: IndexIDMap, add_id: int = 0) -> None:
        """Append the vectors of another index of the same kind, with ``add_id`` added to their
        ids, and empty that one.
        """
        if not isinstance(otherIndex, IndexIDMap) or otherIndex is self:
            raise RuntimeError(f"wants another IndexIDMap of this module, got {otherIndex!r}")
        self.index.check_compatible_for_merge(otherIndex.index)
        self.add_with_ids(otherIndex.index.reconstruct_n(), otherIndex.id_map + add_id)
        otherIndex.reset()

    def _ids(self) -> Ids:
        return self.id_map

    def _named(self, numbers: Ids) -> Ids:
        return self.id_map[numbers]

    def _numbers(self, keys: Ids) -> Ids:
        """Of several vectors with one id it means the last, as in FAISS."""
        if self._order is None:
            self._order = np.argsort(self.id_map, kind="stable")
        behind = np.searchsorted(self.id_map, keys, side="right", sorter=self._order)
        known = behind > 0
        numbers = np.full(len(keys), -1, np.int64)
        numbers[known] = self._order[behind[known] - 1]
        known[known] = self.id_map[numbers[known]] == keys[known]
        if not known.all():
            raise RuntimeError(f"key {keys[~known][0]} not found among {self.ntotal} vectors")
        return numbers

    def _drop(self, gone: Mask) -> None:
        kept = self.id_map[~gone]
        self.index._drop(gone)
        self._own(kept)

    def _own(self, ids: Ids) -> None:
        """Let the vectors have these ids."""
        self._memory, self._n_ids, self._order = ids, len(ids), None


class IndexIDMap2(IndexIDMap):
    """The same here; in FAISS the one that can reconstruct."""
