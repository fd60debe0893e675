"""Inputs that can break an exact search, named by what they break.

A case is queries and rows of one dimension, float32. Rows that are in trouble come after and before
ordinary ones, so that thresholds from one kind meet the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

# Around lanes (8), groups (4), registers (16, 64), a slice of the dimensions (384) and far beyond.
DIMS = (1, 2, 3, 7, 8, 9, 63, 64, 65, 383, 384, 385, 388, 400, 768, 1000, 4096, 16384)


class Case(NamedTuple):
    queries: Rows
    rows: Rows


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng([2, seed])


def gaussian(n_rows: int, dim: int, n_queries: int = 5, seed: int = 0) -> Case:
    random = _random(seed)
    return Case(
        random.standard_normal((n_queries, dim), dtype=np.float32),
        random.standard_normal((n_rows, dim), dtype=np.float32),
    )


def _all_rows_equal() -> Case:
    q, x = gaussian(1, 24)
    return Case(np.concatenate([q, x]), np.repeat(x, 1500, axis=0))


def _one_ulp_apart() -> Case:
    q, x = gaussian(1, 40)
    rows = np.repeat(x, 700, axis=0)
    column = np.arange(700) % 40
    toward = np.where(np.arange(700) % 3 == 0, np.inf, -np.inf).astype(np.float32)
    rows[np.arange(700), column] = np.nextafter(rows[np.arange(700), column], toward)
    return Case(np.concatenate([q, x, -x]), rows)


def _decades() -> Case:
    q, x = gaussian(600, 32)
    return Case(q, (x * np.logspace(-15, 15, 600)[:, None]).astype(np.float32))


def _decades_shuffled() -> Case:
    q, x = _decades()
    scale = np.logspace(-15, 15, len(q))[:, None]
    return Case((q * scale).astype(np.float32), _random(1).permutation(x))


def _subnormals() -> Case:
    random = _random(2)
    tiny = random.integers(-50, 51, (400, 12)).astype(np.float32) * np.float32(2.0**-149)
    return Case(np.concatenate([tiny[:3], random.standard_normal((3, 12), np.float32)]), tiny)


def _huge() -> Case:
    q, x = gaussian(300, 16, seed=3)
    x[::3] *= np.float32(6e37)
    q[::2] *= np.float32(6e37)
    return Case(q, x)


def _range_edges() -> Case:
    """Norms on, just inside and just outside 2**-60 and 2**60; and zero."""
    q, x = gaussian(360, 5, n_queries=8, seed=4)
    for i, row in enumerate(np.concatenate([x, q])):
        exponent = (-60, 60, -61, 61, 0, -59)[i % 6]
        only = np.zeros(5, np.float32)
        only[i % 5] = 2.0**exponent
        near = (row / np.sqrt((row.astype(np.float64) ** 2).sum()) * 2.0**exponent).astype(
            np.float32
        )
        step = np.nextafter(only, np.float32(np.inf if i % 2 else -np.inf), dtype=np.float32)
        value = (only, near, np.where(only != 0, step, only))[(i // 6) % 3]
        if i < len(x):
            x[i] = value
        else:
            q[i - len(x)] = value
    q[0], x[[7, 70]] = 0, 0  # zero times infinity, in the filter
    return Case(q, x)


def _zeros() -> Case:
    q, x = gaussian(500, 20, seed=5)
    x[::7] = 0
    x[1::7] = np.float32(-0.0)
    q[::2] = 0
    return Case(q, x)


def _only_zeros() -> Case:
    return Case(np.zeros((3, 9), np.float32), np.zeros((200, 9), np.float32))


def _one_huge_coordinate() -> Case:
    q, x = gaussian(640, 48, seed=6)
    x[np.arange(640), np.arange(640) % 48] += np.float32(1e6)
    return Case(q, x)


def _sparse() -> Case:
    q, x = gaussian(800, 100, seed=7)
    random = _random(8)
    return Case(q * (random.random(q.shape) < 0.05), x * (random.random(x.shape) < 0.05))


def _many_ties() -> Case:
    random = _random(9)
    return Case(
        random.integers(-1, 2, (6, 8)).astype(np.float32),
        random.integers(-1, 2, (1200, 8)).astype(np.float32),
    )


def _near_duplicates() -> Case:
    q, x = gaussian(1, 64, seed=10)
    noise = _random(11).standard_normal((6000, 64)) * 1e-6
    return Case(q, (x + noise).astype(np.float32))


def _class_order() -> Case:
    random = _random(12)
    centres = random.standard_normal((40, 32)) * 3
    rows = np.repeat(centres, 100, axis=0) + random.standard_normal((4000, 32)) * 0.2
    return Case((centres[-5:] + 0.1).astype(np.float32), rows.astype(np.float32))


def _opposite() -> Case:
    q, x = gaussian(300, 30, seed=13)
    return Case(q, np.concatenate([-q, x, -x, q]))


def _common_mean() -> Case:
    q, x = gaussian(700, 64, seed=14)
    return Case(q + np.float32(1000), x + np.float32(1000))


def _full_codes() -> Case:
    """Every coordinate at the largest code, in both signs: the largest integer products."""
    random = _random(15)
    x = np.where(random.random((256, 1000)) < 0.5, -1, 1).astype(np.float32)
    return Case(np.concatenate([x[:3], -x[:3], np.ones((1, 1000), np.float32)]), x * 3)


def _half_codes() -> Case:
    """Coordinates half-way between two codes, where rounding errors are the largest."""
    random = _random(16)
    x = (random.integers(-127, 127, (400, 33)) + 0.5).astype(np.float32)
    x[:, 0] = 127
    return Case(x[:5] + np.float32(0.25), x)


def _integers() -> Case:
    random = _random(17)
    return Case(
        random.integers(0, 256, (5, 49)).astype(np.float32),
        random.integers(0, 256, (900, 49)).astype(np.float32),
    )


def _relu() -> Case:
    q, x = gaussian(900, 96, seed=18)
    return Case(np.maximum(q - 1, 0), np.maximum(x - 1, 0))


def _same_root() -> Case:
    """Squared distances that differ, with equal roots: the smaller id must win."""
    rows = np.ones((640, 6), np.float32)
    rows[:, 0] = 1 + np.arange(640)[::-1] % 5 * np.float32(2.0**-23)
    rows[:, 5] = 4096
    return Case(np.zeros((2, 6), np.float32), rows)


def _equal_rows_behind_the_strips() -> Case:
    """Every row has copies among the last 63, which are scored first: thresholds are exact scores,
    and a row of a strip must be kept for reaching one. The codes of rows and of the last query lose
    nothing, those of the other queries do.
    """
    random = _random(20)
    base = np.where(random.random((7, 40)) < 0.5, -1, 1)
    queries = random.standard_normal((7, 40))
    queries[0, 0] = 300
    queries[6] = 1
    return Case(queries.astype(np.float32), np.tile(base, (101, 1))[:703].astype(np.float32))


def _errors_along_the_query() -> Case:
    """Rows 70 to 74 are the best for the first queries, and what their codes lose points along
    these queries: with any less error they would be dropped. The other queries want much less.
    """
    random = _random(21)
    queries = np.eye(40)[np.arange(70) % 40]
    queries[:32] = 1
    rows = np.full((700, 40), 30.0)
    rows[:, 1:] += random.permuted(np.arange(39) < np.arange(700)[:, None] % 9 + 1, axis=1)
    rows[70:75] = 30.49
    rows[:, 0] = 127
    return Case(queries.astype(np.float32), rows.astype(np.float32))


def _query_among_rows() -> Case:
    _, x = gaussian(500, 31, seed=19)
    return Case(x[[0, 63, 64, 499]], x)


MAKERS: dict[str, Callable[[], Case]] = {
    "single row": lambda: gaussian(1, 16),
    "ordinary": lambda: gaussian(2000, 67, n_queries=9),
    "all rows equal": _all_rows_equal,
    "rows one ulp apart": _one_ulp_apart,
    "row norms 30 decades apart": _decades,
    "norms of queries apart too": _decades_shuffled,
    "subnormals": _subnormals,
    "as large as float32 goes": _huge,
    "norms at the edges of the range": _range_edges,
    "zero rows and zero queries": _zeros,
    "nothing but zeros": _only_zeros,
    "one huge coordinate": _one_huge_coordinate,
    "sparse": _sparse,
    "many ties": _many_ties,
    "near duplicates overflow the buffer": _near_duplicates,
    "in order of class": _class_order,
    "opposite signs": _opposite,
    "a huge common mean": _common_mean,
    "codes at their largest": _full_codes,
    "half-way between codes": _half_codes,
    "integers": _integers,
    "relu": _relu,
    "roots that tie": _same_root,
    "errors along the query": _errors_along_the_query,
    "the query is a row": _query_among_rows,
    "equal rows behind the strips": _equal_rows_behind_the_strips,
}


@cache
def case(name: str) -> Case:
    made = MAKERS[name]()
    return Case(*(np.ascontiguousarray(part, dtype=np.float32) for part in made))
