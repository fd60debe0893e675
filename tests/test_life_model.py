"""Anything that can happen to an index, in any order, against a dictionary and the oracle."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import fastretrieve as fr
import oracle
from screens import always_screened, covered_ids, screened

DIM = 16  # of which three are used
SEEDS = st.integers(0, 1000)
SIZES = st.one_of(st.integers(0, 5), st.sampled_from([63, 64, 65, 200]))


def vectors(seed: int, n: int) -> np.ndarray:
    """Few different values, so that ties are common."""
    rows = np.zeros((n, DIM), np.float32)
    rows[:, :3] = np.random.default_rng(seed).integers(-3, 4, (n, 3))
    return rows


class Life(RuleBasedStateMachine):
    @initialize(metric=st.sampled_from(oracle.METRICS))
    def start(self, metric: Any) -> None:
        self.index = fr.Index(DIM, metric=metric)
        self.model: dict[int, np.ndarray] = {}
        self.next_id = 0
        self.kept: Any = None
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self) -> None:
        self.folder.cleanup()

    @property
    def path(self) -> Path:
        return Path(self.folder.name) / "index"

    def put(self, ids: Any, rows: np.ndarray) -> None:
        self.model.update(zip(map(int, ids), rows, strict=True))
        self.next_id = max([self.next_id, *(int(i) + 1 for i in ids)])

    @always_screened()
    def check_search(self, allowed: Any = None, **filter: Any) -> None:
        ids = self.index.ids
        rows = np.array([self.model[i] for i in ids.tolist()], np.float32).reshape(-1, DIM)
        found = self.index.search(vectors(99, 3), 8, score_dtype="float64", **filter)
        metric = self.index.metric
        expected = oracle.topk(vectors(99, 3), rows, 8, metric, ids=ids, allowed=allowed)
        oracle.assert_same(found, expected)

    @rule(seed=SEEDS, n=SIZES)
    def add(self, seed: int, n: int) -> None:
        ids = self.index.add(vectors(seed, n))
        assert ids.tolist() == list(range(self.next_id, self.next_id + n))
        self.put(ids, vectors(seed, n))

    @rule(seed=SEEDS, n=st.integers(1, 70))
    def add_one_by_one(self, seed: int, n: int) -> None:
        for row in vectors(seed, n):
            self.put(self.index.add(row), row[None])

    @rule(seed=SEEDS, n=SIZES, first=st.integers(0, 400), shuffle=st.booleans())
    def add_own(self, seed: int, n: int, first: int, shuffle: bool) -> None:
        free = np.array([i for i in range(first, first + 3 * n) if i not in self.model][:n], int)
        ids = np.random.default_rng(seed).permutation(free) if shuffle else free
        self.index.add(vectors(seed, len(ids)), ids=ids)
        self.put(ids, vectors(seed, len(ids)))

    @precondition(lambda self: self.model)
    @rule(seed=SEEDS, share=st.sampled_from([0.01, 0.3, 1]))
    def remove(self, seed: int, share: float) -> None:
        gone = self.some_ids(seed, share)
        self.index.remove(gone)
        for i in gone.tolist():
            del self.model[i]

    @precondition(lambda self: self.model)
    @rule(seed=SEEDS, share=st.sampled_from([0.01, 0.3]))
    def update(self, seed: int, share: float) -> None:
        ids = self.some_ids(seed, share)
        self.index.update(ids, vectors(seed, len(ids)))
        self.put(ids, vectors(seed, len(ids)))

    def some_ids(self, seed: int, share: float) -> np.ndarray:
        known = np.array(sorted(self.model))
        random = np.random.default_rng(seed)
        return random.choice(known, max(int(share * len(known)), 1), replace=False)

    @rule(seed=SEEDS, n=SIZES, first=st.integers(400, 800))
    def extend(self, seed: int, n: int, first: int) -> None:
        """By an index of which rows were removed, updated and put to the end."""
        free = np.array([i for i in range(first, first + 3 * n) if i not in self.model][:n], int)
        other = fr.Index(DIM, metric=self.index.metric)
        other.add(vectors(seed, len(free)), ids=free)
        if len(free) > 2:
            other.remove(free[:1])
            other.update(free[1:-1][::-1], vectors(seed + 1, len(free) - 2))
        if len(free) > 64:
            other.add(vectors(seed + 2, 1), ids=free[:1])
        self.index.extend(other)
        self.put(other.ids, other.get(other.ids))

    @rule()
    @always_screened()
    def graph(self) -> None:
        graph = self.index.knn_graph(2)
        assert graph.rows.tolist() == list(self.model)
        parts = [part.rows for part in self.index.iter_knn_graph(2, batch=50)]
        assert np.concatenate([*parts, np.zeros(0, int)]).tolist() == list(self.model)

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule(seed=SEEDS)
    def screen(self, seed: int) -> None:
        screened(self.index, seed=seed)

    @rule(n=st.integers(1, 300))
    def reserve(self, n: int) -> None:
        self.index.reserve(n)

    @rule(mmap=st.booleans(), codes=st.booleans(), verify=st.sampled_from([False, True, "codes"]))
    def save_and_load(self, mmap: bool, codes: bool, verify: Any) -> None:
        self.index.save(self.path, codes=codes)
        self.index = fr.Index.load(self.path, mmap=mmap, verify=verify)

    @rule()
    def pickle(self) -> None:
        self.index = pickle.loads(pickle.dumps(self.index))

    @rule(seed=SEEDS, share=st.sampled_from([0, 0.05, 0.5, 1]), each=st.booleans())
    def search_behind_masks(self, seed: int, share: float, each: bool) -> None:
        n = len(self.index)
        mask = np.random.default_rng(seed).random((3, n) if each else n) < share
        self.check_search(mask, where=mask)
        self.check_search(~mask, exclude=mask)

    @rule(seed=SEEDS, share=st.sampled_from([0.05, 0.5]), each=st.booleans())
    def keep_a_mask(self, seed: int, share: float, each: bool) -> None:
        """A mask that lies beside the index until rows are added or removed."""
        n = len(self.index)
        mask = np.random.default_rng(seed).random((3, n) if each else n) < share
        self.kept = (list(self.model), mask)

    @precondition(lambda self: self.kept is not None and self.kept[0] == list(self.model))
    @rule()
    def search_behind_the_kept_mask(self) -> None:
        self.check_search(self.kept[1], where=self.kept[1])
        self.check_search(~self.kept[1], exclude=self.kept[1])

    @precondition(lambda self: self.model)
    @rule(seed=SEEDS, share=st.sampled_from([0.01, 0.3]))
    def search_behind_ids(self, seed: int, share: float) -> None:
        some, others = self.some_ids(seed, share), self.some_ids(seed + 1, share)
        where = np.concatenate([some, [10**9, -1]])
        allowed = np.isin(self.index.ids, some) & ~np.isin(self.index.ids, others)
        self.check_search(allowed, where=where, exclude=others)

    @precondition(lambda self: self.model)
    @rule(seed=SEEDS)
    @always_screened()
    def search_neighbours(self, seed: int) -> None:
        ids = self.some_ids(seed, 0.01)[:4]
        found = self.index.search_ids(ids, 6, score_dtype="float64")
        members = self.index.ids
        rows = np.stack([self.model[i] for i in members.tolist()])
        queries = np.stack([self.model[i] for i in ids.tolist()])
        others = members != ids[:, None]
        metric = self.index.metric
        expected = oracle.topk(queries, rows, 6, metric, ids=members, allowed=others)
        oracle.assert_same(found, expected)

    @invariant()
    def same(self) -> None:
        ids = self.index.ids
        assert ids.tolist() == list(self.model)  # a dictionary keeps the order of first additions
        rows = np.array([self.model[i] for i in ids.tolist()], np.float32).reshape(-1, DIM)
        np.testing.assert_array_equal(self.index.get(ids), rows)
        assert set(covered_ids(self.index)) <= set(self.model)
        self.check_search()


Life.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
TestLife = Life.TestCase
