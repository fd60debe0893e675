"""Worker processes, Ctrl-C and the end of memory: an index comes through whole."""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.pool
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import fastretrieve as fr
import forks
from fastretrieve._common.locks import once


def made(n: int = 3000) -> fr.Index:
    index = fr.Index(16, metric="l2")
    index.add(np.random.default_rng(0).standard_normal((n, 16)).astype(np.float32))
    return index


def neighbours(index: fr.Index) -> list[int]:
    return [int(i) for i in index.search(np.ones(16, np.float32), 5).ids]


def neighbours_in(path: Path) -> list[int]:
    return neighbours(fr.Index.load(path))


@pytest.fixture(scope="module")
def workers() -> Iterator[multiprocessing.pool.Pool]:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        yield pool


def test_spawned_workers_get_an_index_of_their_own(workers: multiprocessing.pool.Pool) -> None:
    index = made()
    assert workers.map(neighbours, [index] * 2) == [neighbours(index)] * 2


def test_spawned_workers_share_a_saved_index(
    workers: multiprocessing.pool.Pool, tmp_path: Path
) -> None:
    index = made()
    index.save(tmp_path / "a")
    assert workers.map(neighbours_in, [tmp_path / "a"] * 2) == [neighbours(index)] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_during_a_change_can_search_and_change() -> None:
    index = made()
    held, release = threading.Event(), threading.Event()

    def holds() -> None:
        with index._writing:
            held.set()
            release.wait()

    thread = threading.Thread(target=holds)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(20)  # where the lock stayed closed
            before = neighbours(index)
            index.add(np.zeros((70, 16)))
            index.remove(np.arange(3000, 3070))
            status = 0 if neighbours(index) == before else 2
        finally:
            os._exit(status)
    release.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def outcome_of_a_child(work: Callable[[], object]) -> int:
    """How a forked child ends that does this: 0, or what went wrong."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)  # where it waits for a thread that it has not
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_children_forked_beside_working_threads_end_well(tmp_path: Path) -> None:
    assert forks.faults(20, tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_property_that_a_thread_is_making_holds_no_child_up() -> None:
    making, release = threading.Event(), threading.Event()

    class Slow:
        def __init__(self, waits: bool) -> None:
            self.waits = waits

        @once
        def made(self) -> object:
            if self.waits:
                making.set()
                release.wait()
            return object()

    slow, kept = Slow(True), []
    thread = threading.Thread(target=lambda: kept.append(slow.made))
    thread.start()
    making.wait()
    assert outcome_of_a_child(lambda: Slow(False).made) == 0
    slow.waits = False
    first = slow.made  # made twice, and what was kept first is everybody's
    release.set()
    thread.join()
    assert kept == [first] == [slow.made]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_waits_for_imports_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slowly.py").write_text("import time; time.sleep(0.5)")
    monkeypatch.setattr(fr, "__path__", [*fr.__path__, str(tmp_path)])

    def imported() -> object:
        return importlib.import_module("fastretrieve.slowly")

    thread = threading.Thread(target=imported)
    thread.start()
    while "fastretrieve.slowly" not in sys.modules:
        time.sleep(0.001)
    assert outcome_of_a_child(imported) == 0
    thread.join()
    del sys.modules["fastretrieve.slowly"], fr.slowly  # type: ignore[attr-defined]


LONG_SEARCH = """
import signal, time
import numpy as np, fastretrieve as fr
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
rows = np.random.default_rng(0).standard_normal((60_000, 128)).astype(np.float32)
index = fr.Index(128)
index.add(rows)
before = index.search(rows[:3], 5)
queries = np.tile(rows, (20, 1))
print("searching", flush=True)
try:
    index.search(queries, 10)
except KeyboardInterrupt:
    print("stopped", time.time(), flush=True)
after = index.search(rows[:3], 5)
assert (before.ids == after.ids).all() and (before.scores == after.scores).all()
print("whole", len(index), index.add(rows[:1]), flush=True)
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_ctrl_c_ends_a_long_search_at_once(threads: str) -> None:
    environment = {**os.environ, "FASTRETRIEVE_NUM_THREADS": threads}
    with subprocess.Popen(
        [sys.executable, "-c", LONG_SEARCH], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "searching\n"
        time.sleep(0.3)
        sent = time.time()
        process.send_signal(signal.SIGINT)
        word, _, stopped = process.stdout.readline().partition(" ")
        rest = process.stdout.read()
    assert word == "stopped"
    # 0.1 s on a machine of one's own; the tests may share theirs with other work.
    assert float(stopped) - sent < 1.5
    assert rest == "whole 60000 [60000]\n"


NO_MEMORY = """
import resource, sys
import numpy as np, fastretrieve as fr
fr.set_num_threads(2)
rows = np.random.default_rng(0).standard_normal((20_000, 64)).astype(np.float32)
index = fr.Index(64, metric="l2")
index.add(rows)
before = index.search(rows[:3], 5)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)

def add():
    index.add(np.broadcast_to(rows[:1], (2_000_000, 64)))

def reserve():
    index.reserve(10**9)

def results():
    index.search(rows, 10_000)

def survivors():  # every row survives: the codes cannot tell equal rows apart
    index.search(np.repeat(rows[:1], 200, axis=0), 15_000)

def many_within():
    index.range_search(rows[:2000], 1e9)

for call in (add, reserve, results, survivors, many_within):
    try:
        call()
        print("no error from", call.__name__)
    except MemoryError as error:
        print(call.__name__, error)
after = index.search(rows[:3], 5)
assert (before.ids == after.ids).all() and len(index) == 20_000
print("whole", index.add(rows[:1]))
"""


def test_without_memory_the_index_stays_and_the_error_says_how_much_was_wanted() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_MEMORY], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("add wanted 512,000,000 bytes"), lines
    assert lines[1].startswith("reserve wanted 256,000,000,000 bytes"), lines
    assert "Unable to allocate" in lines[2], lines
    assert "wanted up to" in lines[3] or "Unable to allocate" in lines[3], lines
    assert re.fullmatch(
        "many_within a range search of 2000 queries had found [0-9]+ rows and wanted more than "
        "[1-9][0-9]+ bytes for them; search fewer at a time, or within a smaller radius",
        lines[4],
    ), lines
    assert lines[5] == "whole [20000]"


def test_a_lock_may_be_left_in_a_child_that_was_forked_inside_it() -> None:
    code = """
        import os, sys, warnings
        from fastretrieve._common.locks import ForkSafeLock
        warnings.simplefilter("ignore")
        lock, status = ForkSafeLock(), 1
        with lock:
            pid = os.fork()
            if pid == 0:
                with lock:
                    status = 0
        if pid == 0:
            os._exit(status)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
