"""From ``where`` and ``exclude`` to row masks: the rows that a search may return.

A mask has a word of 64 bits for each strip of 64 rows; the scan passes over strips without an
allowed row. ``csrc/cpu/mask.cpp`` fills the words. If booleans for each query allow many rows, the
CPU's scan reads them where they are, and no words are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._backends.snapshot import Bits, Mask, Snapshot
from fastretrieve._common.arguments import shown
from fastretrieve._common.arrays import address
from fastretrieve._state.ids import MAX_ID
from fastretrieve._state.segments import Segment
from fastretrieve._state.state import State

SAMPLES, MANY = 64, 0.25  # booleans sampled for a query, and the share of them that counts as many
MAX_MASK_BYTES = 64 << 20  # of masks for each query, made for some queries at a time


def masked(
    state: State, where: Any, exclude: Any, n_queries: int
) -> Iterator[tuple[int, int, Snapshot]]:
    """The state behind its masks, for queries ``begin`` to ``end``: all of them at once, unless
    each has masks of its own and these are large.
    """
    parts = [
        (as_filter(given, name, n_queries, len(state)), allow)
        for given, name, allow in ((where, "where", True), (exclude, "exclude", False))
        if given is not None
    ]
    step = max(n_queries, 1)
    if any(len(array) > 1 for array, _ in parts):
        bytes_per_query = 8 * sum(n_words(segment) for segment in state.segments)
        if state.order is not None:
            bytes_per_query = max(bytes_per_query, len(state))  # booleans, put in order
        step = min(step, max(MAX_MASK_BYTES // max(bytes_per_query, 1), 1))
    for begin in range(0, max(n_queries, 1), step):
        end = min(begin + step, n_queries)
        here = [
            (_in_row_order(state, a[begin:end] if len(a) > 1 else a), allow) for a, allow in parts
        ]
        yield begin, end, _in_place(state, here) or _segments(state, here)


def as_filter(given: Any, name: str, n_queries: int, n_rows: int) -> NDArray[Any]:
    """Booleans [1 or n_queries, n_rows], or int64 ids [1 or n_queries, any number]."""
    array = _as_array(given, name)
    if array.ndim == 2 and len(array) != n_queries:
        raise ValueError(
            f"{name} with two dimensions must have one row for each of {n_queries} queries, "
            f"got {len(array)}"
        )
    rows = np.atleast_2d(array)
    if array.dtype == np.bool_:
        if rows.shape[1] != n_rows:
            raise ValueError(
                f"{name} as a mask must have one boolean for each of the {n_rows} rows of the "
                f"index, in the order of index.ids, got {rows.shape[1]}; or give the ids of rows"
            )
        return rows if rows.strides[1] == 1 or n_rows <= 1 else rows.copy()
    if rows.shape[1] == n_rows > 2 and int(rows.min()) >= 0 and int(rows.max()) <= 1:
        raise ValueError(
            f"{name} holds {n_rows} zeros and ones, one for each row of the index: a mask must be "
            f"of booleans, and integers are ids; call .astype(bool)"
        )
    return _as_id_rows(rows, name)


def _in_row_order(state: State, array: NDArray[Any]) -> NDArray[Any]:
    """A mask over the ids as they were added as one over the rows as they lie; ids as they are."""
    if array.dtype != np.bool_ or state.order is None:
        return array
    mask = np.empty(array.shape, np.bool_)
    mask[:, state.order] = array
    return mask


def _as_array(given: Any, name: str) -> NDArray[Any]:
    """Booleans or integers, with one dimension or two."""
    try:
        array = given.detach().cpu().numpy() if hasattr(given, "detach") else np.asarray(given)
    except ValueError as error:
        raise ValueError(
            f"{name} must have rows of equal length; fill those of ids up with -1, got "
            f"{shown(given)}"
        ) from error
    if array.size == 0 and array.dtype.kind == "f":  # an empty list
        array = array.astype(np.int64)
    if array.dtype.kind not in "biu":
        raise TypeError(
            f"{name} must be booleans (a mask over index.ids) or integers (ids), as a list or an "
            f"array, got {shown(given)}"
        )
    if array.ndim == 0 and array.dtype.kind != "b":  # one id
        return array[None]
    if array.ndim not in (1, 2):
        raise ValueError(f"{name} must have one or two dimensions, got shape {array.shape}")
    return array


def _as_id_rows(rows: NDArray[Any], name: str) -> NDArray[np.int64]:
    if rows.size:
        if int(rows.max()) > MAX_ID:
            raise ValueError(f"{name} must hold ids of at most {MAX_ID}, got {rows.max()}")
        if int(rows.min()) < -1:
            raise ValueError(
                f"{name} must hold ids of 0 or more (or -1 for none), got {rows.min()}"
            )
    return np.ascontiguousarray(rows, dtype=np.int64)


def _in_place(state: State, parts: list[tuple[NDArray[Any], bool]]) -> Snapshot | None:
    """The state behind booleans that the scan reads where they are, if it can. That saves making
    words, but the scan cannot skip empty strips: it is faster only if many rows are allowed.
    """
    (array, allow), *others = parts
    if others or not allow or array.dtype != np.bool_ or len(array) < 2 or not array.size:
        return None
    if not state.form.backend.reads_booleans or any(
        segment.live is not None for segment in state.segments
    ):
        return None
    if array[:, :: -(-array.shape[1] // SAMPLES)].mean() < MANY:
        return None
    starts = np.cumsum([0, *(segment.n_rows for segment in state.segments[:-1])])
    strides = [array.strides[0]] * len(state.segments)
    addresses = [address(array) + int(start) for start in starts]
    return state.snapshot.masked(addresses, strides, Mask(booleans=array), ())


def _segments(state: State, parts: list[tuple[NDArray[Any], bool]]) -> Snapshot:
    words = [np.zeros((1, n_words(segment)), np.uint64) for segment in state.segments]
    for i, (array, allow) in enumerate(parts):
        for v, marked in enumerate(_marked(state, array)):
            bits = marked if allow else ~marked
            words[v] = bits if i == 0 else words[v] & bits
    strides = [w.shape[1] if len(w) > 1 else 0 for w in words]
    placed = [state.form.memory.placed(w) for w in words]
    return state.snapshot.masked([address(w) for w in placed], strides, Mask(words), placed)


def _marked(state: State, array: NDArray[Any]) -> Iterator[Bits]:
    """Words for each segment, with a bit for every row of the mask or the ids."""
    if array.dtype == np.bool_:
        begin = 0
        for segment in state.segments:
            words = np.empty((len(array), n_words(segment)), np.uint64)
            _core.pack_mask(
                array,
                begin=begin,
                n_live=segment.n_live,
                n_rows=segment.n_rows,
                live=address(segment.live),
                words=words,
            )
            begin += segment.n_live
            yield words
        return
    slots: NDArray[np.int64] | None = None
    for segment in state.segments:
        words = np.zeros((len(array), n_words(segment)), np.uint64)
        numbers, first = array, segment.slab.first_id
        if segment.slab.ids is not None:
            if slots is None:
                slots = state.id_map.find(array.ravel()).reshape(array.shape)
            numbers, first = slots, segment.slab.slot
        _core.mark_rows(numbers, first=first, n_rows=segment.n_rows, words=words)
        yield words


def n_words(segment: Segment) -> int:
    """Words of 64 bits for the rows of a segment."""
    return -(-segment.n_rows // 64)
