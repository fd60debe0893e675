"""The spectrum of a sample of rows: along which axes they vary, and over how many.

Rows are lifted first, so that in every metric the better row is the nearer one
(``csrc/core/screen.hpp``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arrays import as_float
from fastretrieve._state.locating import rows_at
from fastretrieve._state.state import State

MAX_EXACT_DIM = 1024  # beyond, only the first axes are computed
SHORTEST, LONGEST = 2.0**-60, 2.0**60  # beyond, a head says nothing: docs/exactness.md

Doubles = NDArray[np.float64]


class Sample(NamedTuple):
    """Rows of the index, lifted so that the better row is the nearer one."""

    lifted: Doubles
    radius: float  # of inner products: the length of the longest row


class Axes(NamedTuple):
    """Principal axes, the widest first, and the mean that they leave out."""

    mean: Doubles
    rows: Doubles  # [n_axes, lifted]


def sample_of(state: State, slots: NDArray[np.int64], n: int, rng: np.random.Generator) -> Sample:
    """About ``n`` rows, in random order."""
    rows = in_range(as_float(rows_at(state, some(slots, n, rng))).astype(np.float64))
    rng.shuffle(rows)
    lifted, radius = lifted_rows(state.form.metric, rows)
    return Sample(lifted, radius)


def in_range(rows: Doubles) -> Doubles:
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    inside: Doubles = rows[(lengths == 0) | ((lengths >= SHORTEST) & (lengths <= LONGEST))]
    return inside


def some(slots: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """About ``n`` different slots, ascending; all if there are no more."""
    return slots if n >= len(slots) else slots[np.unique(rng.integers(len(slots), size=n))]


def lifted_rows(metric: str, rows: Doubles) -> tuple[Doubles, float]:
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    if metric == "cosine":
        return rows / np.where(lengths > 0, lengths, 1)[:, None], 0.0
    if metric != "ip":
        return rows, 0.0
    radius = float(lengths.max(initial=0))
    rest = np.sqrt(np.maximum(radius**2 - lengths**2, 0))
    return np.concatenate([rows, rest[:, None]], axis=1), radius


def lifted_queries(metric: str, queries: Doubles, radius: float) -> Doubles:
    if metric != "ip":
        return lifted_rows(metric, queries)[0]
    lengths = np.sqrt(np.einsum("ij,ij->i", queries, queries))
    scaled = queries * (radius / np.where(lengths > 0, lengths, 1))[:, None]
    return np.pad(scaled, [(0, 0), (0, 1)])


def spread_of(rows: Doubles) -> float:
    """Over how many dimensions the variance is spread: tr(C)^2 / tr(C^2) of the covariance C, from
    the products of different rows, so that few rows do not look like few dimensions.
    """
    centred = rows - rows.mean(axis=0)
    products = centred @ centred.T
    lengths = np.diag(products)
    n = len(rows)
    squares = float(np.einsum("ij,ij->", products, products) - np.square(lengths).sum())
    return float(lengths.mean()) ** 2 * n * (n - 1) / squares if squares > 0 else 0.0


def principal_axes(lifted: Doubles, n_axes: int) -> Axes:
    mean = lifted.mean(axis=0)
    return Axes(mean, _widest(lifted - mean, min(n_axes, lifted.shape[1])))


def _widest(centred: Doubles, n_axes: int) -> Doubles:
    """The orthonormal axes along which these rows vary most."""
    n, dim = centred.shape
    if dim <= MAX_EXACT_DIM and n > dim // 2:
        _, axes = np.linalg.eigh(centred.T @ centred)
        return np.ascontiguousarray(axes[:, ::-1][:, :n_axes].T)
    # The first axes only, by three rounds of a block of random directions.
    block = np.random.default_rng(1).standard_normal((dim, min(n_axes + 16, dim)))
    for _ in range(3):
        block = np.linalg.qr(centred.T @ (centred @ block))[0]
    small = centred @ block
    _, turn = np.linalg.eigh(small.T @ small)
    axes = block @ turn[:, ::-1][:, :n_axes]
    return np.ascontiguousarray(np.linalg.qr(axes)[0].T)
