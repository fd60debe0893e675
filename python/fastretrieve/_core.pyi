"""The native module: csrc/bindings/module.cpp, checked by mypy.stubtest."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# A matrix adjacent within a row, of float32, float16 or uint16 (the bits of bfloat16); or memory
# elsewhere: (address, dtype, n_rows, dim, stride).
_Matrix: TypeAlias = NDArray[Any] | tuple[int, str, int, int, int]

STRIP_ROWS: int
MAX_DIM: int

class Error(ValueError): ...

class Counters:
    def __init__(self) -> None: ...
    def read(self) -> dict[str, int]: ...

class Segment:
    # Addresses are 0 where there is nothing: no codes, ids from first_id on, no row removed.
    def __init__(
        self,
        *,
        rows: _Matrix,
        codes: int,
        n_strips: int,
        ids: int,
        first_id: int,
        live: int,
        owner: object,
    ) -> None: ...

class HeadMap:
    def __init__(
        self,
        *,
        metric: str,
        dim: int,
        mean: NDArray[np.float32],
        basis: NDArray[np.float32],
        tail: NDArray[np.float32],
        axes: NDArray[np.float32],
        tail_centre: float,
        radius: float,
    ) -> None: ...
    def project(
        self, backend: object, rows: _Matrix
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
    def pack_leaves(
        self,
        *,
        step: float,
        error: float,
        heads: NDArray[np.float32],
        slack: NDArray[np.float32],
        order: NDArray[np.int32],
        leaves: NDArray[np.uint8],
        centres: NDArray[np.uint8],
        boxes: NDArray[np.float32],
    ) -> int: ...

class Screen:
    # The arrays of _state/screen.py, which it keeps alive; a wrong one is a ValueError.
    def __init__(self, *, metric: str, dim: int, arrays: dict[str, NDArray[Any]]) -> None: ...

class Segments:
    def __init__(self, metric: str, dim: int, segments: Sequence[Segment]) -> None: ...
    @property
    def dim(self) -> int: ...
    @property
    def n_rows(self) -> int: ...
    @property
    def n_strips(self) -> int: ...
    def masked(
        self, where: Sequence[int], strides: Sequence[int], owner: object, bytes: bool = False
    ) -> Segments: ...

    # For each segment the slot of its first row, and the address of words of the rows that the
    # screen covers (0: none).
    def screened(
        self, screen: Screen, slots: Sequence[int], covered: Sequence[int]
    ) -> Segments: ...

class CpuBackend:
    def __init__(self, isa: str = "") -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def layout(self) -> str: ...
    def strip_bytes(self, dim: int, metric: str) -> int: ...
    def encode(self, rows: _Matrix, *, metric: str, n_strips: int, codes: int) -> None: ...
    def search(
        self, queries: _Matrix, segments: Segments, k: int, counters: Counters, float64: bool
    ) -> tuple[NDArray[Any], NDArray[np.int64]]: ...
    def probe(
        self,
        queries: _Matrix,
        segments: Segments,
        k: int,
        probes: int,
        counters: Counters,
        float64: bool,
    ) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]: ...
    def check_screen(self, segments: Segments, screen: Screen) -> int: ...
    def range(
        self,
        queries: _Matrix,
        segments: Segments,
        radius: float,
        counters: Counters,
        float64: bool,
        *,
        self_segment: int = -1,
        self_row: int = 0,
        limit: int = ...,
    ) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64]] | None: ...
    def scores(self, queries: _Matrix, rows: _Matrix, *, metric: str) -> NDArray[np.float64]: ...
    def ingest(self, rows: _Matrix, *, out: int, dtype: str) -> int: ...
    def fuse(
        self,
        layers: Sequence[tuple[_Matrix, NDArray[np.float32] | None, float]],
        *,
        weigh: bool,
        out: int,
        dtype: str,
    ) -> None: ...
    def cluster_sums(
        self, rows: _Matrix, labels: NDArray[np.int64], n_clusters: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]: ...

def order_leaves(points: NDArray[np.float32]) -> NDArray[np.int32]: ...
def copy_records(
    segments: Segments,
    slots: Sequence[int],
    places: NDArray[np.int32],
    records: NDArray[np.uint8],
) -> None: ...
def screen_costs(
    backend: object, *, metric: str, dim: int, head_dim: int, n_rows: int, n_queries: int
) -> tuple[float, float, float, float]: ...
def record_bytes(dim: int, metric: str) -> int: ...
def instruction_sets() -> list[str]: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def probe_read_bandwidth(bytes: int, threads: int) -> float: ...
def probe_int8_peak(threads: int, seconds: float) -> float: ...
def scan_intervals(
    backend: CpuBackend, queries: _Matrix, segments: Segments, thresholds: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]: ...
def screen_verdicts(
    backend: CpuBackend, queries: _Matrix, segments: Segments, thresholds: Sequence[float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]: ...
def nearest_leaves(
    backend: object, queries: _Matrix, segments: Segments, n_leaves: int
) -> NDArray[np.int32]: ...
def use_screens(how: str) -> None: ...
def pack_mask(
    mask: NDArray[np.bool_],
    *,
    begin: int,
    n_live: int,
    n_rows: int,
    live: int,
    words: NDArray[np.uint64],
) -> None: ...
def mark_rows(
    numbers: NDArray[np.int64], *, first: int, n_rows: int, words: NDArray[np.uint64]
) -> None: ...
def cpu_plan(n_queries: int, n_strips: int, dim: int, n_threads: int) -> str: ...
def cuda_plan(
    n_queries: int,
    n_rows: int,
    dim: int,
    k: int,
    *,
    tier: str,
    shared_bytes: int,
    workspace_limit: int,
) -> str: ...
def cuda_state() -> tuple[bool, bool, str]: ...
def cuda_devices() -> list[tuple[str, int, int, int, int]]: ...
def cuda_versions() -> tuple[int, int]: ...
def cuda_best_tier(major: int, /) -> str: ...

cuda_architectures: str

# In builds with CUDA or its emulation.
CUDA_COUNTERS: int

class CudaBackend:
    def __init__(self, tier: str, *, device: int = 0, small_plans: bool = False) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def layout(self) -> str: ...
    def strip_bytes(self, dim: int, metric: str) -> int: ...
    def encode(
        self, rows: _Matrix, *, metric: str, n_strips: int, codes: int, stream: int
    ) -> None: ...
    def ingest(self, rows: _Matrix, *, out: int, dtype: str, flag: int, stream: int) -> int: ...
    def fuse(
        self,
        layers: Sequence[tuple[_Matrix, int, float]],
        *,
        weigh: bool,
        out: int,
        dtype: str,
        stream: int,
    ) -> None: ...
    def scores(
        self, queries: _Matrix, rows: _Matrix, *, metric: str, out: int, stream: int
    ) -> None: ...
    def cluster_sums(
        self,
        rows: _Matrix,
        *,
        labels: int,
        n_clusters: int,
        sums: int,
        counts: int,
        stream: int,
    ) -> None: ...
    def workspace_bytes(self, segments: Segments, n_queries: int, k: int) -> int: ...
    def plan(self, segments: Segments, n_queries: int, k: int) -> str: ...
    @staticmethod
    def segment_table(segments: Segments) -> bytes: ...
    def search(
        self,
        queries: _Matrix,
        segments: Segments,
        *,
        table: int,
        k: int,
        results: tuple[int, int],
        float64: bool,
        memory: tuple[int, int, int],
        stream: int,
    ) -> None: ...
