"""Sorting in pieces equals NumPy's, wherever the pieces end."""

from __future__ import annotations

import numpy as np
import pytest

from fastretrieve._common.arrays import as_rows
from fastretrieve._common.ordering import converted, order_of, ordered, taken


@pytest.mark.parametrize("piece", [1, 2, 7, 64, 5000])
@pytest.mark.parametrize("n_values", [1, 3, 50, 2**62])
@pytest.mark.parametrize("n", [0, 1, 2, 100, 1000])
def test_sorted_as_numpy_sorts(n: int, n_values: int, piece: int) -> None:
    keys = np.random.default_rng([n, piece]).integers(0, n_values, n)
    np.testing.assert_array_equal(order_of(keys, piece=piece), np.argsort(keys, kind="stable"))
    np.testing.assert_array_equal(ordered(keys, piece=piece), np.sort(keys))


@pytest.mark.parametrize("shape", [(50,), (50, 3), (50, 0), (0, 4)])
def test_taken_rows(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastretrieve._common.ordering.PIECE_BYTES", 100)
    array = np.random.default_rng(1).standard_normal(shape)
    order = np.random.default_rng(2).permutation(shape[0])
    np.testing.assert_array_equal(taken(array, order), array[order])


@pytest.mark.parametrize("shape", [(), (50,), (50, 3), (50, 0), (0, 4)])
def test_converted_numbers(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastretrieve._common.ordering.PIECE_BYTES", 100)
    array = np.random.default_rng(3).standard_normal(shape)
    for given in (array, np.asfortranarray(array), array[::-2] if shape else array):
        result = converted(given, np.float32)
        np.testing.assert_array_equal(result, given.astype(np.float32))
        assert result.dtype == np.float32
        assert result.flags.c_contiguous


def test_a_large_integer_is_found_in_any_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastretrieve._common.ordering.PIECE_BYTES", 100)
    rows = np.zeros((50, 3), int)
    rows[41, 2] = -(2**24) - 1
    with pytest.raises(ValueError, match=r"got -16777217 at \(41, 2\)"):
        as_rows(rows, name="rows")
