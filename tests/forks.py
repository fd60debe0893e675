"""Forks children while threads search, change, save and load: ``python tests/forks.py 200``.

A child has none of its parent's threads, so a lock that one of them held is never opened there.
Every child does what the threads do; one that waits for more than 20 seconds is killed and counted.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import fastretrieve as fr

DIM = 8
ROWS = np.random.default_rng(0).standard_normal((3000, DIM)).astype(np.float32)


def made() -> fr.Index:
    index = fr.Index(DIM, metric="l2")
    index.add(ROWS)
    return index


def search_and_change(index: fr.Index, path: Path) -> None:
    """A change makes a new state, of which the first search makes the core's."""
    ids = index.add(ROWS[:70])
    index.search(ROWS[:5], 3)
    index.update(ids[:3], ROWS[:3])
    index.search(ROWS[:5], 3, where=ids[::2])
    index.remove(ids)
    index.search(ROWS[:300], 3)


def start_anew(index: fr.Index, path: Path) -> None:
    """Everything that is done once for each index."""
    other = made()
    other.plan(4, k=2)(ROWS[:4])
    other.knn_graph(2)
    other.compact()


def save_and_load(index: fr.Index, path: Path) -> None:
    """Files; each thread and each process has its own."""
    own = path / f"{os.getpid()}-{threading.get_ident()}"
    index.save(own)
    fr.Index.load(own, verify="codes").search(ROWS[:2], 2)


WORK = (search_and_change, search_and_change, start_anew, save_and_load)


@contextmanager
def working(index: fr.Index, path: Path) -> Iterator[None]:
    """Threads that do all of it, again and again."""
    over = threading.Event()

    def forever(work: Callable[[fr.Index, Path], None]) -> None:
        while not over.is_set():
            work(index, path)

    threads = [threading.Thread(target=forever, args=(work,)) for work in WORK]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def faults(n_forks: int, folder: Path) -> list[str]:
    """Fork so many children beside working threads; what went wrong in which."""
    index, found = made(), []
    with working(index, folder):
        for number in range(n_forks):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)
                    signal.alarm(20)  # where a lock stays closed
                    for work in WORK:
                        work(index, folder)
                    status = 0
                finally:
                    os._exit(status)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code:
                found.append(
                    f"child {number}: " + ("hung" if code == -signal.SIGALRM else "failed")
                )
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made_folder:
        wrong = faults(int(sys.argv[1]) if len(sys.argv) > 1 else 200, Path(made_folder))
    print("\n".join(wrong) or "every child ended well")
    sys.exit(bool(wrong))
