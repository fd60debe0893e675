"""The CPU backend as the rest of the package sees it: the core's calls, on NumPy arrays.

It adds to the core's class of the same name the calls of ``interface.py`` that the CPU answers with
nothing: it has no memory of its own to move arrays to, and a search needs no preparation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._backends.interface import Pair, Ranges
from fastretrieve._backends.memory import HOST, Array, HostMemory
from fastretrieve._backends.snapshot import Snapshot
from fastretrieve._common.arrays import Rows, as_rows


class CpuBackend(_core.CpuBackend):
    """Exact search on the CPU, by the kernels of one instruction set: by default the best, or what
    ``FASTRETRIEVE_ISA`` names.
    """

    memory: HostMemory = HOST
    reads_booleans = True
    answers_at_once = True
    reads_screens = True

    def counters(self) -> _core.Counters:
        """Counters for the searches of an index."""
        return _core.Counters()

    def as_rows(self, array: Any, *, name: str, dim: int | None = None) -> Rows:
        """Rows as ``arrays.as_rows`` returns them."""
        return as_rows(array, name=name, dim=dim)

    def refuse_not_finite(self, rows: Rows) -> None:
        """Do nothing: every search refuses them."""

    def search(  # type: ignore[override]
        self,
        queries: Rows,
        snapshot: Snapshot,
        k: int,
        counters: Any,  # the core's, which it made itself
        float64: bool,
        *,
        workspace: Array | None = None,
        out: Pair | None = None,
    ) -> Pair:
        """Scores and ids of the best ``k`` rows, in ``out`` if given."""
        found = _search(self, queries, snapshot.native, k, counters, float64)
        if out is None:
            return found
        out[0][...], out[1][...] = found
        return out

    def probe(  # type: ignore[override]
        self,
        queries: Rows,
        snapshot: Snapshot,
        k: int,
        probes: int,
        counters: Any,  # the core's, which it made itself
        float64: bool,
    ) -> tuple[Array, Array, Array]:
        """The same for the nearest leaves, and how many rows of each answer are proven."""
        return super().probe(queries, snapshot.native, k, probes, counters, float64)

    def range(  # type: ignore[override]
        self,
        queries: Rows,
        snapshot: Snapshot,
        radius: float,
        counters: Any,  # the core's, which it made itself
        float64: bool,
        **own: int,
    ) -> Ranges | None:
        """Every row within a radius of each query."""
        return super().range(queries, snapshot.native, radius, counters, float64, **own)

    def workspace(self, snapshot: Snapshot, n_queries: int, k: int) -> NDArray[np.uint8]:
        """An empty array: each thread has memory of its own for its part of a search."""
        return np.empty(0, np.uint8)

    def prepare(self, snapshot: Snapshot) -> None:
        """Do nothing: the CPU keeps nothing with a snapshot."""

    def plan(self, snapshot: Snapshot, n_queries: int, k: int) -> str:
        """A description of how a search of this size is shared out: panels of queries, chunks of
        rows.
        """
        plan = _core.cpu_plan(
            n_queries, snapshot.native.n_strips, snapshot.native.dim, _core.num_threads()
        )
        return plan if snapshot.screen is None else f"{plan}, {snapshot.screen!r}"


_search = _core.CpuBackend.search  # looked up once: the call is a hundredth of a small search
