"""``Snapshot``: the segments of an index as one search sees them.

It joins what the core reads with the Python objects behind it. It never changes, so any number of
threads and streams may search it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._backends.memory import Array

Bits = NDArray[np.uint64]  # bit r % 64 of word r // 64 belongs to row r


class SegmentView(Protocol):
    """A segment (``_state.segments.Segment``) as backends see it."""

    @property
    def n_rows(self) -> int:
        """Rows, removed ones included."""

    @property
    def rows(self) -> Array:
        """The memory of the rows."""

    @property
    def codes(self) -> Array:
        """The memory of their codes."""

    def row_ids(self) -> NDArray[np.int64]:
        """The id of every row."""

    def alive(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these rows have not been removed."""


class Mask(NamedTuple):
    """The rows that a search may return, in one of two forms."""

    words: list[Bits] | None = None  # [1 or n_queries, n_words] for each segment
    booleans: NDArray[np.bool_] | None = None  # [n_queries, n_rows], read where they are


class Snapshot:
    """Segments to search, perhaps behind a mask."""

    def __init__(
        self,
        native: _core.Segments,
        segments: Sequence[SegmentView],
        metric: str,
        *,
        is_doubtful: bool = False,
        mask: Mask | None = None,
        screen: Any = None,
        kept: Sequence[Any] = (),
    ) -> None:
        self.native = native
        self.segments = segments
        self.metric = metric
        self.mask = mask
        self.screen = screen  # what the search reads first: _state/screen.py
        self.kept = kept  # memory of the device that its kernels read
        self.is_doubtful = is_doubtful  # its answers are checked: _queries/doubting.py

    def masked(
        self, addresses: list[int], strides: list[int], mask: Mask, kept: Sequence[Any]
    ) -> Snapshot:
        """The same segments behind a mask, given by the address of its words for each segment."""
        is_bytes = mask.booleans is not None
        native = self.native.masked(addresses, strides, (kept, mask), is_bytes)
        return Snapshot(
            native,
            self.segments,
            self.metric,
            is_doubtful=self.is_doubtful,
            mask=mask,
            screen=self.screen,
            kept=[*self.kept, *kept],
        )
