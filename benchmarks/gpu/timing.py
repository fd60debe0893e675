"""Times on a GPU by CUDA events; by the clock in dry runs, where they mean nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

MOST_REPEATS, LEAST_REPEATS, SECONDS = 50, 5, 2.0  # as often as fits these seconds


class Timer:
    """Medians of repeated calls. ``cold``: the L2 cache is overwritten before each."""

    def __init__(self, *, on_gpu: bool) -> None:
        self.on_gpu = on_gpu
        self._flush: torch.Tensor | None = None

    def median_us(self, call: Callable[[], Any], *, cold: bool = False) -> dict[str, float]:
        """The median, the first and the ninth decile in microseconds."""
        call()
        times = [self._once(call, cold) for _ in range(self._repeats(call))]
        if self.on_gpu:
            torch.cuda.synchronize()
            times = [begin.elapsed_time(end) * 1e3 for begin, end in times]
        times.sort()
        tenth = len(times) // 10
        return {
            "median_us": statistics.median(times),
            "p10_us": times[tenth],
            "p90_us": times[-1 - tenth],
        }

    def _repeats(self, call: Callable[[], Any]) -> int:
        if not self.on_gpu:
            return LEAST_REPEATS
        torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        fitting = SECONDS / (time.perf_counter() - begin)
        return int(min(max(fitting, LEAST_REPEATS), MOST_REPEATS))

    def _once(self, call: Callable[[], Any], cold: bool) -> Any:
        if not self.on_gpu:
            begin = time.perf_counter()
            call()
            return (time.perf_counter() - begin) * 1e6
        if cold:
            if self._flush is None:
                self._flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
            self._flush.zero_()
        events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        events[0].record()
        call()
        events[1].record()
        return events


def random_numbers(n_bytes: int, device: str) -> torch.Tensor:
    """Random float32 numbers: on zeros a GPU draws less power, and is faster than on data."""
    random = torch.Generator(device=device).manual_seed(1)
    return torch.randn(n_bytes // 4, generator=random, device=device)


def copy_bandwidth(timer: Timer, source: torch.Tensor) -> float:
    """Bytes per second of a copy on the device, reads and writes counted."""
    target = torch.empty_like(source)
    return 2e6 * source.nbytes / timer.median_us(lambda: target.copy_(source))["median_us"]


def read_bandwidth(timer: Timer, source: torch.Tensor) -> float:
    """Bytes per second of a sum over memory: the limit of a scan."""
    return 1e6 * source.nbytes / timer.median_us(source.sum)["median_us"]


def int8_rate(timer: Timer, size: int) -> float:
    """Tera-operations per second of torch's product of two random int8 matrices."""
    device = "cuda" if timer.on_gpu else "cpu"
    a, b = (torch.randint(-127, 128, (size, size), device=device).char() for _ in range(2))
    return 2e-6 * size**3 / timer.median_us(lambda: torch._int_mm(a, b.T))["median_us"]


def captured(call: Callable[[], Any]) -> Callable[[], None]:
    """The call as the replay of a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
