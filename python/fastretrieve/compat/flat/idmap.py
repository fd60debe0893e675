"""Flat indexes whose vectors have ids of the user's own: FAISS's ``IndexIDMap``."""

from __future__ import annotations

from typing import Any

from fastretrieve.compat.flat.idtable import IdTable, given_ids
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
            raise TypeError(
                f"wants one of the flat indexes of this module, got {index!r}; an IndexIVFFlat "
                f"has add_with_ids itself"
            )
        if index.ntotal:
            raise RuntimeError(f"index must be empty on input, it has {index.ntotal} vectors")
        super().__init__(index.d, index.metric_type)
        self.index = index
        self._table = IdTable()

    @property
    def exact(self) -> ExactIndex:
        """The index that does the work; its ids are the numbers of the vectors."""
        return self.index.exact

    @property
    def id_map(self) -> Ids:
        """The id of every vector, in the order in which they were added."""
        return self._table.ids

    def reset(self) -> None:
        """Remove all vectors."""
        self.index.reset()
        self._table = IdTable()

    def add(self, x: Any) -> None:
        """Not for this index, as in FAISS."""
        raise RuntimeError("add does not make sense with IndexIDMap, use add_with_ids")

    def add_with_ids(self, x: Any, ids: Any) -> None:
        """Add vectors under these ids."""
        matrix = self._matrix(x)
        given = given_ids(ids, len(matrix))
        self._table.reserve(len(given))
        self.index.add(matrix)
        self._table.append(given)

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
        return self._table.last(keys)

    def _drop(self, gone: Mask) -> None:
        kept = self.id_map[~gone]
        self.index._drop(gone)
        self._table = IdTable(kept)


class IndexIDMap2(IndexIDMap):
    """The same here; in FAISS the one that can reconstruct."""
