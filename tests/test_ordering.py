"""Sorting in pieces equals NumPy's, wherever the pieces end."""

from __future__ import annotations

import numpy as np
import pytest

from fastretrieve.ordering import order_of, ordered, taken


@pytest.mark.parametrize("piece", [1, 2, 7, 64, 5000])
@pytest.mark.parametrize("n_values", [1, 3, 50, 2**62])
@pytest.mark.parametrize("n", [0, 1, 2, 100, 1000])
def test_sorted_as_numpy_sorts(n: int, n_values: int, piece: int) -> None:
    keys = np.random.default_rng([n, piece]).integers(0, n_values, n)
    np.testing.assert_array_equal(order_of(keys, piece=piece), np.argsort(keys, kind="stable"))
    np.testing.assert_array_equal(ordered(keys, piece=piece), np.sort(keys))


@pytest.mark.parametrize("shape", [(50,), (50, 3), (50, 0), (0, 4)])
def test_taken_rows(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastretrieve.ordering.PIECE_BYTES", 100)
    array = np.random.default_rng(1).standard_normal(shape)
    order = np.random.default_rng(2).permutation(shape[0])
    np.testing.assert_array_equal(taken(array, order), array[order])
