"""The CPU backend as the rest of the package sees it: the core's calls, on NumPy arrays.

What is added to the core's class is what ``backend.py`` asks for and the CPU does without: it has
no memory of its own to move things to, and a search needs no preparation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve.arrays import Rows, as_rows
from fastretrieve.backend import Ranges
from fastretrieve.checking import refuse_doubtful
from fastretrieve.memory import HOST, HostMemory


class CpuBackend(_core.CpuBackend):
    """Exact search on the CPU, by the kernels of one instruction set: by default the best, or what
    ``FASTRETRIEVE_ISA`` names.
    """

    memory: HostMemory = HOST
    reads_booleans = True

    def counters(self) -> _core.Counters:
        """Counters for the searches of an index."""
        return _core.Counters()

    def as_rows(self, array: Any, *, name: str, dim: int | None = None) -> Rows:
        """Rows as :func:`fastretrieve.arrays.as_rows` returns them."""
        return as_rows(array, name=name, dim=dim)

    def refuse_not_finite(self, rows: Rows) -> None:
        """Nothing: every search refuses them."""

    def search(
        self,
        queries: Any,
        segments: _core.Segments,
        k: int,
        counters: _core.Counters,
        float64: bool,
        *,
        workspace: Any = None,
        out: tuple[NDArray[Any], NDArray[Any]] | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Scores and ids of the best ``k`` rows, in ``out`` where that is given."""
        found = _search(self, queries, segments, k, counters, float64)
        notes = segments.notes
        if notes is not None and notes.doubtful:
            refuse_doubtful(notes, *found)
        if out is None:
            return found
        out[0][...], out[1][...] = found
        return out

    def range(self, *asked: Any, **options: Any) -> Ranges | None:
        """Everything within a radius."""
        found = super().range(*asked, **options)
        notes = asked[1].notes
        if found is not None and notes is not None and notes.doubtful:
            refuse_doubtful(notes, *found[1:])
        return found

    def workspace(self, segments: _core.Segments, n_queries: int, k: int) -> NDArray[np.uint8]:
        """None: a thread has memory of its own for its part of a search."""
        return np.empty(0, np.uint8)

    def prepare(self, segments: _core.Segments) -> None:
        """Nothing is kept with segments."""

    def plan(self, segments: _core.Segments, n_queries: int, k: int) -> str:
        """How a search of this size is shared out: panels of queries, chunks of rows."""
        return _core.cpu_plan(n_queries, segments.n_strips, segments.dim, _core.num_threads())


_search = _core.CpuBackend.search  # looked up once: the call is a hundredth of a small search
