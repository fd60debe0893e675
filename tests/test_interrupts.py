"""Ctrl-C: whatever lasts returns soon, and the index is whole.

What is measured is the time of the processor between the signal and the moment at which the caller
has control again, with one thread: it is the waiting time of a machine that does nothing else, also
where tests share theirs.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastretrieve as fr

LIMIT = 0.1  # seconds
MOMENTS = (0.2, 0.6, 0.95)  # of what the call takes
ATTEMPTS = 3  # at each moment, where the wait was too long


class Stopped(BaseException):
    """What Ctrl-C raises, but for these tests alone."""


class Long(NamedTuple):
    """Something that lasts: what it needs, how it is called."""

    make: Callable[[], Any]
    call: Callable[[Any], object]


@pytest.fixture
def interrupted(use_threads: Callable[[int], None]) -> Iterator[Callable[..., float | None]]:
    """Run a call until the process has used so many seconds of the processor; how many more it used
    before the call was over. None: it ended first.

    As with Ctrl-C the signal goes to the thread that called. A timer's would go to whichever works.
    """
    use_threads(1)
    caller, armed = threading.get_ident(), False

    def handler(number: int, frame: FrameType | None) -> None:
        if armed:
            raise Stopped

    def interrupt(start: float, seconds: float, over: threading.Event) -> None:
        while time.process_time() - start < seconds:
            if over.wait(0.002):
                return
        signal.pthread_kill(caller, signal.SIGUSR1)

    def run(call: Callable[[], object], seconds: float) -> float | None:
        nonlocal armed
        start, over = time.process_time(), threading.Event()
        other = threading.Thread(target=interrupt, args=(start, seconds, over))
        try:
            armed = True
            other.start()
            call()
            armed = False
        except Stopped:
            return time.process_time() - start - seconds
        finally:
            armed = False
            over.set()
            other.join()
        return None

    before = signal.signal(signal.SIGUSR1, handler)
    yield run
    signal.signal(signal.SIGUSR1, before)


def vectors(n: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)


def made(n: int, dim: int, *, own: bool = False) -> fr.Index:
    index = fr.Index(dim, metric="l2")
    index.add(vectors(n, dim), ids=np.random.default_rng(1).permutation(n) if own else None)
    return index


QUERIES = vectors(8192, 64, 5)
ROWS = vectors(600_000, 64, 6)
DOUBLES = ROWS[:300_000].astype(np.float64)
HALVES = ROWS.astype(np.float16)
INTEGERS = np.random.default_rng(8).integers(0, 256, (300_000, 64)).astype(np.uint8)
OWN_IDS = np.random.default_rng(7).permutation(1_500_000)
SEARCHES: dict[str, Long] = {
    "search": Long(lambda: made(60_000, 64), lambda i: i.search(QUERIES, 10)),
    "search for many": Long(lambda: made(60_000, 64), lambda i: i.search(QUERIES[:64], 60_000)),
    "search behind a mask for each query": Long(
        lambda: made(60_000, 64),
        lambda i: i.search(QUERIES[:2048], 10, where=np.ones((2048, 60_000), bool)),
    ),
    "search_ids": Long(
        lambda: made(60_000, 64, own=True), lambda i: i.search_ids(np.arange(8192), 10)
    ),
    "range_search": Long(lambda: made(60_000, 64), lambda i: i.range_search(QUERIES, 7.0)),
    "range_search that finds all": Long(
        lambda: made(60_000, 64), lambda i: i.range_search(QUERIES[:200], 1e9)
    ),
    "pairs": Long(lambda: made(60_000, 64), lambda i: i.pairs(3.0)),
    "pairs, of which there are many": Long(lambda: made(3000, 8, own=True), lambda i: i.pairs(1e9)),
    "iter_pairs": Long(
        lambda: made(3000, 8, own=True), lambda i: sum(len(p.ids) for p in i.iter_pairs(1e9))
    ),
    "knn_graph": Long(lambda: made(30_000, 64), lambda i: i.knn_graph(10)),
    "get": Long(
        lambda: made(300_000, 64, own=True), lambda i: i.get(np.tile(np.arange(300_000), 3))
    ),
}
CHANGES: dict[str, Long] = {
    "add": Long(lambda: made(1000, 64), lambda i: i.add(ROWS)),
    "add 16 bits": Long(lambda: made(1000, 64), lambda i: i.add(HALVES)),
    "add float64": Long(lambda: made(1000, 64), lambda i: i.add(DOUBLES)),
    "add integers": Long(lambda: made(1000, 64), lambda i: i.add(INTEGERS)),
    "add under ids of one's own": Long(
        lambda: fr.Index(1), lambda i: i.add(np.ones((len(OWN_IDS), 1), np.float32), ids=OWN_IDS)
    ),
    "remove": Long(
        lambda: made(1_000_000, 1, own=True), lambda i: i.remove(OWN_IDS[OWN_IDS < 900_000])
    ),
    "update": Long(
        lambda: made(400_000, 16, own=True),
        lambda i: i.update(np.arange(300_000), vectors(300_000, 16, 9)),
    ),
    "compact": Long(lambda: with_holes(400_000, 64), lambda i: i.compact()),
}


def cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def waits(attempt: Callable[[float], float | None], lasts: float) -> list[float]:
    """Attempt to interrupt at each of the moments; how long the caller then waited.

    A call that had to find memory lasts several times as long as the next one, which may end before
    all the moments. So where every attempt came too late, the next ones come earlier. The system's
    own work for the process (pages to clear, files to write back) counts as waiting, too, and comes
    when it likes: code that does not look for a signal waits too long at each attempt.
    """

    def wait_at(seconds: float) -> float | None:
        wait = attempt(seconds)
        for _ in range(ATTEMPTS - 1):
            if wait is None or wait < LIMIT:
                break
            wait = attempt(seconds)
        return wait

    found = [wait_at(lasts * moment) for moment in MOMENTS]
    earlier = lasts * min(MOMENTS)
    while not any(wait is not None for wait in found):
        earlier /= 2
        assert earlier > 0.001, "the call ended before each signal"
        found.append(wait_at(earlier))
    return [wait for wait in found if wait is not None]


def with_holes(n: int, dim: int) -> fr.Index:
    index = made(n, dim, own=True)
    index.remove(np.arange(0, n, 3))
    return index


def snapshot(index: fr.Index) -> tuple[Any, ...]:
    ids = index.ids
    hits = index.search(np.ones(index.dim), 5, score_dtype="float64")
    some = ids[:: max(len(ids) // 100, 1)]
    return len(index), ids.tobytes(), index.get(some).tobytes(), *(a.tobytes() for a in hits)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_stops(name: str, interrupted: Callable[..., float | None]) -> None:
    make, call = SEARCHES[name]
    index = make()
    before = snapshot(index)
    lasts = cpu_seconds(lambda: call(index))
    waited = waits(lambda seconds: interrupted(lambda: call(index), seconds), lasts)
    assert max(waited) < LIMIT, waited
    assert snapshot(index) == before


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_stops_and_has_happened_or_not(
    name: str, interrupted: Callable[..., float | None]
) -> None:
    make, call = CHANGES[name]
    index = make()
    before = snapshot(index)
    lasts = cpu_seconds(lambda: call(index))
    after = snapshot(index)

    def attempt(seconds: float) -> float | None:
        index = make()
        wait = interrupted(lambda: call(index), seconds)
        assert snapshot(index) in (before, after)
        if snapshot(index) == before:
            call(index)
        assert snapshot(index) == after
        return wait

    waited = waits(attempt, lasts)
    assert max(waited) < LIMIT, waited


FILES: dict[str, Callable[[fr.Index, Path], object]] = {
    "save": lambda index, path: index.save(path),
    "load and verify": lambda index, path: fr.Index.load(path, verify=True, mmap=False),
    "write_vectors": lambda index, path: fr.write_vectors(path.with_suffix(".fvecs"), ROWS),
}


@pytest.mark.parametrize("name", FILES)
def test_work_on_files_stops_and_leaves_them_whole(
    name: str, interrupted: Callable[..., float | None], tmp_path: Path
) -> None:
    index, path = made(400_000, 64, own=True), tmp_path / "a.index"
    index.save(path)
    fr.write_vectors(path.with_suffix(".fvecs"), ROWS)
    old = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
    call = FILES[name]
    lasts = cpu_seconds(lambda: call(index, path))
    waited = waits(lambda seconds: interrupted(lambda: call(index, path), seconds), lasts)
    assert max(waited) < LIMIT, waited
    assert {file.name: file.stat().st_size for file in tmp_path.iterdir()} == old
    assert fr.Index.load(path, verify=True).get([5, 7]).tobytes() == index.get([5, 7]).tobytes()
