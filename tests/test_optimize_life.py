"""The life of what ``optimize`` makes: what each change keeps, moves and drops."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
import oracle
from fastretrieve._backends.cpu import CpuBackend
from fastretrieve._state import optimizing
from screens import always_screened, covered_ids, screen_of, screened

DIM = 18
N = 200
STRIPS = 192  # rows in whole strips


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([72, seed]).standard_normal((n, DIM)).astype(np.float32)


def made(n: int = N, *, first: int = 0, **options: Any) -> fr.Index:
    index = fr.Index(DIM, **{"metric": "l2", **options})
    index.add(vectors(n), ids=np.arange(first, first + n)[::-1])
    return screened(index)


@always_screened()
def assert_answers(index: fr.Index) -> None:
    rows, queries = index.get(index.ids), vectors(5, 9)
    found = index.search(queries, 9, score_dtype="float64")
    oracle.assert_same(found, oracle.topk(queries, rows, 9, index.metric, ids=index.ids))
    allowed = index.ids % 3 == 0
    found = index.search(queries, 9, where=allowed, score_dtype="float64")
    expected = oracle.topk(queries, rows, 9, index.metric, ids=index.ids, allowed=allowed)
    oracle.assert_same(found, expected)


# --- what a change does ---------------------------------------------------------------------------

ALL = set(range(N - STRIPS, N))  # the first added have the largest ids


def loaded(index: fr.Index, folder: Path) -> fr.Index:
    index.save(folder / "a")
    return fr.Index.load(folder / "a", verify="codes")


def extension(n: int) -> fr.Index:
    other = fr.Index(DIM, metric="l2")
    other.add(vectors(n, 3), ids=np.arange(1000, 1000 + n))
    return other


# What a change does to an index, and the ids that are covered afterwards.
CHANGES: dict[str, tuple[Callable[[fr.Index, Path], object], set[int]]] = {
    "add": (lambda index, folder: index.add(vectors(1000, 1)), ALL),
    "add own ids": (lambda i, folder: i.add(vectors(3), ids=[900, 800, 700]), ALL),
    "remove": (lambda index, folder: index.remove([5, 100, 101]), ALL - {100, 101}),
    "remove and add": (
        lambda i, folder: (i.remove([100]), i.add(vectors(1), ids=[100])),
        ALL - {100},
    ),
    "update": (lambda index, folder: index.update([9, 10], vectors(2, 2)), ALL - {9, 10}),
    "reserve": (lambda index, folder: index.reserve(5000), ALL),
    "extend": (lambda index, folder: index.extend(extension(70)), ALL),
    "extend by a smaller one": (lambda i, folder: i.extend(screened(extension(70))), ALL),
    "extend by a larger one": (
        lambda index, folder: index.extend(screened(extension(1000))),
        set(range(1000, 1960)),
    ),
    "compact": (lambda index, folder: index.compact(), ALL),
    "save and load": (loaded, ALL),
    "pickle": (lambda index, folder: pickle.loads(pickle.dumps(index)), ALL),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_keeps_rows_that_stay(name: str, isa: str, tmp_path: Path) -> None:
    change, expected = CHANGES[name]
    index = made()
    before = index._state
    if isinstance(after := change(index, tmp_path), fr.Index):
        index = after
    assert set(covered_ids(index)) == expected
    assert index.stats()["optimized_rows"] == len(expected)
    assert_answers(index)
    index.compact()
    in_strips = index.ids[: len(index) // 64 * 64].tolist()
    assert set(covered_ids(index)) == expected & {*in_strips}
    assert_answers(index)
    assert before.screen is not None  # of the state that other searches may still use
    assert before.optimized_rows == STRIPS


def test_rows_that_leave_the_strips_are_scanned_again() -> None:
    index = made()
    index.remove(np.arange(100, 150))  # of 150 rows, 128 lie in strips
    index.compact()
    assert len(covered_ids(index)) == 128
    assert_answers(index)


def test_the_screen_goes_with_its_last_row() -> None:
    index = made()
    index.add(vectors(500, 1))
    index.remove(sorted(ALL - {50}))
    assert covered_ids(index) == [50]
    index.update([50], vectors(1, 2))
    assert index._state.screen is None
    assert index.stats()["optimized_rows"] == 0
    assert_answers(index)
    index = made()
    index.remove(index.ids)
    index.compact()
    assert index._state.screen is None


def test_slots_of_rows_that_were_left_behind_name_no_rows_that_come_later() -> None:
    """The other index has a segment without live rows, whose slots the next addition gets."""
    other = fr.Index(DIM, metric="l2")
    other.add(vectors(1024), ids=np.arange(1024) * 2)
    other.add(vectors(128, 1), ids=np.arange(5000, 5256, 2))
    assert len(other._state.segments) == 2
    screened(other)
    other.remove(np.arange(5000, 5256, 2))
    index = fr.Index(DIM, metric="l2")
    index.extend(other)
    index.add(vectors(128, 2))
    assert covered_ids(index) == list(range(0, 2048, 2))
    assert_answers(index)


def test_an_empty_index_takes_over_the_screen_of_a_file(tmp_path: Path) -> None:
    made(dtype="float16").save(tmp_path / "a")
    index = fr.Index(DIM, metric="l2", dtype="float16")
    index.extend(fr.Index.load(tmp_path / "a"))
    assert set(covered_ids(index)) == ALL
    assert not index._state.screen.arrays["screen_records"].flags.owndata  # type: ignore[union-attr]
    assert_answers(index)


def test_a_moved_screen_copies_only_places() -> None:
    index = made()
    before = index._state.screen
    index.compact()
    after = index._state.screen
    assert before is not None
    assert after is not None
    for name, array in after.arrays.items():
        assert np.shares_memory(array, before.arrays[name]) == (name != "screen_places")


# --- Index.optimize -------------------------------------------------------------------------------


def test_few_rows_are_not_optimized() -> None:
    index = fr.Index(DIM)
    index.add(vectors(70))
    done = index.optimize()
    assert isinstance(done, fr.Optimized)
    assert (done.rows, done.head) == (0, 0)
    assert done.because
    assert index._state.screen is None
    assert fr.Index(DIM).optimize().rows == 0


def test_what_would_not_pay_any_more_is_dropped() -> None:
    index = made()
    assert index.optimize().rows == 0
    assert index._state.screen is None
    assert_answers(index)


def test_the_screen_that_is_made_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(state: Any, progress: Any) -> Any:
        progress(1, 2)
        return screen_of(state, 7), "it pays"

    monkeypatch.setattr(optimizing, "make_screen", make)
    index, calls = fr.Index(DIM, metric="ip"), list[tuple[int, int]]()
    index.add(vectors(N))
    before, n_bytes = index._state, index.nbytes
    assert index.optimize(progress=lambda *done: calls.append(done)) == (STRIPS, 16, "it pays")
    assert calls == [(1, 2)]
    assert before.screen is None
    assert index._state.screen is not None
    assert index.nbytes == n_bytes + index._state.screen.nbytes
    assert not index._state.snapshot.is_doubtful
    assert "screen(head=16, leaves=3, rows=192)" in repr(index.plan(3))
    assert_answers(index)
    index.add(vectors(N, 1))
    index.optimize(progress=lambda *done: None)
    assert len(covered_ids(index)) == 2 * N // 64 * 64


def test_interrupted_the_index_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(state: Any, progress: Any) -> Any:
        raise KeyboardInterrupt

    index = made()
    before = index._state
    monkeypatch.setattr(optimizing, "make_screen", make)
    with pytest.raises(KeyboardInterrupt):
        index.optimize()
    assert index._state is before


def test_a_backend_that_reads_no_screens_keeps_them_for_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made().save(tmp_path / "a")
    monkeypatch.setattr(CpuBackend, "reads_screens", False)
    index = fr.Index.load(tmp_path / "a", verify="codes")
    assert index._state.screen is not None
    assert index._state.snapshot.screen is None
    assert index.stats()["optimized_rows"] == 0
    assert "screen" not in repr(index.plan(3))
    assert index.optimize()[:2] == (0, 0)
    assert "CPU" in index.optimize().because
    index.remove([100])
    index.compact()
    assert_answers(index)
    index.save(tmp_path / "b")
    monkeypatch.undo()
    again = fr.Index.load(tmp_path / "b", verify="codes")
    assert set(covered_ids(again)) == ALL - {100}
    assert_answers(again)


# --- the same bits --------------------------------------------------------------------------------


def spectral(n: int, seed: int) -> np.ndarray:
    """Rows near a plane of four dimensions, in clusters, of lengths that differ: heads tell most of
    them apart.
    """
    random = np.random.default_rng([73, seed])
    plane = np.random.default_rng(73).standard_normal((4, 64))
    rows = random.standard_normal((n, 4)) @ plane + 0.05 * random.standard_normal((n, 64))
    return (rows * random.uniform(0.7, 1.4, (n, 1))).astype(np.float32)


def step_by_step(index: fr.Index, folder: Path) -> Any:
    """An index whose rows are optimized, after each of some changes."""
    yield index
    index.remove(index.ids[::5])
    yield index
    index.add(spectral(300, 2))
    index.update(index.ids[::31], spectral(len(index.ids[::31]), 3))
    yield index
    index.save(folder / "a")
    yield fr.Index.load(folder / "a", verify="codes")
    index.compact()
    yield index
    yield pickle.loads(pickle.dumps(index))


@pytest.mark.parametrize(
    ("metric", "dtype"),
    [("l2", "float32"), ("cosine", "float16"), ("ip", "bfloat16"), ("sqeuclidean", "float32")],
)
def test_answers_stay_those_of_the_oracle(
    metric: str, dtype: str, isa: str, tmp_path: Path
) -> None:
    index = fr.Index(64, metric=metric, dtype=dtype)
    index.add(spectral(6000, 0), ids=np.random.default_rng(1).permutation(9000)[:6000])
    queries = spectral(3, 1)
    for now in step_by_step(screened(index), tmp_path):
        before, ids = now.stats(), now.ids
        rows, mask = now.get(ids), np.random.default_rng(2).random((3, len(ids))) < 0.5
        exact = oracle.all_scores(queries, rows, metric)
        for allowed in (None, mask[0], mask):
            expected = oracle.best(exact, 20, metric, ids=ids, allowed=allowed)
            found = now.search(queries, 20, where=allowed, score_dtype="float64")
            oracle.assert_same(found, expected)
            for i in range(3):
                one = None if allowed is None else np.broadcast_to(allowed, mask.shape)[i]
                found = now.search(queries[i], 20, where=one, score_dtype="float64")
                np.testing.assert_array_equal(found.ids, expected.ids[i])
        radius = float(oracle.best(exact, 20, metric).scores[0, -1])
        near = now.range_search(queries[0], radius, score_dtype="float64").ids
        reaches = exact[0] <= radius if metric in oracle.DISTANCES else exact[0] >= radius
        assert sorted(near.tolist()) == sorted(ids[reaches].tolist())
        after = now.stats()
        assert after["rows_screened"] > before["rows_screened"]
        assert after["fell_back"] - before["fell_back"] < after["queries"] - before["queries"]


# --- with the screens that optimize makes ---------------------------------------------------------


def large(metric: str = "l2") -> fr.Index:
    index = fr.Index(64, metric=metric)  # type: ignore[arg-type]
    index.add(spectral(20_000, 0))
    return index


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_an_optimized_index_lives_on(metric: str, isa: str, tmp_path: Path) -> None:
    index, calls = large(metric), list[tuple[int, int]]()
    queries, n_bytes = spectral(4, 1), index.nbytes
    exact = oracle.all_scores(queries, spectral(20_000, 0), metric)
    done = index.optimize(progress=lambda *call: calls.append(call))
    assert done.rows == 20_000 // 64 * 64
    assert done.head in range(16, 257, 16)
    assert str(done.head) in done.because
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1]
    assert n_bytes < index.nbytes < 1.5 * n_bytes
    assert f"head={done.head}" in repr(index.plan(4))
    index.save(tmp_path / "a")
    gone = np.arange(0, 20_000, 3)
    for now in (index, fr.Index.load(tmp_path / "a", verify="codes")):
        found = now.search(queries, 10, score_dtype="float64")
        oracle.assert_same(found, oracle.best(exact, 10, metric))
        now.remove(gone)
        allowed = np.arange(20_000) % 3 != 0
        for _ in range(2):
            found = now.search(queries, 10, score_dtype="float64")
            oracle.assert_same(found, oracle.best(exact, 10, metric, allowed=allowed))
            now.compact()
        assert now.stats()["rows_screened"] > 0
        assert covered_ids(now) == now.ids[: len(now) // 64 * 64].tolist()


def test_a_stop_at_any_step_leaves_the_index_as_it_was() -> None:
    index = large()
    before, steps = index._state, list[int]()
    index.optimize(progress=lambda done, total: steps.append(done))
    index._state = before
    for step in steps:

        def stop(done: int, total: int, step: int = step) -> None:
            if done == step:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            index.optimize(progress=stop)
        assert index._state is before


def test_searches_go_on_and_changes_wait() -> None:
    index, seen = large(), list[Any]()
    expected = index.search(spectral(3, 1), 10)
    adding = threading.Thread(target=lambda: seen.append(index.add(spectral(1, 2))))

    def meanwhile(done: int, total: int) -> None:
        if not adding.ident:
            adding.start()
        np.testing.assert_array_equal(index.search(spectral(3, 1), 10).ids, expected.ids)
        assert not seen
        assert len(index) == 20_000

    done = index.optimize(progress=meanwhile)
    adding.join()
    assert len(index) == 20_001
    assert index.stats()["optimized_rows"] == done.rows
