"""``fr.merge`` makes of the answers of several indexes that of one; ``fr.Hits`` and
``fr.Searchable`` are what it is made of.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import fastretrieve as fr
import oracle

DIM, N = 6, 180
METRICS = oracle.METRICS
FEW = [0.0, 1.0, -2.0, 3.0]  # values that make many equal scores


def rows(seed: int, n: int = N, *, ties: bool = False) -> np.ndarray:
    random = np.random.default_rng([72, seed])
    if ties:
        return random.choice(FEW, (n, DIM)).astype(np.float32)
    return random.standard_normal((n, DIM)).astype(np.float32)


def indexes(
    vectors: np.ndarray, metric: Any, n_parts: int, seed: int
) -> tuple[fr.Index, list[fr.Index]]:
    """An index over all rows, and several over a part each, under the same ids."""
    random = np.random.default_rng([73, seed])
    ids, owner = random.permutation(10 * len(vectors)), random.integers(n_parts, size=len(vectors))
    whole = fr.Index(DIM, metric=metric)
    whole.add(vectors, ids=ids[: len(vectors)])
    parts = [fr.Index(DIM, metric=metric) for _ in range(n_parts)]
    for number, part in enumerate(parts):
        part.add(vectors[owner == number], ids=ids[: len(vectors)][owner == number])
    return whole, parts


def hits_of(parts: list[fr.Index], queries: Any, k: int) -> list[fr.Hits]:
    return [part.search(queries, k=k, score_dtype="float64") for part in parts]


def assert_merged(whole: fr.Index, parts: list[fr.Index], queries: Any, k: int) -> None:
    expected = whole.search(queries, k=k, score_dtype="float64")
    found = fr.merge(hits_of(parts, queries, k))
    assert found.ids.dtype == np.int64
    assert found.scores.dtype == np.float64
    np.testing.assert_array_equal(found.ids, expected.ids)
    assert found.scores.tobytes() == expected.scores.tobytes()
    assert found.metric == whole.metric


# --- merging --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n_parts", [1, 2, 3, 7])
@pytest.mark.parametrize("metric", METRICS)
def test_merged_answers_are_those_of_one_index(metric: str, n_parts: int, ties: bool) -> None:
    whole, parts = indexes(rows(n_parts, ties=ties), metric, n_parts, n_parts)
    queries = rows(100, 5, ties=ties)
    for k in (1, 10, 60, N, N + 30):  # more than a part has, and more than there are
        assert_merged(whole, parts, queries, k)
    assert_merged(whole, parts, queries[0], 10)
    assert_merged(whole, parts, queries[:0], 10)


@pytest.mark.parametrize("seed", range(25))
def test_random_parts(seed: int) -> None:
    random = np.random.default_rng([74, seed])
    vectors = rows(seed, int(random.integers(0, 60)), ties=bool(seed % 2))
    n_parts = int(random.integers(1, 12))  # some are empty
    whole, parts = indexes(vectors, random.choice(METRICS), n_parts, seed)
    assert_merged(whole, parts, rows(seed + 200, 4, ties=True), int(random.integers(1, 80)))


@pytest.mark.parametrize("metric", METRICS)
def test_infinite_scores_come_before_missing_rows(metric: str) -> None:
    whole = fr.Index(1, metric=metric)  # type: ignore[arg-type]
    large = np.finfo(np.float32).max
    vectors = np.array([[large], [-large], [0], [1]], np.float32)
    whole.add(vectors)
    parts = [fr.Index(1, metric=metric) for _ in range(3)]  # type: ignore[arg-type]
    parts[0].add(vectors[:1], ids=[0])
    parts[2].add(vectors[1:], ids=[1, 2, 3])
    assert_merged(whole, parts, vectors, 6)
    made = [fr.Hits(np.array([[np.inf]]), np.array([[9]])), fr.Hits(np.array([[np.nan]]), [[-1]])]
    assert fr.merge(made[::-1], k=2, metric="l2").ids.tolist() == [[9, -1]]


def test_a_merge_of_merges_is_the_merge() -> None:
    whole, parts = indexes(rows(5, ties=True), "sqeuclidean", 7, 5)
    queries = rows(101, 5, ties=True)
    hits = hits_of(parts, queries, 12)
    nested = fr.merge([fr.merge(hits[:3]), fr.merge(hits[3:4]), fr.merge(hits[4:])])
    expected = oracle.Best(*whole.search(queries, k=12, score_dtype="float64"))
    for found in (nested, fr.merge(hits), fr.merge(hits[::-1])):
        oracle.assert_same(found, expected)


def test_k_is_as_many_as_each_part_has_or_what_is_given() -> None:
    whole, parts = indexes(rows(6), "ip", 3, 6)
    queries = rows(102, 3)
    hits = hits_of(parts, queries, 8)
    assert fr.merge(hits).ids.shape == (3, 8)
    for k in (1, 5, 8):
        expected = whole.search(queries, k=k, score_dtype="float64")
        np.testing.assert_array_equal(fr.merge(hits, k).ids, expected.ids)
    padded = fr.merge(hits, 30)
    assert padded.ids.shape == (3, 30)
    assert (padded.ids[:, 24:] == -1).all()
    assert np.isnan(padded.scores[:, 24:]).all()
    assert fr.merge([hits[0], fr.Hits(hits[1].scores[:, :3], hits[1].ids[:, :3])]).ids.shape[1] == 8


def test_tensors_come_back_as_tensors() -> None:
    whole, parts = indexes(rows(7), "l2", 3, 7)
    queries = torch.from_numpy(rows(103, 4))
    found = fr.merge(hits_of(parts, queries, 9))
    assert isinstance(found.scores, torch.Tensor)
    assert isinstance(found.ids, torch.Tensor)
    expected = whole.search(queries.numpy(), k=9, score_dtype="float64")
    np.testing.assert_array_equal(found.ids.numpy(), expected.ids)
    np.testing.assert_array_equal(found.scores.numpy(), expected.scores)


def test_hits_may_be_those_of_search_ids_and_topk() -> None:
    vectors = rows(8)
    queries = rows(104, 4)
    halves = (vectors[:100], vectors[100:])
    topk = [fr.topk(queries, half, 5, metric="ip", score_dtype="float64") for half in halves]
    topk[1].ids[...] += 100
    whole = fr.topk(queries, vectors, 5, metric="ip", score_dtype="float64")
    np.testing.assert_array_equal(fr.merge(topk, metric="ip").ids, whole.ids)


# --- what merge refuses ---------------------------------------------------------------------------


def a_hit(scores: Any, ids: Any = ((1,),), metric: str = "") -> fr.Hits:
    return fr.Hits(np.asarray(scores), np.asarray(ids), metric=metric)


WRONG: dict[str, tuple[list[fr.Hits], dict[str, Any], str]] = {
    "none": ([], {}, "the hits of at least one index, got none"),
    "float32": (
        [a_hit(np.zeros((1, 1), np.float32), metric="ip")],
        {},
        "float64 scores to be merged, got float32; search each index with score_dtype='float64'",
    ),
    "two metrics": (
        [a_hit([[0.0]], metric="ip"), a_hit([[0.0]], metric="l2")],
        {},
        r"one metric to be merged, got \['ip', 'l2'\]",
    ),
    "another metric than given": (
        [a_hit([[0.0]], metric="ip")],
        {"metric": "cosine"},
        r"one metric to be merged, got \['cosine', 'ip'\]",
    ),
    "made by hand": ([a_hit([[0.0]])], {}, "give metric="),
    "a metric that there is not": ([a_hit([[0.0]])], {"metric": "hamming"}, "metric must be"),
    "other queries": (
        [a_hit([[0.0]], metric="ip"), a_hit([[0.0], [1.0]], [[1], [2]], metric="ip")],
        {},
        r"answer the same queries, got shapes \[\(1,\), \(2,\)\]",
    ),
    "a vector and a matrix": (
        [a_hit([0.0], [1], metric="ip"), a_hit([[0.0]], metric="ip")],
        {},
        "answer the same queries",
    ),
    "no k": ([a_hit([[0.0]], metric="ip")], {"k": 0}, "k must be"),
}


@pytest.mark.parametrize("name", WRONG)
def test_hits_that_cannot_be_merged_are_named(name: str) -> None:
    hits, options, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        fr.merge(hits, **options)


# --- Searchable -----------------------------------------------------------------------------------


def test_an_index_is_searchable() -> None:
    assert isinstance(fr.Index(3), fr.Searchable)
    assert not isinstance(np.zeros(3), fr.Searchable)
    assert not isinstance(fr.Hits(0, 0), fr.Searchable)


class Several:
    """An index of several others, as one on several machines would be."""

    def __init__(self, parts: list[fr.Index]) -> None:
        self.parts = parts
        self.dim, self.metric = parts[0].dim, parts[0].metric

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def search(self, queries: Any, k: int = 10, **options: Any) -> fr.Hits:
        options["score_dtype"] = "float64"
        return fr.merge([part.search(queries, k, **options) for part in self.parts])

    def search_ids(self, ids: Any, k: int = 10, **options: Any) -> fr.Hits:
        raise NotImplementedError

    def range_search(self, queries: Any, radius: float, **options: Any) -> fr.InRange:
        raise NotImplementedError


def test_another_class_may_be_searchable() -> None:
    whole, parts = indexes(rows(9), "cosine", 3, 9)
    several: fr.Searchable = Several(parts)
    assert isinstance(several, fr.Searchable)
    assert (len(several), several.dim, several.metric) == (N, DIM, "cosine")
    allowed = whole.ids[::2]
    found = several.search(rows(105, 4), 7, where=allowed)
    expected = whole.search(rows(105, 4), 7, where=allowed)
    np.testing.assert_array_equal(found.ids, expected.ids)


# --- Hits -----------------------------------------------------------------------------------------


def some_hits() -> fr.Hits:
    return fr.Hits(np.array([[2.0, 1.0]]), np.array([[7, 3]]), metric="ip")


def test_hits_are_a_pair() -> None:
    hits = some_hits()
    scores, ids = hits
    assert isinstance(hits, tuple)
    assert len(hits) == 2
    assert scores is hits.scores is hits[0]
    assert ids is hits.ids is hits[1]
    assert repr(hits) == "Hits(scores=array([[2., 1.]]), ids=array([[7, 3]]))"
    assert fr.Hits(1.0, 2) == (1.0, 2) == fr.Hits(1.0, 2, metric="l2")
    assert hash(fr.Hits(1.0, 2)) == hash((1.0, 2))
    assert fr.Hits(scores=1.0, ids=2) != (1.0, 3)
    with pytest.raises(AttributeError):
        hits.scores = scores  # type: ignore[misc]


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {p}": lambda hits, p=p: pickle.loads(pickle.dumps(hits, p)) for p in range(6)},
}


@pytest.mark.parametrize("name", COPIES)
def test_hits_are_copied_with_all_they_know(name: str) -> None:
    again = COPIES[name](some_hits())
    assert type(again) is fr.Hits
    assert again.metric == "ip"
    np.testing.assert_array_equal(again.scores, [[2.0, 1.0]])
    np.testing.assert_array_equal(again.ids, [[7, 3]])


def test_every_search_says_its_metric() -> None:
    index = fr.Index(DIM, metric="sqeuclidean")
    index.add(rows(10))
    queries = rows(106, 2)
    plan, mask = index.plan(2, k=3), np.arange(N) % 2 == 0
    out = (np.empty((2, 3), np.float32), np.empty((2, 3), np.int64))
    answers = [
        index.search(queries, 3),
        index.search(queries[0], 3),
        index.search(queries.tolist(), 3),
        index.search(queries, 3, where=mask),
        index.search(queries, 3, out=out),
        index.search_ids([0, 1], 3),
        plan(queries),
        fr.topk(queries, rows(10), 3, metric="sqeuclidean"),
    ]
    assert [hits.metric for hits in answers] == ["sqeuclidean"] * len(answers)
    assert fr.Hits(0.0, 0).metric == ""
