"""The CUDA backend as the rest of the package sees it: the calls of ``interface.py``.

It adds memory to the core's class of the same name. Arrays live on the device (torch tensors,
``device_memory.py``). In a build with ``FR_CUDA=EMU`` they live in the memory of the process, where
tests run the same kernels without a GPU. Workspace and results come from torch's allocator, work
runs on torch's current stream, and a search of device queries never waits for the device. Changes
of an index do wait, so that any stream may search the published rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._backends import tiers
from fastretrieve._backends.device_memory import DeviceMemory, device_rows, usable_device
from fastretrieve._backends.interface import NO_LIMIT, BackendUnavailable, Layer, Pair, Ranges
from fastretrieve._backends.memory import Array, HostMemory
from fastretrieve._backends.snapshot import Snapshot
from fastretrieve._backends.tiers import Choice
from fastretrieve._backends.tiles import Own, Within, in_range
from fastretrieve._common import arrays
from fastretrieve._common.arrays import CoreMatrix, address, as_rows, core_matrix, not_finite

_COUNTERS = ("queries", "rows_scanned", "rows_scored", "overflows", "unfit_queries")


class DeviceCounters:
    """Totals of searches, kept on the device; reading them waits for it."""

    def __init__(self, memory: HostMemory) -> None:
        self._memory = memory
        self.numbers = memory.empty((_core.CUDA_COUNTERS,), np.int64)
        self.numbers[:] = 0
        self.streams: frozenset[int] = frozenset()  # known to the allocator as their writers

    def read(self) -> dict[str, int]:
        """The totals so far."""
        values = self._memory.to_host(self.numbers)
        return dict(zip(_COUNTERS, (int(v) for v in values), strict=True))


class _SegmentTable:
    """The segments of a snapshot as kernels read them, on the device."""

    def __init__(self, numbers: Array) -> None:
        self.numbers = numbers
        self.streams: frozenset[int] = frozenset()  # known to the allocator as its readers


class CudaBackend:
    """Exact search on a GPU, or on its emulation. ``small_plans`` let few rows pass every stage."""

    reads_booleans = False
    answers_at_once = False
    reads_screens = False  # its kernels scan whole codes

    def __init__(
        self,
        device: str = "cuda",
        *,
        tier: str = "",
        emulated: bool = False,
        small_plans: bool = False,
    ) -> None:
        self.emulated = emulated
        self.memory = HostMemory() if emulated else DeviceMemory(usable_device(device))
        number = self.memory.device_number
        choice = Choice(tier, "asked for") if tier else tiers.chosen(number)
        if not choice.usable:
            raise BackendUnavailable(
                f"cuda: {choice.reason}; use device='cpu' (FASTRETRIEVE_CUDA_TIER forces a tier)"
            )
        self._core = _core.CudaBackend(choice.tier, device=number, small_plans=small_plans)
        self._tables: WeakKeyDictionary[Snapshot, _SegmentTable] = WeakKeyDictionary()

    @property
    def name(self) -> str:
        """The tier of the scan: dp4a, mma or wgmma."""
        return self._core.name

    @property
    def layout(self) -> str:
        """The name of the layout of its codes, as files have it."""
        return self._core.layout

    @property
    def stream(self) -> int:
        """The stream of the caller: torch's current one."""
        return self.memory.stream

    def counters(self) -> DeviceCounters:
        """Counters for the searches of an index."""
        return DeviceCounters(self.memory)

    def as_rows(self, array: Any, *, name: str, dim: int | None = None) -> Array:
        """Rows as ``arrays.as_rows`` returns them; a tensor on a device stays."""
        if arrays.device_of(array) == "cpu":
            return as_rows(array, name=name, dim=dim)
        rows = device_rows(array.detach(), name)
        if dim is not None and rows.shape[1] != dim:
            raise ValueError(
                f"{name} have dimension {rows.shape[1]} but the index has dimension {dim}"
            )
        return rows

    def strip_bytes(self, dim: int, metric: str) -> int:
        """Bytes that 64 rows of codes take."""
        return self._core.strip_bytes(dim, metric)

    def encode(self, rows: CoreMatrix, *, metric: str, n_strips: int, codes: int) -> None:
        """Encode rows, given as the core describes memory, for every stream to read."""
        self._core.encode(rows, metric=metric, n_strips=n_strips, codes=codes, stream=self.stream)
        self.memory.synchronize()

    def ingest(self, rows: Array, *, out: int, dtype: str) -> int:
        """Copy rows to device memory at ``out``; return the first that is not finite, or -1."""
        placed = self.memory.placed(rows)
        flag = self.memory.empty((1,), np.int64)
        return self._core.ingest(
            core_matrix(placed), out=out, dtype=dtype, flag=address(flag), stream=self.stream
        )

    def search(
        self,
        rows: Array,
        snapshot: Snapshot,
        k: int,
        counters: Any,  # the DeviceCounters that it made itself
        float64: bool,
        *,
        workspace: Array | None = None,
        out: Pair | None = None,
    ) -> Pair:
        """Scores and ids of the best ``k`` rows, on the device if the queries are there. ``out`` is
        memory of the device.
        """
        if not self.memory.holds(rows):
            refuse_not_finite(rows)
        queries = self.memory.placed(rows)
        shape = (queries.shape[0], k)
        kind = np.float64 if float64 else np.float32
        scores, ids = out or (self.memory.empty(shape, kind), self.memory.empty(shape, np.int64))
        if shape[0]:
            self._lend(counters)
            if workspace is None:
                workspace = self.workspace(snapshot, shape[0], k)
            else:  # a plan's, made on any stream
                self.memory.share([workspace, scores, ids])
            self._core.search(
                core_matrix(queries),
                snapshot.native,
                table=address(self._table(snapshot)),
                k=k,
                results=(address(scores), address(ids)),
                float64=float64,
                memory=(address(workspace), workspace.nbytes, address(counters.numbers)),
                stream=self.stream,
            )
        if self.memory.holds(rows):
            return scores, ids
        return self.memory.to_host(scores), self.memory.to_host(ids)

    def probe(
        self,
        rows: Array,
        snapshot: Snapshot,
        k: int,
        probes: int,
        counters: Any,  # the DeviceCounters that it made itself
        float64: bool,
    ) -> tuple[Array, Array, Array]:
        """An exact search, which proves all that it finds: a GPU scans whole codes."""
        scores, ids = self.search(rows, snapshot, k, counters, float64)
        return scores, ids, (ids >= 0).sum(1)

    def refuse_not_finite(self, rows: Array) -> None:
        """Raise where a query on the device is not finite; waits for it."""
        refuse_not_finite(rows)

    def prepare(self, snapshot: Snapshot) -> None:
        """Do now what the first search of this snapshot on this stream would do."""
        self._table(snapshot)

    def workspace(self, snapshot: Snapshot, n_queries: int, k: int) -> Array:
        """Memory for a search of this size: O(queries x k), whatever the number of rows."""
        n_bytes = self._core.workspace_bytes(snapshot.native, n_queries, k)
        return self.memory.empty((n_bytes,), np.uint8)

    def plan(self, snapshot: Snapshot, n_queries: int, k: int) -> str:
        """A description of how a search of this size is cut into launches."""
        return self._core.plan(snapshot.native, n_queries, k)

    def range(
        self,
        rows: Array,
        snapshot: Snapshot,
        radius: float,
        counters: Any,  # the DeviceCounters that it made itself
        float64: bool,
        *,
        self_segment: int = -1,
        self_row: int = 0,
        limit: int = NO_LIMIT,
    ) -> Ranges | None:
        """Every row within a radius of each query: tile by tile of exact scores on the device,
        without codes.
        """
        if not self.memory.holds(rows):
            refuse_not_finite(rows)
        own = Own(self_segment, self_row) if self_segment >= 0 else None
        queries = self.memory.placed(rows)
        found = in_range(self, queries, snapshot, Within(radius, own, limit))
        self._lend(counters)
        counters.numbers[0] += len(rows)
        counters.numbers[2] += len(rows) * snapshot.native.n_rows
        if found is None:
            return None
        offsets, scores, ids = found
        return offsets, scores if float64 else _narrowed(scores), ids

    def scores(self, queries: Array, rows: Array, *, metric: str) -> Array:
        """The canonical score of every query with every row."""
        for array, name in ((queries, "queries"), (rows, "rows")):
            if not self.memory.holds(array):
                refuse_not_finite(array, name)
        q, x = self.memory.placed(queries), self.memory.placed(rows)
        out = self.score_tile(q, x, metric)
        return out if self.memory.holds(queries) else self.memory.to_host(out)

    def score_tile(self, queries: Array, rows: Array, metric: str) -> Array:
        """The same for rows on the device, unchecked."""
        out = self.memory.empty((queries.shape[0], rows.shape[0]), np.float64)
        self._core.scores(
            core_matrix(queries),
            core_matrix(rows),
            metric=metric,
            out=address(out),
            stream=self.stream,
        )
        return out

    def fuse(self, layers: Sequence[Layer], *, weigh: bool, out: int, dtype: str) -> None:
        """Normalise, weigh and join layers of device rows into device memory at ``out``."""
        placed = [
            (self.memory.placed(rows), None if mean is None else self.memory.placed(mean), weight)
            for rows, mean, weight in layers
        ]
        parts = [(core_matrix(rows), address(mean), weight) for rows, mean, weight in placed]
        self._core.fuse(parts, weigh=weigh, out=out, dtype=dtype, stream=self.stream)

    def cluster_sums(
        self, rows: Array, labels: NDArray[np.int64], n_clusters: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Sums and counts of the rows of each cluster."""
        x, wanted = self.memory.placed(rows), self.memory.placed(labels)
        sums = self.memory.empty((n_clusters, x.shape[1]), np.float64)
        counts = self.memory.empty((n_clusters,), np.int64)
        self._core.cluster_sums(
            core_matrix(x),
            labels=address(wanted),
            n_clusters=n_clusters,
            sums=address(sums),
            counts=address(counts),
            stream=self.stream,
        )
        return self.memory.to_host(sums), self.memory.to_host(counts)

    def _lend(self, counters: DeviceCounters) -> None:
        """Tell the allocator that this stream writes the counters, which may outlive the index."""
        if self.stream not in counters.streams:
            self.memory.share([counters.numbers])
            counters.streams |= {self.stream}

    def _table(self, snapshot: Snapshot) -> Array:
        """The segments as kernels read them, on the device. The allocator hears of every stream
        that reads them.
        """
        table = self._tables.get(snapshot)
        if table is None:
            raw = np.frombuffer(self._core.segment_table(snapshot.native), dtype=np.uint8).copy()
            table = _SegmentTable(self.memory.placed(raw))
            self.memory.synchronize()  # other streams may read it now
            table = self._tables.setdefault(snapshot, table)
        if self.stream not in table.streams:
            self.memory.share([table.numbers, *snapshot.kept])
            for segment in snapshot.segments:
                self.memory.share([segment.rows, segment.codes])
            table.streams |= {self.stream}
        return table.numbers


def refuse_not_finite(rows: Array, name: str = "queries") -> None:
    """Raise if a row holds NaN or infinity; for rows on the device this waits for it."""
    bad = not_finite(rows)
    if len(bad):
        raise ValueError(
            f"{name} hold a value that is not finite in row {bad[0]}; remove NaN and infinity first"
        )


def _narrowed(scores: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return scores.astype(np.float32)
