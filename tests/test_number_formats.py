"""Conversions between float32, float16 and bfloat16 are those of NumPy and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fastretrieve as fr

BITS16 = np.arange(1 << 16, dtype=np.uint16)


def stored(values: Any, dtype: Any) -> Any:
    """What an index with one column holds of these values."""
    index = fr.Index(1, metric="ip", dtype=dtype)
    index.add(values)
    return index.get(index.ids)[:, 0]


def test_every_float16_widens_exactly(isa: str) -> None:
    halves = BITS16.view(np.float16)
    halves = halves[np.isfinite(halves)]
    wide = stored(halves[:, None], "float32")
    np.testing.assert_array_equal(wide.view(np.uint32), halves.astype(np.float32).view(np.uint32))
    same = stored(halves[:, None], "float16")
    np.testing.assert_array_equal(same.view(np.uint16), halves.view(np.uint16))


def test_every_bfloat16_widens_exactly(isa: str) -> None:
    wide = (BITS16.astype(np.uint32) << 16).view(np.float32)
    finite = np.isfinite(wide)
    tensor = torch.from_numpy(BITS16[finite].view(np.int16)).view(torch.bfloat16)[:, None]
    for dtype in ("float32", "bfloat16"):
        found = stored(tensor, dtype)
        np.testing.assert_array_equal(found.view(np.uint32), wide[finite].view(np.uint32))


def around(halves: np.ndarray) -> np.ndarray:
    """float32 values at, between, and one ulp beside the 16-bit numbers."""
    ordered = np.unique(halves.astype(np.float64))
    middles = ((ordered[1:] + ordered[:-1]) / 2).astype(np.float32)
    points = np.concatenate([ordered.astype(np.float32), middles])
    up, down = (np.nextafter(points, np.float32(end)) for end in (np.inf, -np.inf))
    return np.concatenate([points, up, down])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrowing_rounds_to_nearest_even(dtype: str, isa: str) -> None:
    kind = getattr(torch, dtype)
    every = torch.from_numpy(BITS16.view(np.int16)).view(kind).float().numpy()
    values = around(every[np.isfinite(every)])
    random = np.random.default_rng(0).integers(0, 1 << 32, 200_000, dtype=np.uint32)
    values = np.concatenate([values, random.view(np.float32)])
    wanted = torch.from_numpy(values).to(kind)
    keep = torch.isfinite(wanted).numpy()  # the others are refused, see test_errors.py
    found = stored(values[keep][:, None], dtype)
    np.testing.assert_array_equal(found.astype(np.float32), wanted.float().numpy()[keep])
