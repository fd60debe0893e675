"""Filtered searches return the best of the allowed rows, whatever shape the filter has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
import oracle
from fastretrieve._queries import filters

DIM, K = 6, 7
RANDOM = np.random.default_rng([6, 1])


def vectors(n: int, seed: int = 0) -> np.ndarray:
    """Few different values, so that ties are common."""
    return np.random.default_rng(seed).integers(-3, 4, (n, DIM)).astype(np.float32)


def grown(*sizes: int, own: bool = False, gone: int = 0) -> fr.Index:
    """An index of several slabs, with removed rows."""
    index = fr.Index(DIM, metric="l2")
    for i, n in enumerate(sizes):
        ids = np.random.default_rng(i).permutation(n) * 2 + 10_000 * i + 1 if own else None
        index.add(vectors(n, i), ids=ids)
        index.reserve(index._state.segments[-1].free + 1)  # the next rows go to a slab of their own
    if gone:
        index.remove(index.ids[::gone])
    return index


INDEXES = {
    "empty": grown(),
    "one row": grown(1),
    "a tail alone": grown(50),
    "whole strips": grown(128),
    "strips and a tail": grown(1000),
    "slabs": grown(130, 64, 1, 300),
    "own ids": grown(130, 64, 1, 300, own=True),
    "removed here and there": grown(200, 333, gone=3),
    "half removed, own ids": grown(700, 65, own=True, gone=2),
}


def check(index: fr.Index, allowed: np.ndarray, **filter: Any) -> None:
    """``allowed``: [n_rows] or [n_queries, n_rows] over ``index.ids``."""
    queries, ids = vectors(5, 77), index.ids
    found = index.search(queries, K, score_dtype="float64", **filter)
    expected = oracle.topk(queries, index.get(ids), K, "l2", ids=ids, allowed=allowed)
    oracle.assert_same(found, expected)


@pytest.fixture(params=INDEXES)
def index(request: pytest.FixtureRequest) -> fr.Index:
    return INDEXES[request.param]


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 1])
def test_a_mask(index: fr.Index, share: float, isa: str) -> None:
    mask = RANDOM.random(len(index)) < share
    check(index, mask, where=mask)
    check(index, ~mask, exclude=mask)


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_a_mask_for_each_query(index: fr.Index, share: float) -> None:
    masks = RANDOM.random((5, len(index))) < share
    check(index, masks, where=masks)
    check(index, ~masks, exclude=masks)


@pytest.mark.parametrize("many", [0, 2])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 1])
def test_booleans_for_each_query_are_read_in_place_or_packed(
    index: fr.Index, share: float, many: float, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "MANY", many)
    whole = len(index) > 0 and all(segment.live is None for segment in index._state.segments)
    masks = (RANDOM.random((2 * 5, len(index) + 3)) < share)[::2, 3:]  # not adjacent
    (_, _, segments), *_ = filters.masked(index._state, masks, None, 5)
    assert (segments.mask.words is None) == (whole and many == 0)
    check(index, masks, where=masks)
    check(index, masks[::-1], where=masks[::-1])
    queries = vectors(5, 77)
    near = index.range_search(queries, 3.0, where=masks, score_dtype="float64")
    for i, allowed in enumerate(masks):
        found = index.range_search(queries[i : i + 1], 3.0, where=allowed, score_dtype="float64")
        part = slice(near.offsets[i], near.offsets[i + 1])
        np.testing.assert_array_equal(near.ids[part], found.ids)
        np.testing.assert_array_equal(near.scores[part], found.scores)


@pytest.mark.parametrize("n", [0, 1, 40])
def test_ids(index: fr.Index, n: int, isa: str) -> None:
    ids = RANDOM.choice(index.ids, min(n, len(index)), replace=False)
    known = np.isin(index.ids, ids)
    given = np.concatenate([ids, [999_999_999, -1], ids[:1]])  # unknown, none, twice
    check(index, known, where=given)
    check(index, ~known, exclude=given)


def test_ids_for_each_query(index: fr.Index) -> None:
    if not len(index):
        pytest.skip("there are no ids to choose from")
    ids = RANDOM.choice(index.ids, (5, 30))
    ids[1, 5:] = -1
    known = np.stack([np.isin(index.ids, row) for row in ids])
    check(index, known, where=ids)
    check(index, ~known, exclude=ids)


def test_both_at_once(index: fr.Index) -> None:
    masks = RANDOM.random((5, len(index))) < 0.6
    gone = index.ids[::2]
    check(index, masks & ~np.isin(index.ids, gone), where=masks, exclude=gone)
    check(index, ~masks & np.isin(index.ids, gone), where=gone, exclude=masks)


def test_masks_of_many_queries_are_made_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    index = INDEXES["slabs"]
    monkeypatch.setattr(filters, "MAX_MASK_BYTES", 150)  # two queries of nine words
    masks = RANDOM.random((5, len(index))) < 0.5
    check(index, masks, where=masks)
    check(index, masks & ~np.isin(index.ids, [3]), where=masks, exclude=[3])


def test_strips_without_an_allowed_row_are_not_scanned() -> None:
    index = grown(64 * 100)
    index.search(vectors(1), 3, where=np.arange(128, 192))
    assert index.stats()["rows_scanned"] == 64


FORMS = {
    "list": lambda mask: mask.tolist(),
    "strided": lambda mask: np.repeat(mask, 2)[::2],
    "column major": lambda mask: np.asfortranarray(np.tile(mask, (5, 1))),
    "broadcast": lambda mask: np.broadcast_to(mask, (5, len(mask))),
    "uint16 ids": lambda mask: np.flatnonzero(mask).astype(np.uint16),
    "range": lambda mask: range(0, len(mask), 2),
}


@pytest.mark.parametrize("form", FORMS)
def test_kinds_of_arrays(form: str) -> None:
    index = INDEXES["strips and a tail"]
    mask = np.arange(len(index)) % 2 == 0
    check(index, mask, where=FORMS[form](mask))


def test_one_id_need_not_be_a_list() -> None:
    index = INDEXES["strips and a tail"]
    mask = np.arange(len(index)) == 70
    check(index, mask, where=index.ids[70])
    check(index, ~mask, exclude=int(index.ids[70]))


def test_torch_masks_and_ids() -> None:
    torch = pytest.importorskip("torch")
    index = INDEXES["strips and a tail"]
    mask = np.arange(len(index)) % 3 == 0
    check(index, mask, where=torch.from_numpy(mask))
    check(index, mask, where=torch.from_numpy(np.flatnonzero(mask)))


def test_a_zero_query_finds_the_smallest_allowed_ids() -> None:
    index = fr.Index(2)
    index.add(np.ones((200, 2)), ids=np.arange(200)[::-1])
    assert index.search([0, 0], 3, where=np.arange(70, 180)).ids.tolist() == [70, 71, 72]


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_neighbours_of_members(metric: Any) -> None:
    index = fr.Index(DIM, metric=metric)
    rows = vectors(300, 5)
    index.add(rows, ids=np.arange(300) * 3)
    wanted = np.array([0, 30, 897])
    found = index.search_ids(wanted, K, score_dtype="float64")
    others = index.ids != wanted[:, None]
    expected = oracle.topk(
        rows[wanted // 3], rows, K, metric, ids=np.arange(300) * 3, allowed=others
    )
    oracle.assert_same(found, expected)
    with_self = index.search_ids(wanted, K, include_self=True, score_dtype="float64")
    oracle.assert_same(with_self, index.search(rows[wanted // 3], K, score_dtype="float64"))


def test_neighbours_of_members_behind_a_filter() -> None:
    index = INDEXES["strips and a tail"]
    ids = index.search_ids([4, 9], 5, where=np.arange(5, 900), exclude=[6]).ids
    assert 4 not in ids[0]
    assert 9 not in ids[1]
    assert set(ids.ravel()) <= {5, *range(7, 900)}


def test_one_member_gives_one_row() -> None:
    index = INDEXES["whole strips"]
    found = index.search_ids(5, 3)
    assert found.ids.shape == found.scores.shape == (3,)
    with pytest.raises(KeyError, match="1 of 1 ids are not in the index: 128"):
        index.search_ids(128)


ERRORS = {
    "mask too short": ({"where": [True]}, ValueError, r"each of the 128 rows .* got 1"),
    "masks for other queries": (
        {"where": np.ones((2, 128), bool)},
        ValueError,
        "5 queries, got 2",
    ),
    "floats": ({"where": [0.5]}, TypeError, r"got \[0\.5\]"),
    "text": ({"exclude": ["a"]}, TypeError, "exclude must be booleans"),
    "a mask of numbers": (
        {"where": [0, 1] * 64},
        ValueError,
        r"128 zeros and .*astype\(bool",
    ),
    "ragged": ({"where": [[1], [2, 3]]}, ValueError, "equal length; fill those of ids up with -1"),
    "negative": ({"exclude": [-2]}, ValueError, "0 or more .* got -2"),
    "three dimensions": ({"where": np.ones((1, 1, 1), int)}, ValueError, r"got shape \(1, 1, 1\)"),
    "beyond int64": ({"where": [2**63]}, ValueError, "at most 9223372036854775806"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_was_wanted(name: str) -> None:
    filter, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        INDEXES["whole strips"].search(vectors(5), **filter)
