"""Adding, removing, updating, compacting and reserving, against a dictionary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import fastretrieve as fr
import oracle
from screens import always_screened, covered_ids, screened

DIM = 16  # of which three are used


def vectors(seed: int, n: int) -> np.ndarray:
    """Few different values, so that ties are common."""
    rows = np.zeros((n, DIM), np.float32)
    rows[:, :3] = np.random.default_rng(seed).integers(-3, 4, (n, 3))
    return rows


class Model(dict[int, np.ndarray]):
    """What an index should hold."""

    @always_screened()
    def check(self, index: fr.Index) -> None:
        assert len(index) == len(self)
        ids = index.ids
        assert set(ids.tolist()) == set(self)
        assert len(ids) == len(self)
        rows = np.stack([self[i] for i in ids.tolist()]) if self else np.zeros((0, DIM), np.float32)
        np.testing.assert_array_equal(index.get(ids), rows)
        queries = vectors(99, 3)
        found = index.search(queries, 8, score_dtype="float64")
        oracle.assert_same(found, oracle.topk(queries, rows, 8, index.metric, ids=ids))


SEEDS = st.integers(0, 1000)
SIZES = st.one_of(st.integers(0, 5), st.sampled_from([63, 64, 65, 200]))


class Changes(RuleBasedStateMachine):
    @initialize(metric=st.sampled_from(["l2", "ip"]))
    def start(self, metric: Any) -> None:
        self.index = fr.Index(DIM, metric=metric)
        self.model = Model()
        self.next_id = 0

    def put(self, ids: Any, rows: np.ndarray) -> None:
        self.model.update(zip(map(int, ids), rows, strict=True))
        self.next_id = max([self.next_id, *(int(i) + 1 for i in ids)])

    def some_ids(self, data: st.DataObject) -> list[int]:
        known = sorted(self.model)
        if data.draw(st.booleans()):  # a range of neighbours
            begin = data.draw(st.integers(0, len(known) - 1))
            return known[begin : begin + data.draw(st.integers(1, 100))]
        return data.draw(st.lists(st.sampled_from(known), unique=True, max_size=20))

    @rule(seed=SEEDS, n=SIZES)
    def add(self, seed: int, n: int) -> None:
        ids = self.index.add(vectors(seed, n))
        assert ids.tolist() == list(range(self.next_id, self.next_id + n))
        self.put(ids, vectors(seed, n))

    @rule(seed=SEEDS, n=SIZES, first=st.integers(0, 400), shuffle=st.booleans())
    def add_own(self, seed: int, n: int, first: int, shuffle: bool) -> None:
        free = [i for i in range(first, first + 3 * n) if i not in self.model][:n]
        ids = np.random.default_rng(seed).permutation(free) if shuffle else np.array(free)
        ids = ids.astype(np.int64)
        rows = vectors(seed, len(ids))
        np.testing.assert_array_equal(self.index.add(rows, ids=ids), ids)
        self.put(ids, rows)

    @rule(seed=SEEDS, n=SIZES, first=st.integers(0, 400), shuffle=st.booleans())
    def extend(self, seed: int, n: int, first: int, shuffle: bool) -> None:
        """By an index in which rows were removed and updated, and which then goes on by itself."""
        other, model = fr.Index(DIM, metric=self.index.metric), Model()  # type: ignore[arg-type]
        ids = np.array([i for i in range(first, first + 3 * n) if i not in self.model][:n], int)
        ids = np.random.default_rng(seed).permutation(ids) if shuffle else ids
        other.add(vectors(seed, len(ids)), ids=ids)
        model.update(zip(ids.tolist(), vectors(seed, len(ids)), strict=True))
        other.remove(ids[::3])
        other.update(ids[1::3], vectors(seed + 1, len(ids[1::3])))
        model.update(zip(ids[1::3].tolist(), vectors(seed + 1, len(ids[1::3])), strict=True))
        for i in ids[::3].tolist():
            del model[i]
        self.index.extend(other)
        self.model.update(model)
        self.next_id = max([self.next_id, *(i + 1 for i in ids.tolist())])
        self.model.check(self.index)
        other.remove(ids[1::3])
        other.add(vectors(seed, 70))
        if model:
            again = fr.Index(DIM, metric=self.index.metric)  # type: ignore[arg-type]
            again.add([[0] * DIM], ids=[max(model)])
            with pytest.raises(ValueError, match="in the index already"):
                self.index.extend(again)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        ids = self.some_ids(data)
        self.index.remove(ids)
        for i in ids:
            del self.model[i]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), seed=SEEDS)
    def update(self, data: st.DataObject, seed: int) -> None:
        ids = self.some_ids(data)
        self.index.update(ids, vectors(seed, len(ids)))
        self.put(ids, vectors(seed, len(ids)))

    @rule()
    def compact(self) -> None:
        before = self.index.ids
        self.index.compact()
        np.testing.assert_array_equal(self.index.ids, before)

    @precondition(lambda self: self.model)
    @rule(seed=SEEDS)
    def screen(self, seed: int) -> None:
        screened(self.index, seed=seed)

    @rule(n=st.integers(1, 300))
    def reserve(self, n: int) -> None:
        self.index.reserve(n)

    @rule(seed=SEEDS, n=st.integers(1, 70))
    def fail(self, seed: int, n: int) -> None:
        bad = vectors(seed, n)
        bad[-1, -1] = np.nan
        with pytest.raises(ValueError, match=f"row {n - 1};"):
            self.index.add(bad)
        if self.model:
            known = max(self.model)
            with pytest.raises(ValueError, match="in the index already"):
                self.index.add(vectors(seed, 1), ids=[known])
            with pytest.raises(ValueError, match="row 0;"):
                self.index.update([known], bad[-1:])

    @invariant()
    def same(self) -> None:
        self.model.check(self.index)
        assert set(covered_ids(self.index)) <= set(self.model)


Changes.TestCase.settings = settings(
    max_examples=150, stateful_step_count=20, deadline=None, derandomize=True, database=None
)
TestAgainstADictionary = Changes.TestCase


def test_adding_nothing_is_no_error() -> None:
    index = fr.Index(DIM)
    assert index.add([]).shape == index.add(np.zeros((0, DIM))).shape == (0,)
    index.update([], [])
    assert len(index) == 0


def test_an_id_that_continues_another_block_is_found() -> None:
    index = fr.Index(1, metric="l2")
    index.add(np.full((5, 1), 1), ids=np.arange(10, 15))
    index.add(np.full((10, 1), 2), ids=np.arange(10))
    index.update([10], [[7]])  # the row behind 9, whose id its slab implies
    assert 10 in index
    assert index.get([10]) == 7
    index.remove([10])
    assert 10 not in index


def test_membership_is_about_ids() -> None:
    index = fr.Index(2)
    index.add(np.ones((3, 2)), ids=[5, 2, 9])
    assert 2 in index
    assert 3 not in index
    assert -1 not in index  # the id of a missing hit
    assert np.int64(9) in index


def test_the_next_id_is_one_more_than_the_largest_ever() -> None:
    index = fr.Index(1)
    index.add([[1], [2]], ids=[7, 3])
    index.remove([7])
    assert index.add([[1]]).tolist() == [8]
    index.compact()
    index.remove([8])
    assert index.add([[1]]).tolist() == [9]


def test_ids_go_up_to_the_last_int64_but_one() -> None:
    index = fr.Index(1, metric="l2")
    largest = 2**63 - 2
    index.add([[1], [2]], ids=[largest - 1, largest])
    assert index.search([[2]], 1).ids == largest
    assert largest in index
    with pytest.raises(ValueError, match=f"no 1 automatic ids after {largest}"):
        index.add([[3]])
    with pytest.raises(ValueError, match=f"at most {largest}, got {largest + 1}"):
        index.add([[3]], ids=[largest + 1])
    assert len(index) == 2


def test_many_own_ids_cross_every_level_of_the_map() -> None:
    random = np.random.default_rng(0)
    ids = random.permutation(20_000).astype(np.int64)
    index = fr.Index(1, metric="l2")
    for part in np.split(ids, [3, 1000, 1030, 5000, 5001, 12_000]):
        index.add(part[:, None].astype(np.float32), ids=part)
    assert (index.get(ids)[:, 0] == ids).all()
    changed = random.permutation(ids)[:3000]
    index.update(changed, -changed[:, None].astype(np.float32))
    assert (index.get(changed)[:, 0] == -changed).all()
    rest = np.setdiff1d(ids, changed)
    assert (index.get(rest)[:, 0] == rest).all()


def test_a_search_that_began_earlier_sees_the_index_as_it_was() -> None:
    index = fr.Index(2, metric="ip")
    index.add(np.eye(2))
    before = index._state
    index.update([0], [[0, 5]])
    index.remove([1])
    index.add(np.ones((100, 2)))
    scores, ids = index._form.backend.search(
        np.ones((1, 2), np.float32), before.snapshot, 5, index._counters, False
    )
    assert ids[0].tolist() == [0, 1, -1, -1, -1]
    assert scores[0, :2].tolist() == [1, 1]


def test_reserved_room_is_used_and_counts_no_rows() -> None:
    index = fr.Index(4, metric="l2")
    index.reserve(5000)
    slab = index._state.segments[-1].slab
    for i in range(40):
        index.add(np.full((100, 4), i))
    assert [segment.slab for segment in index._state.segments] == [slab]
    assert len(index) == 4000


def test_compact_gives_memory_back() -> None:
    index = fr.Index(64)
    index.add(np.random.default_rng(0).standard_normal((5000, 64)))
    index.remove(np.arange(4000))
    index.compact()
    assert index.nbytes < 1000 * 64 * 4 * 1.5
    assert index.ids.tolist() == list(range(4000, 5000))


def test_bytes_held_are_within_the_promise() -> None:
    rows = np.random.default_rng(0).standard_normal((20_000, 128)).astype(np.float32)
    for metric in oracle.METRICS:
        index = fr.Index(128, metric=metric)
        index.add(rows)
        assert index.nbytes <= 1.3 * rows.nbytes
        own = fr.Index(128, metric=metric)
        own.add(rows, ids=np.random.default_rng(1).permutation(20_000))
        assert own.nbytes <= 1.35 * rows.nbytes


def test_extending_copies_no_rows_and_refuses_another_kind(tmp_path: Path) -> None:
    old, new = fr.Index(DIM), fr.Index(DIM)
    old.add(vectors(1, 5000))
    new.add(vectors(2, 5000), ids=np.arange(19_000, 14_000, -1))
    for name, index in (("old", old), ("new", new)):
        index.save(tmp_path / name)
    both = fr.Index(DIM)
    for name in ("old", "new"):
        both.extend(fr.Index.load(tmp_path / name))
    assert not any(segment.slab.rows.flags.writeable for segment in both._state.segments)
    both.save(tmp_path / "both")
    again = fr.Index.load(tmp_path / "both")
    np.testing.assert_array_equal(again.ids, both.ids)
    queries = vectors(3, 4)
    np.testing.assert_array_equal(again.search(queries, 9).ids, both.search(queries, 9).ids)
    for other in (fr.Index(DIM + 1), fr.Index(DIM, metric="ip"), fr.Index(DIM, dtype="float16")):
        with pytest.raises(ValueError, match="extended by one of the same dim"):
            both.extend(other)
