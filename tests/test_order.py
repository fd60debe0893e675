"""``index.ids`` keeps the order of first additions, so that metadata may lie beside an index."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fastretrieve as fr

N = 200


def rows(n: int = N, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([12, seed]).standard_normal((n, 4)).astype(np.float32)


def updated() -> fr.Index:
    index = fr.Index(4, metric="l2")
    index.add(rows(), ids=np.random.default_rng(3).permutation(1000)[:N])
    index.update(index.ids[[5, 150, 3]], rows(3, seed=1))
    index.update(index.ids[[3, 199]], rows(2, seed=2))
    return index


def again(index: fr.Index, path: Path) -> fr.Index:
    index.save(path)
    return fr.Index.load(path, verify="codes")


def compacted(index: fr.Index, path: Path) -> fr.Index:
    index.compact()
    return index


def extended(index: fr.Index, path: Path) -> fr.Index:
    other = fr.Index(4, metric="l2")
    other.extend(index)
    return other


WAYS: dict[str, Callable[[fr.Index, Path], fr.Index]] = {
    "update": lambda index, path: index,
    "compact": compacted,
    "save and load": again,
    "pickle": lambda index, path: pickle.loads(pickle.dumps(index)),
    "extend": extended,
    "all of them": lambda index, path: extended(again(compacted(index, path), path), path),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_mask_beside_the_index_means_the_same_rows(way: str, tmp_path: Path) -> None:
    before = np.random.default_rng(3).permutation(1000)[:N]
    mask = np.random.default_rng(4).random(N) < 0.3
    index = WAYS[way](updated(), tmp_path / "a")
    np.testing.assert_array_equal(index.ids, before)
    queries = rows(7, seed=5)
    by_ids = index.search(queries, N, where=before[mask])
    for found in (
        index.search(queries, N, where=mask),
        index.search(queries, N, where=np.tile(mask, (7, 1))),
        index.search(queries, N, exclude=~mask),
        index.plan(7, N, where=mask)(queries),
    ):
        np.testing.assert_array_equal(found.ids, by_ids.ids)
    near = index.range_search(queries, 2.0, where=mask)
    np.testing.assert_array_equal(
        near.ids, index.range_search(queries, 2.0, where=before[mask]).ids
    )
    np.testing.assert_array_equal(index.knn_graph(1).rows, before)


def test_removed_ids_leave_and_come_back_last() -> None:
    index = fr.Index(4)
    index.add(rows(6))
    index.update([1], rows(1))
    index.remove([0, 1])
    index.update([3, 2], rows(2))
    index.add(rows(1), ids=[1])
    assert index.ids.tolist() == [2, 3, 4, 5, 1]


def test_codes_follow_rows_that_all_were_updated(tmp_path: Path) -> None:
    whole, index = fr.Index(4, metric="l2"), fr.Index(4, metric="l2")
    whole.add(rows(128))
    whole.update(np.arange(128)[::-1], rows(128, seed=1))
    index.extend(whole)  # one slab without a removed row, in another order
    index = again(index, tmp_path / "a")
    assert index.ids.tolist() == list(range(128))
    np.testing.assert_array_equal(index.get(np.arange(128)[::-1]), rows(128, seed=1))


def test_without_updates_nothing_is_kept_for_the_order() -> None:
    index = fr.Index(4)
    index.add(rows())
    index.remove([3])
    index.add(rows(), ids=np.arange(N)[::-1] + 1000)
    assert index._state.order is None
    assert all(segment.began is None for segment in index._state.segments)
    index.update([4], rows(1))
    assert index._state.order is not None
    index.compact()
    assert index._state.order is None
