"""What a file may say that is not so: rows that are not finite, codes that are not those of rows.

Rows that were added are finite and codes are made of them, so nothing is checked twice. Of a file
that was loaded without ``verify`` neither is known, and looking would be to read it all. Whoever
meets a row that is not finite names its id; a search whose answer cannot be true looks for the
cause. Wrong codes that hide rows behind others are found by ``Index.load(verify="codes")`` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve.arrays import Rows, not_finite
from fastretrieve.segments import STRIP_ROWS, Notes, View, new_block, unpack
from fastretrieve.tensorfile import StorageError

PART_BYTES = 16 << 20
SMALL = 64  # scores
Tell = Callable[[int], object]  # how many rows more are done


class Fault(NamedTuple):
    """The first thing that is wrong with the rows of a block; -1 for none."""

    row: int = -1  # that is not finite
    code: int = -1  # the byte of the codes that is not what encoding gives


def first_fault(view: View, *, codes: bool, tell: Tell | None = None) -> Fault:
    """Look at all rows of a view and, with ``codes``, encode them again to compare every bit.

    The core's threads do both, for some megabytes at a time.
    """
    form, block = view.block.form, view.block
    step = max(PART_BYTES // form.row_bytes // STRIP_ROWS, 1) * STRIP_ROWS
    capacity = min(step, max(view.n_rows, 1))
    staging = new_block(form, capacity, slot=0, first_id=0, own_ids=False)
    for begin in range(0, view.n_rows, step):
        end = min(begin + step, view.n_rows)
        if staging.write(block.rows[begin:end], _NO_IDS, 0) >= 0:
            bad = begin + not_finite(block.rows[begin:end])
            if len(bad := bad[view.alive(bad)]):
                return Fault(row=int(bad[0]))
        first, last = begin // STRIP_ROWS, min(end // STRIP_ROWS, view.n_strips)
        if codes and last > first:
            staging.encode(0, (last - first) * STRIP_ROWS)
            to_host = form.memory.to_host
            ours, theirs = to_host(staging.codes[: last - first]), to_host(block.codes[first:last])
            if not _are_equal(ours, theirs):
                byte = int(np.argmax(ours.reshape(-1) != theirs.reshape(-1)))
                return Fault(code=first * form.strip_bytes + byte)
        if tell is not None:
            tell(end - begin)
    return Fault()


def row_fault(row_id: int) -> StorageError:
    """The error for a row that is not finite."""
    return StorageError(
        f"the row with id {row_id} holds a value that is not finite, which no index writes: its "
        f"file was damaged or made by something else; replace the file, or remove([{row_id}])"
    )


def finite_rows(view: View, begin: int, end: int) -> Rows:
    """These rows. One that came from a file that nobody checked and is not finite is an error, or
    comes as zeros where it was removed.
    """
    rows: Rows = view.block.rows[begin:end]
    if view.block.is_finite or not len(bad := not_finite(rows)):
        return rows
    alive = bad[view.alive(begin + bad)]
    if len(alive):
        raise row_fault(int(view.row_ids()[begin + alive[0]]))
    rows = rows.copy()
    rows[bad] = 0
    return rows


def refuse_doubtful(notes: Notes, scores: NDArray[Any], ids: NDArray[np.int64]) -> None:
    """Raise where results of unverified rows cannot be true: rows that are not finite have odd
    scores, and where codes lie there may be fewer rows than there are.
    """
    if scores.size <= SMALL:  # in a third of the time that NumPy takes for so few
        values = scores.ravel().tolist()
        total = sum(values)
        if total - total == 0 and not (notes.metric == "cosine" and 0.0 in values):
            return
    odd = ~np.isfinite(scores)
    if notes.metric == "cosine":  # of a norm that is not a number
        odd |= scores == 0
    if not odd.any():
        return
    suspects = np.unique(ids[odd & (ids >= 0)])  # some are innocent: float32 may overflow
    for view in notes.views if len(suspects) else ():
        if not view.block.is_finite:
            for row in _rows_of(view, suspects).tolist():
                finite_rows(view, row, row + 1)
    if scores.ndim == 2 and _lacks_rows(notes, ids):
        _raise_cause(notes.views)


def _rows_of(view: View, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of a view that have one of these ids."""
    if view.block.ids is None:
        rows: NDArray[np.int64] = ids - view.block.first_id
        return rows[(rows >= 0) & (rows < view.n_rows)]
    return np.flatnonzero(np.isin(view.row_ids(), ids))


def _are_equal(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    if a.strides == b.strides and a.flags.c_contiguous and b.flags.aligned:
        a, b = a.view(np.int32), b.view(np.int32)  # a strip is whole numbers of them
    return bool(np.array_equal(a, b))


def _lacks_rows(notes: Notes, ids: NDArray[np.int64]) -> bool:
    """Whether a query found fewer rows than it may."""
    lacking = np.flatnonzero((ids < 0).any(axis=1))
    if not len(lacking):
        return False
    found = (ids[lacking] >= 0).sum(axis=1)
    allowed = np.array([_n_allowed(notes, int(q)) for q in lacking[: _one_mask(notes, lacking)]])
    return bool((found < np.minimum(allowed, ids.shape[1])).any())


def _one_mask(notes: Notes, lacking: NDArray[np.int64]) -> int:
    """How many of these queries have masks of their own; of the others one counts for all."""
    if notes.booleans is not None or any(len(words) > 1 for words in notes.words or ()):
        return len(lacking)
    return 1


def _n_allowed(notes: Notes, query: int) -> int:
    if notes.booleans is not None:
        return int(np.count_nonzero(notes.booleans[query]))
    if notes.words is None:
        return sum(view.n_live for view in notes.views)
    total = 0
    for view, words in zip(notes.views, notes.words, strict=True):
        bits = words[query if len(words) > 1 else 0].copy()
        if view.live is not None:
            bits &= view.live[: len(bits)]
        if view.n_rows % 64:
            bits[-1] &= np.uint64((1 << view.n_rows % 64) - 1)
        some = bits[bits != 0]
        total += int(np.count_nonzero(unpack(some, 64 * len(some))))
    return total


def _raise_cause(views: tuple[View, ...]) -> None:
    """Look at every row and code that nobody checked, and raise for the first that is wrong."""
    for view in views:
        if view.block.is_finite and view.block.has_own_codes:
            continue
        fault = first_fault(view, codes=True)
        if fault.row >= 0:
            raise row_fault(int(view.row_ids()[fault.row]))
        if fault.code >= 0:
            first = fault.code // view.block.form.strip_bytes * STRIP_ROWS
            ids = view.row_ids()[first : first + STRIP_ROWS].tolist()
            raise StorageError(
                f"the codes of 64 rows (the first has id {ids[0]}) are not those of their vectors, "
                f"so that a search misses rows; load their file with verify='codes', replace it, "
                f"or let compact() make the codes anew"
            )
    raise RuntimeError("a search found fewer rows than there are; please report this")


_NO_IDS = np.zeros(0, np.int64)
