"""FAISS's selectors of vectors, for ``remove_ids`` and for searches among them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]


class IDSelector(ABC):
    """Says of every id whether it is selected. ``~a``, ``a & b`` and the like do not exist, as in
    FAISS: there are classes for them.
    """

    @abstractmethod
    def chosen(self, ids: Ids) -> Mask:
        """Which of ``ids`` are selected."""

    def is_member(self, id: int) -> bool:
        """Whether this id is selected."""
        return bool(self.chosen(np.array([id]))[0])


class IDSelectorAll(IDSelector):
    """Every id."""

    def chosen(self, ids: Ids) -> Mask:
        """Which of ``ids`` are selected."""
        return np.ones(len(ids), dtype=bool)


class IDSelectorArray(IDSelector):
    """The ids of a list.

    >>> IDSelectorArray([3, 5]).chosen(np.arange(6)).tolist()
    [False, False, False, True, False, True]
    """

    def __init__(self, indices: Any) -> None:
        array = np.asarray(indices)
        if array.size and array.dtype.kind not in "iu":
            raise TypeError(f"ids must be integers, got dtype {array.dtype}")
        self.ids: Ids = array.reshape(-1).astype(np.int64)

    def chosen(self, ids: Ids) -> Mask:
        """Which of ``ids`` are selected."""
        return np.isin(ids, self.ids)


class IDSelectorBatch(IDSelectorArray):
    """The same: in FAISS the one that is quicker for long lists."""


class IDSelectorRange(IDSelector):
    """Ids from ``imin`` up to, and without, ``imax``."""

    def __init__(self, imin: int, imax: int, assume_sorted: bool = False) -> None:
        self.imin, self.imax, self.assume_sorted = imin, imax, assume_sorted

    def chosen(self, ids: Ids) -> Mask:
        """Which of ``ids`` are selected."""
        return (ids >= self.imin) & (ids < self.imax)


class IDSelectorBitmap(IDSelector):
    """The ids whose bits are set: that of id ``i`` is bit ``i % 8`` of byte ``i // 8``.

    >>> IDSelectorBitmap(np.array([0b101], np.uint8)).chosen(np.arange(10)).nonzero()
    (array([0, 2]),)
    """

    def __init__(self, bitmap: Any) -> None:
        array = np.asarray(bitmap)
        if array.dtype != np.uint8 or array.ndim != 1:
            raise TypeError(
                f"a bitmap must be uint8 with one dimension, got {array.dtype} {array.shape}; "
                f"np.packbits(mask, bitorder='little') makes one of booleans"
            )
        self.bitmap: NDArray[np.uint8] = array

    def chosen(self, ids: Ids) -> Mask:
        """Which of ``ids`` are selected."""
        inside = (ids >= 0) & (ids < 8 * len(self.bitmap))
        at = np.where(inside, ids, 0)
        if not inside.any():
            return inside
        bits = self.bitmap[at >> 3] >> (at & 7).astype(np.uint8)
        return np.asarray(inside & (bits & 1 == 1))


class IDSelectorNot(IDSelector):
    """The ids that the other does not select."""

    def __init__(self, sel: IDSelector) -> None:
        self.sel = sel

    def chosen(self, ids: Ids) -> Mask:
        """Which of ``ids`` are selected."""
        return ~self.sel.chosen(ids)


class _Two(IDSelector):
    def __init__(self, lhs: IDSelector, rhs: IDSelector) -> None:
        self.lhs, self.rhs = lhs, rhs


class IDSelectorAnd(_Two):
    """The ids that both select."""

    def chosen(self, ids: Ids) -> Mask:
        """Which of ``ids`` are selected."""
        return self.lhs.chosen(ids) & self.rhs.chosen(ids)


class IDSelectorOr(_Two):
    """The ids that at least one selects."""

    def chosen(self, ids: Ids) -> Mask:
        """Which of ``ids`` are selected."""
        return self.lhs.chosen(ids) | self.rhs.chosen(ids)


class IDSelectorXOr(_Two):
    """The ids that exactly one selects."""

    def chosen(self, ids: Ids) -> Mask:
        """Which of ``ids`` are selected."""
        return self.lhs.chosen(ids) ^ self.rhs.chosen(ids)


class SearchParameters:
    """Options of a single search: the vectors to search among."""

    def __init__(self, sel: IDSelector | None = None) -> None:
        if sel is not None and not isinstance(sel, IDSelector):
            raise TypeError(f"sel must be an IDSelector of this module, got {sel!r}")
        self.sel = sel
