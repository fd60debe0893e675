"""More queries than are held at a time: blocks of queries must not show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import fastretrieve as fr
import oracle

N_QUERIES = 8192 * 2 + 77  # csrc/cpu/search.cpp holds 8192 for each thread


@pytest.mark.parametrize("threads", [1, 2])
def test_results_and_masks_of_every_block(threads: int, use_threads: Callable[[int], None]) -> None:
    random = np.random.default_rng(81)
    rows = random.standard_normal((130, 4)).astype(np.float32)
    queries = random.standard_normal((N_QUERIES, 4)).astype(np.float32)
    use_threads(threads)
    index = fr.Index(4, metric="l2")
    index.add(rows)
    asked = np.r_[0:40, 8150:8230, 16350:N_QUERIES]
    found = index.search(queries, 3, score_dtype="float64")
    expected = oracle.topk(queries[asked], rows, 3, "l2")
    oracle.assert_same(fr.Hits(found.scores[asked], found.ids[asked]), expected)

    for share in (0.1, 0.6):  # packed, and read where they are
        allowed = random.random((N_QUERIES, 130)) < share
        found = index.search(queries, 3, where=allowed, score_dtype="float64")
        expected = oracle.topk(queries[asked], rows, 3, "l2", allowed=allowed[asked])
        oracle.assert_same(fr.Hits(found.scores[asked], found.ids[asked]), expected)


def test_a_wrong_query_is_named_by_its_own_number(use_threads: Callable[[int], None]) -> None:
    use_threads(1)
    index = fr.Index(2)
    index.add([[1, 0]])
    queries = np.ones((N_QUERIES, 2), np.float32)
    queries[9000, 1] = np.nan
    with pytest.raises(ValueError, match="not finite in row 9000"):
        index.search(queries, 1)


@pytest.mark.parametrize("k", [1, 2, 31, 32, 33])
def test_first_thresholds_with_ties(k: int, isa: str) -> None:
    """A strip whose rows tie, or whose norms are out of range, gives no wrong first threshold."""
    random = np.random.default_rng(82)
    rows = random.integers(-1, 2, (400, 6)).astype(np.float32)
    rows[3:20] *= np.float32(1e30)
    rows[30:40] *= np.float32(1e-30)
    rows[40:44] = 0
    queries = random.integers(-1, 2, (20, 6)).astype(np.float32)
    for metric in oracle.METRICS:
        index = fr.Index(6, metric=metric)  # type: ignore[arg-type]
        index.add(rows)
        found = index.search(queries, k, score_dtype="float64")
        oracle.assert_same(found, oracle.topk(queries, rows, k, metric))
