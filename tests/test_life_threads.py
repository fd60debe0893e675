"""Many threads search while others add and remove: every answer is that of a state that existed.

``FASTRETRIEVE_SOAK=60`` lets it run for a minute. ThreadSanitizer: CONTRIBUTING.md says how.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any, NamedTuple

import numpy as np

import fastretrieve as fr
import oracle

DIM, K = 4, 5
SECONDS = float(os.environ.get("FASTRETRIEVE_SOAK", "2"))


def vector(row_id: int) -> np.ndarray:
    """What the index holds under this id: few different values, so that ties are common."""
    digits = row_id * 7919 // np.array([1, 7, 49, 343]) % 7 - 3
    return digits.astype(np.float32)


class Answer(NamedTuple):
    began: int  # changes that were complete before the search began
    ended: int  # changes that had begun when it was over
    query: int
    hits: Any


class Life:
    """Changes in turn, each written down before and after it happens, and searches beside them."""

    def __init__(self) -> None:
        self.index = fr.Index(DIM, metric="l2")
        self.begun = self.done = 0
        self.changes: list[tuple[str, list[int]]] = []
        self.turn = threading.Lock()
        self.stop = threading.Event()
        self.answers: list[Answer] = []
        self.errors: list[BaseException] = []

    def change(self, what: str, size: int) -> None:
        """One change; the lock puts them in an order that the test can replay."""
        with self.turn:
            known = self.index.ids
            if what == "add":
                first = self.index._state.next_id
                ids = list(range(first, first + size))
            else:
                ids = known[:: max(len(known) // size, 1)][:size].tolist()
            self.changes.append((what, ids))
            self.begun += 1
            if what == "add":
                rows = np.stack([vector(i) for i in ids])
                added = self.index.add(rows[0] if size == 1 else rows)
                assert added.tolist() == ids
            else:
                self.index.remove(ids)
            self.done += 1

    def adder(self, seed: int) -> None:
        sizes = np.random.default_rng(seed)
        while not self.stop.is_set():
            self.change("add", int(sizes.choice([1, 1, 7, 64, 130])))
            time.sleep(0.002)

    def remover(self) -> None:
        while not self.stop.is_set():
            if len(self.index) > 300:
                self.change("remove", 100)
            if len(self.changes) % 20 == 0:
                self.index.compact()
            time.sleep(0.002)

    def searcher(self, seed: int) -> None:
        queries = np.random.default_rng(seed)
        while not self.stop.is_set():
            query, began = int(queries.integers(0, 5000)), self.done
            hits = self.index.search(vector(query), K, score_dtype="float64")
            self.answers.append(Answer(began, self.begun, query, hits))
            time.sleep(0.001)

    def run(self, seconds: float) -> None:
        self.change("add", 200)
        jobs = [(self.searcher, (i,)) for i in range(8)]
        jobs += [(self.adder, (i,)) for i in (100, 101)] + [(self.remover, ())]  # type: ignore[list-item]
        threads = [threading.Thread(target=self._kept, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self.stop.set()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _kept(self, job: Any, arguments: tuple[int, ...]) -> None:
        try:
            job(*arguments)
        except BaseException as error:
            self.errors.append(error)
            self.stop.set()

    def states(self) -> list[np.ndarray]:
        """The ids that were in the index after each number of changes."""
        held: set[int] = set()
        states = [np.zeros(0, np.int64)]
        for what, ids in self.changes:
            held = held | set(ids) if what == "add" else held - set(ids)
            states.append(np.array(sorted(held)))
        return states


def is_right(answer: Answer, ids: np.ndarray, rows: np.ndarray) -> bool:
    best = oracle.topk(vector(answer.query)[None], rows, K, "l2", ids=ids)
    same_ids = np.array_equal(best.ids[0], answer.hits.ids)
    return same_ids and np.array_equal(best.scores[0], answer.hits.scores, equal_nan=True)


def test_every_answer_is_that_of_a_state_that_existed_during_the_search() -> None:
    life = Life()
    life.run(SECONDS)
    states, sample = life.states(), life.answers
    step = max(len(sample) // 3000, 1)  # the oracle is slow
    for answer in sample[::step]:
        candidates = states[answer.began : answer.ended + 1]
        assert any(
            is_right(answer, ids, np.stack([vector(i) for i in ids.tolist()])) for ids in candidates
        ), answer
    assert len(sample) > 50
    assert len(life.changes) > 20


def test_memory_stays_flat_over_many_changes() -> None:
    """A soak in small: rows come and go, the index is saved and searched, and nothing is kept."""
    index = fr.Index(64)
    rows = np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32)

    def turn() -> None:
        ids = index.add(rows)
        for query in rows[:20]:
            index.search(query, 10, where=ids)
        index.update(ids[:50], rows[50:100])
        index.remove(ids)
        index.compact()

    rounds = int(100 * max(SECONDS / 2, 1))
    for _ in range(30):
        turn()
    before = resident()
    for _ in range(rounds):
        turn()
    assert resident() - before < 16 << 20  # one round alone passes a megabyte through
    assert len(index) == 0


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
