"""An immutable :class:`State`: all rows of an index and their ids at one moment.

One assignment publishes a state, and a search keeps the one it started with: that is how an index
changes while others search it. ``changes.py`` makes the next state.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._backends.snapshot import Snapshot
from fastretrieve._common.arrays import address
from fastretrieve._common.locks import once
from fastretrieve._common.ordering import order_of
from fastretrieve._state.ids import IdMap
from fastretrieve._state.screen import Screen, slots_of
from fastretrieve._state.segments import Segment
from fastretrieve._state.slabs import Format


class State:
    """All rows of an index and their ids at one moment."""

    def __init__(
        self,
        form: Format,
        segments: tuple[Segment, ...],
        id_map: IdMap,
        next_id: int,
        screen: Screen | None = None,
    ) -> None:
        self.form = form
        self.segments = segments
        self.id_map = id_map  # of the rows with ids of their own
        self.next_id = next_id  # the next automatic id
        self.screen = screen  # changes.py says what keeps it

    def __len__(self) -> int:
        return sum(segment.n_live for segment in self.segments)

    @once
    def snapshot(self) -> Snapshot:
        """The state as backends see it; made by the first search."""
        parts = [segment.part() for segment in self.segments]
        native = _core.Segments(self.form.metric, self.form.dim, [native for native, _ in parts])
        kept = [array for _, placed in parts for array in placed if array is not None]
        is_proved = all(segment.is_proved for segment in self.segments)
        if (screen := self._read_screen) is not None:
            covered = [screen.covered(segment) for segment in self.segments]
            addresses = [address(words) for words in covered]
            native = native.screened(screen.native, slots_of(self.segments), addresses)
            kept.append(screen)
            is_proved &= screen.is_proved
        return Snapshot(
            native,
            self.segments,
            self.form.metric,
            is_doubtful=self.form.backend.answers_at_once and not is_proved,
            screen=screen,
            kept=kept,
        )

    @once
    def optimized_rows(self) -> int:
        """How many rows a search judges by the screen first."""
        return 0 if self._read_screen is None else self._read_screen.n_live(self.segments)

    @property
    def _read_screen(self) -> Screen | None:
        return self.screen if self.form.backend.reads_screens else None

    def with_screen(self, screen: Screen | None) -> State:
        """The same rows with this screen."""
        return State(self.form, self.segments, self.id_map, self.next_id, screen)

    @once
    def order(self) -> NDArray[np.int64] | None:
        """The numbers of the live rows in the order in which their ids were first added; None if
        the rows lie in that order, as they do unless some were updated.
        """
        if all(segment.began is None for segment in self.segments):
            return None
        origins = self.listed(Segment.origins)
        return None if bool((origins[1:] > origins[:-1]).all()) else order_of(origins)

    def listed(self, of: Callable[[Segment], NDArray[np.int64]]) -> NDArray[np.int64]:
        """A number of each live row, in the order of the rows."""
        parts = [
            of(segment) if segment.live is None else of(segment)[segment.live_mask()]
            for segment in self.segments
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows (vectors, codes, ids, marks of removal) and of the screen."""
        total = 0 if self.screen is None else self.screen.nbytes
        for segment in self.segments:
            total += segment.n_rows * self.form.row_bytes + segment.n_strips * self.form.strip_bytes
            total += 8 * segment.n_rows if segment.slab.ids is not None else 0
            total += 8 * segment.n_rows if segment.began is not None else 0
            total += segment.live.nbytes if segment.live is not None else 0
        return total + self.id_map.nbytes
