"""What the zoo's warp and rounding kernels should answer, from NumPy and exact fractions."""

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def expected_warp(values: Array) -> Array:
    lane = np.arange(32)
    odd = sum(1 << int(j) for j in lane if values[j] % 2)
    upper_odd = bin(odd >> 16).count("1")
    down = np.where(lane % 16 + 7 < 16, lane + 7, lane)
    same = [sum(1 << int(j) for j in lane if values[j] == v) for v in values]
    bits = [f"{v:032b}" for v in values]
    shifted = [(0x01234567_89ABCDEF << int(v) >> 32) & 0xFFFFFFFF for v in values]
    bytes_a = np.array([0x01F203E4 * int(v) & 0xFFFFFFFF for v in values], np.uint32)
    dots = bytes_a.view(np.int8).reshape(32, 4).astype(int) @ np.array([1, -1, -128, 127]) - values
    rows = [
        np.full(32, values[5]),
        values[lane // 8 * 8 + (lane + 9) % 8],
        values[lane ^ 3],
        values[np.where(lane >= 2, lane - 2, lane)],
        values[down],
        values[lane ^ 16] * 3,
        np.full(32, odd),
        np.full(32, int((values == 3).any())),
        np.full(32, 1),
        np.array(same),
        np.full(32, values.sum()),
        np.full(32, values.min() - 8),
        np.full(32, values.max()),
        np.full(32, np.bitwise_or.reduce(1 << values)),
        np.where(lane < 16, values[lane ^ 15], values[16] + upper_odd),
        np.array([(b[::-1].find("1") + 1) * 100 + (b.find("1") if "1" in b else 32) for b in bits]),
        np.array([int(b[::-1], 2) for b in bits]),
        dots,
        np.array([_byte_perm(0x33221100 + int(v), 0x77665544, 0x7250) for v in values]),
        np.array(shifted),
    ]
    return np.stack([np.asarray(row, np.int64).astype(np.uint32).view(np.int32) for row in rows])


def _byte_perm(x: int, y: int, selector: int) -> int:
    source = x.to_bytes(4, "little") + y.to_bytes(4, "little")
    return int.from_bytes(bytes(source[selector >> 4 * i & 7] for i in range(4)), "little")


def _round(exact: Fraction, dtype: type[np.floating[Any]], mode: str) -> float:
    """The neighbour of ``exact`` in ``dtype``: nearest, largest below, or smallest above."""
    near = dtype(exact.numerator / exact.denominator)  # Python rounds this division to nearest
    if dtype is np.float32:  # and float32 from float64 rounds twice, so look at the neighbours
        around = [np.nextafter(near, s * dtype(np.inf)) for s in (-1, 1)]
        near = min([near, *around], key=lambda x: (abs(Fraction(float(x)) - exact), _odd(x)))
    if mode == "rd" and Fraction(float(near)) > exact:
        return float(np.nextafter(near, dtype(-np.inf)))
    if mode == "ru" and Fraction(float(near)) < exact:
        return float(np.nextafter(near, dtype(np.inf)))
    return float(near)


def _odd(x: np.floating[Any]) -> int:
    return int(x.view(f"u{x.dtype.itemsize}")) & 1


def expected_rounding(a: float, b: float, c: float) -> list[float]:
    x, y, z = Fraction(a), Fraction(b), Fraction(c)
    f = [Fraction(float(np.float32(v))) for v in (a, b, c)]
    f64, f32 = np.float64, np.float32
    product = Fraction(_round(x * y, f64, "rn"))
    square = float(f32(f[0]) * f32(f[0]))
    return [
        *(_round(x + y, f64, mode) for mode in ("rn", "rd", "ru")),
        *(_round(x * y, f64, mode) for mode in ("rn", "rd", "ru")),
        _round(x - y, f64, "rn"),
        _round(x / y, f64, "rn"),
        float(np.sqrt(f64(a) * f64(a))),
        _round(x * y + z, f64, "rn"),
        _round(product + z, f64, "rn"),
        *(_round(f[0] + f[1], f32, mode) for mode in ("rn", "rd", "ru")),
        *(_round(f[0] * f[1], f32, mode) for mode in ("rn", "rd", "ru")),
        *(_round(f[0] * f[1] + f[2], f32, mode) for mode in ("rd", "ru")),
        _round(f[0] / f[1], f32, "rn"),
        float(np.sqrt(f32(square))),
        *(_round(x, f32, mode) for mode in ("rn", "rd", "ru")),
    ]
