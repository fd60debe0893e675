"""The ids that a user gave to vectors, by the numbers that vectors have here."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastretrieve.compat.flat.selectors import Ids


class IdTable:
    """The id of every number; several numbers may share one.

    >>> table = IdTable()
    >>> table.append(np.array([70, 30, 70]))
    >>> table.last(np.array([30, 70]))
    array([1, 2])
    """

    def __init__(self, ids: Ids | None = None) -> None:
        # Grows by doubling, so that one id costs little.
        self._memory: Ids = np.zeros(0, np.int64) if ids is None else ids
        self._n = len(self._memory)
        self._order: Ids | None = None  # numbers, in order of their ids; made when it is asked for

    def __len__(self) -> int:
        return self._n

    @property
    def ids(self) -> Ids:
        """The ids, in the order of the numbers."""
        return self._memory[: self._n]

    def reserve(self, n_more: int) -> None:
        """Make room, so that :meth:`append` cannot fail."""
        n = self._n + n_more
        if n > len(self._memory):
            grown = np.empty(max(n, 2 * len(self._memory)), np.int64)
            grown[: self._n] = self.ids
            self._memory = grown

    def append(self, ids: Ids) -> None:
        """Give the next numbers these ids."""
        self.reserve(len(ids))
        self._memory[self._n : self._n + len(ids)] = ids
        self._n, self._order = self._n + len(ids), None

    def last(self, keys: Ids) -> Ids:
        """The last number with each id, as FAISS takes it; an unknown id is an error."""
        if self._order is None:
            self._order = np.argsort(self.ids, kind="stable")
        behind = np.searchsorted(self.ids, keys, side="right", sorter=self._order)
        known = behind > 0
        numbers = np.full(len(keys), -1, np.int64)
        numbers[known] = self._order[behind[known] - 1]
        known[known] = self.ids[numbers[known]] == keys[known]
        if not known.all():
            raise RuntimeError(f"key {keys[~known][0]} not found among {self._n} vectors")
        return numbers


def given_ids(ids: Any, n_vectors: int) -> Ids:
    """The ids that a user gives to so many vectors."""
    given = np.asarray(ids)
    if given.size and given.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers, got dtype {given.dtype}")
    if given.shape != (n_vectors,):
        raise AssertionError(
            f"there must be one id for each vector, got {given.shape} ids for {n_vectors}"
        )
    return given.astype(np.int64, copy=False)
