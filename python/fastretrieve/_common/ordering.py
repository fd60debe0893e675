"""Sorting, gathering and converting that Ctrl-C can stop.

NumPy sorts ten million numbers in one call of a second, which no signal interrupts. Here they are
sorted in pieces, and Python handles signals between pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
T = TypeVar("T", bound=np.generic)

PIECE = 1 << 18  # numbers: some 20 ms to sort
PIECE_BYTES = 16 << 20


def order_of(keys: Int64s, *, piece: int = PIECE) -> Int64s:
    """The order that sorts the keys; equal ones stay as they were.

    >>> order_of(np.array([5, 1, 5, 0]), piece=2)
    array([3, 1, 0, 2])
    """
    if len(keys) <= piece:
        return np.argsort(keys, kind="stable")
    orders = [
        begin + np.argsort(keys[begin:end], kind="stable") for begin, end in _cut(keys, piece)
    ]
    bounds = _bounds(keys, piece)
    ends = [[0, *np.searchsorted(keys[order], bounds), len(order)] for order in orders]
    result, at = np.empty(len(keys), np.int64), 0
    for i in range(len(bounds) + 1):
        near = [order[end[i] : end[i + 1]] for order, end in zip(orders, ends, strict=True)]
        some = np.concatenate(near)
        result[at : at + len(some)] = some[np.argsort(keys[some], kind="stable")]
        at += len(some)
    return result


def ordered(keys: Int64s, *, piece: int = PIECE) -> Int64s:
    """The keys in ascending order.

    >>> ordered(np.array([5, 1, 5, 0]), piece=2)
    array([0, 1, 5, 5])
    """
    if len(keys) <= piece:
        return np.sort(keys)
    parts = [np.sort(keys[begin:end]) for begin, end in _cut(keys, piece)]
    bounds = _bounds(keys, piece)
    ends = [[0, *np.searchsorted(part, bounds), len(part)] for part in parts]
    result, at = np.empty_like(keys), 0
    for i in range(len(bounds) + 1):
        some = np.concatenate(
            [part[end[i] : end[i + 1]] for part, end in zip(parts, ends, strict=True)]
        )
        result[at : at + len(some)] = np.sort(some)
        at += len(some)
    return result


def taken(array: NDArray[T], order: Int64s) -> NDArray[T]:
    """``array[order]``."""
    result = np.empty((len(order), *array.shape[1:]), array.dtype)
    for begin, end in _cut(order, max(PIECE_BYTES // max(result[:1].nbytes, 16), 1)):
        result[begin:end] = array[order[begin:end]]
    return result


def converted(array: NDArray[Any], dtype: type[T]) -> NDArray[T]:
    """The array as numbers of another type, adjacent in memory."""
    if array.nbytes <= PIECE_BYTES:
        return array.astype(dtype, order="C")
    result = np.empty(array.shape, dtype)
    for begin, end in pieces(array):
        result[begin:end] = array[begin:end]
    return result


def pieces(array: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Where parts of some megabytes begin and end."""
    return _cut(array, max(PIECE_BYTES // max(array[:1].nbytes, 1), 1))


def _cut(array: NDArray[T], piece: int) -> Iterator[tuple[int, int]]:
    return ((begin, min(begin + piece, len(array))) for begin in range(0, len(array), piece))


def _bounds(keys: Int64s, piece: int) -> Int64s:
    """Keys that cut all of them into groups of about a piece; equal keys share a group."""
    sample = np.sort(keys[:: max(piece // 256, 1)])
    return np.unique(sample[256::256])
