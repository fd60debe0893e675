"""Answers that cannot be true: a search of unverified rows that found odd scores or too few rows.

``_state/checking.py`` describes the faults of files. Only ``Index.load(verify="codes")``
finds wrong codes and screens that hide rows behind others.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fastretrieve._backends.snapshot import Mask, Snapshot
from fastretrieve._common.arrays import unpack
from fastretrieve._common.errors import StorageError
from fastretrieve._state.checking import finite_rows, first_fault, row_fault
from fastretrieve._state.segments import Segment
from fastretrieve._state.slabs import STRIP_ROWS

SMALL = 64  # scores


def refuse_doubtful(
    snapshot: Snapshot,
    scores: NDArray[Any],
    ids: NDArray[np.int64],
    *,
    is_complete: bool = True,
) -> None:
    """Raise if results of unverified rows cannot be true: rows that are not finite have odd scores,
    and wrong codes or screens may hide rows, so that too few are found. Only a complete search, of
    all rows, must find as many as there are.
    """
    if scores.size <= SMALL:  # in a third of the time that NumPy takes for so few
        values = scores.ravel().tolist()
        total = sum(values)
        if total - total == 0 and not (snapshot.metric == "cosine" and 0.0 in values):
            return
    odd = ~np.isfinite(scores)
    if snapshot.metric == "cosine":  # of a norm that is not a number
        odd |= scores == 0
    if not odd.any():
        return
    suspects = np.unique(ids[odd & (ids >= 0)])  # some are innocent: float32 may overflow
    for segment in _segments(snapshot) if len(suspects) else ():
        if not segment.slab.is_finite:
            for row in _rows_of(segment, suspects).tolist():
                finite_rows(segment, row, row + 1)
    if is_complete and scores.ndim == 2 and _lacks_rows(snapshot, ids):
        _raise_cause(snapshot)


def _rows_of(segment: Segment, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of a segment that have one of these ids."""
    if segment.slab.ids is None:
        rows: NDArray[np.int64] = ids - segment.slab.first_id
        return rows[(rows >= 0) & (rows < segment.n_rows)]
    return np.flatnonzero(np.isin(segment.row_ids(), ids))


def _lacks_rows(snapshot: Snapshot, ids: NDArray[np.int64]) -> bool:
    """Whether a query found fewer rows than it may."""
    lacking = np.flatnonzero((ids < 0).any(axis=1))
    if not len(lacking):
        return False
    found = (ids[lacking] >= 0).sum(axis=1)
    allowed = np.array(
        [_n_allowed(snapshot, int(q)) for q in lacking[: _one_mask(snapshot, lacking)]]
    )
    return bool((found < np.minimum(allowed, ids.shape[1])).any())


def _one_mask(snapshot: Snapshot, lacking: NDArray[np.int64]) -> int:
    """How many of these queries to count allowed rows for: one, if all share a mask."""
    mask = snapshot.mask or Mask()
    if mask.booleans is not None or any(len(words) > 1 for words in mask.words or ()):
        return len(lacking)
    return 1


def _n_allowed(snapshot: Snapshot, query: int) -> int:
    mask = snapshot.mask or Mask()
    if mask.booleans is not None:
        return int(np.count_nonzero(mask.booleans[query]))
    if mask.words is None:
        return sum(segment.n_live for segment in _segments(snapshot))
    total = 0
    for segment, words in zip(_segments(snapshot), mask.words, strict=True):
        bits = words[query if len(words) > 1 else 0].copy()
        if segment.live is not None:
            bits &= segment.live[: len(bits)]
        if segment.n_rows % 64:
            bits[-1] &= np.uint64((1 << segment.n_rows % 64) - 1)
        some = bits[bits != 0]
        total += int(np.count_nonzero(unpack(some, 64 * len(some))))
    return total


def _raise_cause(snapshot: Snapshot) -> None:
    """Check every unverified row, code and screen, and raise for the first that is wrong."""
    segments = _segments(snapshot)
    for segment in segments:
        if segment.slab.is_finite and segment.slab.has_own_codes:
            continue
        fault = first_fault(segment, codes=True)
        if fault.row >= 0:
            raise row_fault(int(segment.row_ids()[fault.row]))
        if fault.code >= 0:
            first = fault.code // segment.slab.form.strip_bytes * STRIP_ROWS
            ids = segment.row_ids()[first : first + STRIP_ROWS].tolist()
            raise StorageError(
                f"the codes of 64 rows (the first has id {ids[0]}) are not those of their vectors, "
                f"so that a search misses rows; load their file with verify='codes', replace it, "
                f"or let compact() make the codes anew"
            )
    backend, screen = segments[0].slab.form.backend, snapshot.screen
    if screen and (position := screen.first_wrong(backend, snapshot.native)) >= 0:
        raise StorageError(
            f"the screen at its position {position} is not that of a vector of the index, so that "
            f"a search misses rows; load its file with verify='codes', replace it, or let "
            f"optimize() make the screen anew"
        )
    raise RuntimeError("a search found fewer rows than there are; please report this")


def _segments(snapshot: Snapshot) -> tuple[Segment, ...]:
    return cast("tuple[Segment, ...]", snapshot.segments)
