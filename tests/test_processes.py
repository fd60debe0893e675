"""Signals and forks: a long search can be stopped, and a child process can search."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

import numpy as np
import pytest

import cases
import fastretrieve as fr
from fastretrieve._backends import runtime
from fastretrieve._backends.cpu import CpuBackend


class Stopped(Exception):
    pass


@pytest.fixture
def alarm() -> object:
    """Raise Stopped in this thread, from a signal handler as Ctrl-C does, after some seconds."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise Stopped

    before = signal.signal(signal.SIGALRM, handler)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_long_search_stops_at_a_signal_and_leaves_the_index_whole(
    threads: int,
    alarm: Callable[[float], object],
    use_threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scalar = CpuBackend("scalar")  # slow enough to be caught at work
    monkeypatch.setattr(runtime, "cpu_backend", lambda isa="": scalar)
    use_threads(threads)
    queries, rows = cases.gaussian(20_000, 256, n_queries=256, seed=80)
    index = fr.Index(256)
    index.add(rows)
    before = index.search(queries[:2], 5)
    queries = np.tile(queries, (8, 1))

    start = time.perf_counter()
    alarm(0.1)
    with pytest.raises(Stopped):
        index.search(queries, 10)
    assert time.perf_counter() - start < 1.5  # the whole search takes several seconds
    after = index.search(rows[:2] * 0 + queries[:2], 5)
    np.testing.assert_array_equal(after.ids, before.ids)
    assert len(index.add(rows[:100])) == 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_searches_with_threads_of_its_own(
    use_threads: Callable[[int], None],
) -> None:
    use_threads(3)
    queries, rows = cases.gaussian(5000, 32, n_queries=60, seed=81)
    index = fr.Index(32)
    index.add(rows)
    before = index.search(queries, 5)  # the pool is warm
    child = os.fork()
    if child == 0:
        status = 1
        try:
            found = index.search(queries, 5)
            status = 0 if np.array_equal(found.ids, before.ids) else 2
        finally:
            os._exit(status)
    _, code = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(code) == 0
    np.testing.assert_array_equal(index.search(queries, 5).ids, before.ids)
