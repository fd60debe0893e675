"""A change of an index that fails, wherever it fails, leaves the index as it was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
from fastretrieve._backends import memory
from fastretrieve._state import ids as ids_module
from test_index_changes import DIM, vectors


def snapshot(index: fr.Index) -> tuple[Any, ...]:
    ids = index.ids
    hits = index.search(vectors(5, 4), 6, score_dtype="float64")
    found = (hits.ids.tolist(), hits.scores.tobytes())
    return ids.tolist(), index.get(ids).tolist(), len(index), index.nbytes, *found


def mixed_index() -> fr.Index:
    index = fr.Index(DIM, metric="l2")
    index.add(vectors(1, 100))
    index.add(vectors(2, 1100), ids=np.random.default_rng(3).permutation(3000)[:1100] + 1000)
    index.remove(np.arange(0, 50, 3))
    return index


CHANGES: dict[str, Callable[[fr.Index], object]] = {
    "add": lambda index: index.add(vectors(7, 2000)),
    "add own ids": lambda index: index.add(vectors(7, 2000), ids=np.arange(2000)[::-1] + 9000),
    "remove": lambda index: index.remove(index.ids[::5]),
    "update": lambda index: index.update(index.ids[::2], vectors(8, len(index.ids[::2]))),
    "compact": lambda index: index.compact(),
}


class Bomb:
    """Raises at the n-th line inside the package, as Ctrl-C or a failed allocation may."""

    def __init__(self, error: type[BaseException], at: int) -> None:
        self.error, self.left = error, at

    def trace(self, frame: Any, event: str, arg: object) -> Any:
        if "/fastretrieve/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise self.error("injected")
        return self.trace


def steps(bomb: Bomb, change: Callable[[], object]) -> bool:
    """Whether the change ran to its end before the bomb went off."""
    sys.settrace(bomb.trace)
    try:
        change()
    except bomb.error:
        return False
    finally:
        sys.settrace(None)
    return True


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("name", CHANGES)
def test_interrupted_anywhere_it_is_as_before_or_as_after(
    name: str, error: type[BaseException]
) -> None:
    change = CHANGES[name]
    before = snapshot(mixed_index())
    changed = mixed_index()
    change(changed)
    after = snapshot(changed)
    n_failures = 0
    for at in range(1, 2000):
        index = mixed_index()
        finished = steps(Bomb(error, at), lambda index=index: change(index))
        state = snapshot(index)
        assert state == after if finished else state in (before, after)
        if finished:
            break
        if state == before:  # and it can be done again
            n_failures += 1
            change(index)
            assert snapshot(index) == after
    assert finished
    assert n_failures > 10


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let the n-th allocation from now on fail."""
    real = memory.empty

    def after(n: int) -> None:
        calls = iter(range(n))

        def empty(*args: Any) -> Any:
            if next(calls, None) is None:
                raise MemoryError("injected")
            return real(*args)

        monkeypatch.setattr(memory, "empty", empty)

    yield after
    monkeypatch.setattr(memory, "empty", real)


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("name", ["add", "add own ids", "update", "compact"])
def test_without_memory_nothing_changes(
    name: str, n: int, no_memory: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = mixed_index()
    before = snapshot(index)
    no_memory(n)
    try:
        CHANGES[name](index)
    except MemoryError:
        monkeypatch.undo()
        assert snapshot(index) == before
    else:
        assert n > 0


def test_too_large_an_array_says_how_many_bytes() -> None:
    index = fr.Index(1000)
    with pytest.raises(MemoryError, match=r"wanted 4,096,000,000,256,000 bytes .* float32"):
        index.reserve(1_024_000_000_000 + 1)
    assert len(index) == 0


def test_a_merge_of_maps_that_fails_loses_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    index = fr.Index(1)
    own = np.arange(3000)[::-1].astype(np.int64)
    index.add(np.ones((3000, 1)), ids=own)

    def fails(*args: object) -> None:
        raise MemoryError("injected")

    monkeypatch.setattr(ids_module, "_merge", fails)
    with pytest.raises(MemoryError):
        index.add(np.ones((3000, 1)), ids=own + 5000)
    monkeypatch.undo()
    assert len(index.get(own)) == 3000
