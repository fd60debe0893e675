"""A part of a picture as a visitor names it: by shares, since pages show pictures smaller."""

from __future__ import annotations

import math
from typing import TypeAlias

from fastretrieve.gallery.lookup.regions import Region
from fastretrieve.server.limits import Refused

Shares: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom, from 0 to 1
_MOST_TEXT = 100


def parsed(text: str) -> Shares | None:
    """The shares that a request names, None for all of it; ``Refused`` says what is wrong.

    >>> parsed("0,0.25,0.5,1")
    (0.0, 0.25, 0.5, 1.0)
    """
    if not text:
        return None
    try:
        left, top, right, bottom = map(float, text[:_MOST_TEXT].split(","))
    except ValueError:
        raise Refused(
            422, "region is four numbers, left,top,right,bottom, as shares from 0 to 1"
        ) from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):  # a NaN is no order either
        raise Refused(
            422, "region is left,top,right,bottom with 0 <= left < right <= 1, top and bottom alike"
        )
    return left, top, right, bottom


def in_pixels(shares: Shares, size: tuple[int, int]) -> Region:
    """The region of a picture (width, height), at least a pixel wide and high.

    >>> in_pixels((0.0, 0.5, 0.0001, 1.0), (20, 10))
    (0, 5, 1, 10)
    """
    (width, height), (left, top, right, bottom) = size, shares
    x, y = min(math.floor(left * width), width - 1), min(math.floor(top * height), height - 1)
    return x, y, max(math.ceil(right * width), x + 1), max(math.ceil(bottom * height), y + 1)
