"""The CUDA backend as the rest of the package sees it: the same calls as ``_core.Backend``.

What it adds is memory. Arrays live on the device (torch tensors), or, in a build with
``FR_CUDA=EMU``, in the memory of the process, where tests run the same kernels without a GPU.
Workspace and results come from torch's allocator, work runs on torch's current stream, and a search
of device queries never waits for the device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastretrieve import _core
from fastretrieve.arrays import address, as_rows, core_matrix, is_tensor
from fastretrieve.memory import HostMemory

_COUNTERS = ("queries", "rows_scanned", "rows_scored", "overflows", "unfit_queries")


class DeviceMemory(HostMemory):
    """Memory of a GPU, as torch tensors."""

    def __init__(self, device: str) -> None:
        import torch

        self.device = torch.device(device)
        self._kinds = {
            np.dtype(np.float32): torch.float32,
            np.dtype(np.float64): torch.float64,
            np.dtype(np.float16): torch.float16,
            np.dtype(np.uint16): torch.bfloat16,  # as arrays.py keeps it
            np.dtype(np.uint8): torch.uint8,
            np.dtype(np.int64): torch.int64,
        }

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """An uninitialised tensor on the device."""
        import torch

        return torch.empty(shape, dtype=self._kinds[np.dtype(dtype)], device=self.device)

    def placed(self, array: Any) -> Any:
        """The array on the device, copied there if it is not."""
        import torch

        if is_tensor(array):
            return array.to(self.device)
        if array.dtype == np.uint64:
            array = array.view(np.int64)
        if array.dtype == np.uint16:
            return torch.from_numpy(array.view(np.int16)).to(self.device).view(torch.bfloat16)
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def to_host(self, array: Any) -> NDArray[Any]:
        """The tensor as NumPy; waits for the device."""
        import torch

        if array.dtype == torch.bfloat16:
            bits: NDArray[Any] = array.cpu().view(torch.int16).numpy().view(np.uint16)
            return bits
        values: NDArray[Any] = array.cpu().numpy()
        return values


class DeviceCounters:
    """Totals of searches, kept on the device; reading them waits for it."""

    def __init__(self, memory: HostMemory) -> None:
        self._memory = memory
        self.numbers = memory.empty((_core.CUDA_COUNTERS,), np.int64)
        self.numbers[:] = 0

    def read(self) -> dict[str, int]:
        """The totals so far."""
        values = self._memory.to_host(self.numbers)
        return dict(zip(_COUNTERS, (int(v) for v in values), strict=True))


class CudaBackend:
    """Exact search on a GPU, or on its emulation."""

    def __init__(self, device: str = "cuda", *, tier: str = "", emulated: bool = False) -> None:
        self._core = _core.CudaBackend(tier)
        self.emulated = emulated
        self.memory = HostMemory() if emulated else DeviceMemory(device)

    @property
    def name(self) -> str:
        """The tier of the scan: dp4a, mma or wgmma."""
        return self._core.name

    @property
    def stream(self) -> int:
        """The stream of the caller: torch's current one."""
        if self.emulated:
            return 0
        import torch

        assert isinstance(self.memory, DeviceMemory)
        return int(torch.cuda.current_stream(self.memory.device).cuda_stream)

    def counters(self) -> DeviceCounters:
        """Counters for the searches of an index."""
        return DeviceCounters(self.memory)

    def as_rows(self, array: Any, *, name: str, dim: int | None = None) -> Any:
        """Rows as :func:`fastretrieve.arrays.as_rows` returns them; a tensor on a device stays."""
        if not is_tensor(array) or array.device.type == "cpu":
            return as_rows(array, name=name, dim=dim)
        rows = _device_rows(array.detach(), name)
        if dim is not None and rows.shape[1] != dim:
            raise ValueError(
                f"{name} have dimension {rows.shape[1]} but the index has dimension {dim}"
            )
        return rows

    def strip_bytes(self, dim: int, metric: str) -> int:
        """Bytes that 64 rows of codes take."""
        return self._core.strip_bytes(dim, metric)

    def encode(self, rows: Any, *, metric: str, n_strips: int, codes: int) -> None:
        """Encode rows, given as the core describes memory."""
        self._core.encode(rows, metric=metric, n_strips=n_strips, codes=codes, stream=self.stream)

    def ingest(self, rows: Any, *, out: int, dtype: str) -> int:
        """Copy rows to the device's memory at ``out``; the first that is not finite, or -1."""
        placed = self.memory.placed(rows)
        flag = self.memory.empty((1,), np.int64)
        return self._core.ingest(
            core_matrix(placed), out=out, dtype=dtype, flag=address(flag), stream=self.stream
        )

    def search(
        self,
        rows: Any,
        segments: _core.Segments,
        k: int,
        counters: DeviceCounters,
        float64: bool,
        *,
        workspace: Any = None,
        out: tuple[Any, Any] | None = None,
    ) -> tuple[Any, Any]:
        """Scores and ids of the best ``k`` rows; on the device if the queries are there."""
        queries = self.memory.placed(rows)
        shape = (queries.shape[0], k)
        kind = np.float64 if float64 else np.float32
        scores, ids = out or (self.memory.empty(shape, kind), self.memory.empty(shape, np.int64))
        if shape[0] == 0:
            return scores, ids
        if workspace is None:
            workspace = self.workspace(segments, shape[0], k)
        self._core.search(
            core_matrix(queries),
            segments,
            table=address(self._table(segments)),
            k=k,
            results=(address(scores), address(ids)),
            float64=float64,
            memory=(address(workspace), workspace.nbytes, address(counters.numbers)),
            stream=self.stream,
        )
        if is_tensor(rows) or self.emulated:
            return scores, ids
        return self.memory.to_host(scores), self.memory.to_host(ids)

    def workspace(self, segments: _core.Segments, n_queries: int, k: int) -> Any:
        """Memory for a search of this size: O(queries x k), whatever the number of rows."""
        n_bytes = self._core.workspace_bytes(segments, n_queries, k)
        return self.memory.empty((n_bytes,), np.uint8)

    def scores(self, queries: Any, rows: Any, *, metric: str) -> Any:
        """The canonical score of every query with every row."""
        q, x = self.memory.placed(queries), self.memory.placed(rows)
        out = self.memory.empty((q.shape[0], x.shape[0]), np.float64)
        self._core.scores(
            core_matrix(q), core_matrix(x), metric=metric, out=address(out), stream=self.stream
        )
        return out if is_tensor(queries) else self.memory.to_host(out)

    def fuse(self, layers: Any, *, weigh: bool, out: int, dtype: str) -> None:
        """Normalise, weigh and join layers of device rows into device memory at ``out``."""
        placed = [
            (self.memory.placed(rows), None if mean is None else self.memory.placed(mean), weight)
            for rows, mean, weight in layers
        ]
        parts = [(core_matrix(rows), address(mean), weight) for rows, mean, weight in placed]
        self._core.fuse(parts, weigh=weigh, out=out, dtype=dtype, stream=self.stream)

    def cluster_sums(self, rows: Any, labels: Any, n_clusters: int) -> tuple[Any, Any]:
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

    def _table(self, segments: _core.Segments) -> Any:
        """What kernels read of the segments, on the device; kept with them."""
        table = getattr(segments, "table", None)
        if table is None:
            raw = np.frombuffer(self._core.segment_table(segments), dtype=np.uint8).copy()
            table = segments.table = self.memory.placed(raw)
        return table


def _device_rows(tensor: Any, name: str) -> Any:
    """A matrix of float32, float16 or bfloat16 on the device, adjacent within a row."""
    import torch

    if tensor.ndim == 1:
        tensor = tensor[None, :]
    if tensor.ndim != 2:
        raise ValueError(f"{name} must have one or two dimensions, got shape {tuple(tensor.shape)}")
    if tensor.dtype == torch.float64:
        tensor = tensor.to(torch.float32)
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(
            f"{name} on a device must be floating point, got {tensor.dtype}; "
            f"convert them to float32"
        )
    return tensor if tensor.shape[1] <= 1 or tensor.stride(1) == 1 else tensor.contiguous()
