"""The interface of a backend: the calls that the rest of the package makes.

``cpu.py`` and ``cuda.py`` are the two backends, ``runtime.py`` chooses one. Rows, queries and
results are arrays of the backend's memory, or addresses in it: NumPy on the CPU, torch's tensors on
a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastretrieve._backends.memory import Array, HostMemory
from fastretrieve._backends.snapshot import Snapshot
from fastretrieve._common.arrays import CoreMatrix

Pair = tuple[Array, Array]  # scores and ids
Ranges = tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64]]  # offsets, scores, ids
Layer = tuple[Array, NDArray[np.float32] | None, float]  # rows, their mean, weight
NO_LIMIT = int(np.iinfo(np.int64).max)


class BackendUnavailable(RuntimeError):
    """The requested device cannot be used; the message says why and what would help."""


class SearchCounters(Protocol):
    """Totals over the searches of an index."""

    def read(self) -> dict[str, int]:
        """The totals so far."""


class Backend(Protocol):
    """Exact search in one kind of memory.

    ``search`` and ``range`` take what the calls of the core take, by position: a struct for each
    call would be a part of the time of a small search.
    """

    memory: HostMemory  # where rows and codes are kept
    reads_booleans: bool  # a search reads a mask of booleans for each query where it is
    answers_at_once: bool  # a search waits for its answer, so that doubtful ones can be checked
    reads_screens: bool  # a search reads the screen that optimize() makes

    @property
    def name(self) -> str:
        """The instruction set or the tier."""

    @property
    def layout(self) -> str:
        """The name of the layout of its codes: a file serves every backend that shares it."""

    def counters(self) -> SearchCounters:
        """New counters, for the searches of one index."""

    def as_rows(self, array: Any, *, name: str, dim: int | None = None) -> Array:
        """Rows in memory that the backend reads; ``arrays.as_rows`` says what they may be."""

    def refuse_not_finite(self, rows: Array) -> None:
        """Raise if a query is not finite and a search would not say so."""

    def strip_bytes(self, dim: int, metric: str) -> int:
        """Bytes that 64 rows of codes take."""

    def ingest(self, rows: Array, *, out: int, dtype: str) -> int:
        """Copy rows to ``out`` as ``dtype``; return the first that is not finite, or -1."""

    def encode(self, rows: CoreMatrix, *, metric: str, n_strips: int, codes: int) -> None:
        """Encode strips of rows."""

    def search(
        self,
        queries: Array,
        snapshot: Snapshot,
        k: int,
        counters: SearchCounters,
        float64: bool,
        /,
        *,
        workspace: Array | None = None,
        out: Pair | None = None,
    ) -> Pair:
        """Scores and ids of the best ``k`` rows, in ``out`` if given."""

    def probe(
        self,
        queries: Array,
        snapshot: Snapshot,
        k: int,
        probes: int,
        counters: SearchCounters,
        float64: bool,
        /,
    ) -> tuple[Array, Array, Array]:
        """The same for the ``probes`` nearest leaves of a screen and the rows in none, and how many
        rows of each answer are proven.
        """

    def workspace(self, snapshot: Snapshot, n_queries: int, k: int) -> Array:
        """Memory for a search of this size."""

    def prepare(self, snapshot: Snapshot) -> None:
        """Do now what the first search of this snapshot would do."""

    def plan(self, snapshot: Snapshot, n_queries: int, k: int) -> str:
        """A description of how a search of this size is cut into parts."""

    def range(
        self,
        queries: Array,
        snapshot: Snapshot,
        radius: float,
        counters: SearchCounters,
        float64: bool,
        /,
        *,
        self_segment: int = -1,
        self_row: int = 0,
        limit: int = NO_LIMIT,
    ) -> Ranges | None:
        """Every row within a radius of each query; None if there are more than ``limit``. With
        ``self_segment`` the queries are rows of that segment, from ``self_row`` on, and every pair
        of rows comes once.
        """

    def scores(self, queries: Array, rows: Array, *, metric: str) -> Array:
        """The canonical score of every query with every row."""

    def fuse(self, layers: Sequence[Layer], *, weigh: bool, out: int, dtype: str) -> None:
        """Normalise, weigh and join layers (rows, mean, weight) into memory at ``out``."""

    def cluster_sums(
        self, rows: Array, labels: NDArray[np.int64], n_clusters: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Sums and counts of the rows of each cluster."""
