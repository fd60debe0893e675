"""The searches that are timed and checked on a GPU, and the floors of their times.

Imports no torch, so that a report costs no time. ``data.py`` makes the numbers.
"""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """A size, and how it is timed."""

    n_rows: int
    dim: int
    batch: int
    k: int
    metric: str = "ip"
    cold: bool = False  # with a cold L2
    graph: bool = False  # replayed from a CUDA graph

    @property
    def name(self) -> str:
        metric = "" if self.metric == "ip" else f", {self.metric}"
        extra = ", cold" * self.cold + ", graph" * self.graph
        return f"{self.n_rows} x {self.dim}, batch {self.batch}, k={self.k}{metric}{extra}"

    @property
    def scan_bytes(self) -> int:
        """Bytes of codes and of the numbers beside them, each read once."""
        return self.n_rows * (-(-self.dim // 32) * 32 + (12 if self.metric == "ip" else 16))

    def floor_us(self, ceilings: dict[str, float]) -> float | None:
        """The time to read the codes once, or to multiply them, at the measured ceilings."""
        if "read_bytes_per_s" not in ceilings:
            return None
        times = [self.scan_bytes / ceilings["read_bytes_per_s"] * 1e6]
        rates = [ceilings.get(name, 0) for name in ("int8_wgmma_tops", "int8_mma_tops")]
        if max(rates) > 0:
            times.append(2e-6 * self.batch * self.n_rows * self.dim / max(rates))
        return max(times)

    @property
    def matrix_bytes(self) -> int:
        """Bytes of the scores of all pairs."""
        return 4 * self.batch * self.n_rows


FIRST = [  # cases of one size follow each other, so that their rows are added once
    *(Case(10_000_000, 128, batch, 10, cold=True) for batch in (1, 32)),
    Case(1_000_000, 128, 4096, 10),
    Case(1_000_000, 128, 1, 10, cold=True, graph=True),
    Case(1_000_000, 128, 4096, 100),
]
REST = [
    Case(1_000_000, 768, 1024, 10),
    Case(1_000_000, 128, 32, 10, cold=True, graph=True),
    Case(1_000_000, 128, 4096, 10, "sqeuclidean"),
    Case(100_000, 128, 1, 10, cold=True, graph=True),
    Case(10_000_000, 128, 8, 10, cold=True),
    Case(10_000_000, 128, 2048, 10),
]
CASES = {"first": FIRST, "rest": REST, "all": [*FIRST, *REST]}
DRY_CASES = [Case(5000, 32, 1, 5), Case(4000, 64, 9, 3, "l2", cold=True, graph=True)]

CHECKS = [
    *(Case(200_000, 128, 40, 10, metric) for metric in ("ip", "cosine", "l2", "sqeuclidean")),
    Case(30_000, 769, 300, 100),
    Case(50_000, 96, 1, 3000, "l2"),
]
SMALL_CHECKS = [Case(5000, 40, 9, 10, "l2"), Case(4000, 128, 70, 10)]
