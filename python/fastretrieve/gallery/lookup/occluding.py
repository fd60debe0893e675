"""Pictures with a part covered, and the plain one: what an explanation compares a picture with.

What covers a part is the picture's paper: the median colour of its edges. A drawing's is what it is
drawn on, a photograph's some colour of its surroundings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

POSITIONS = 8  # a side: 64 pictures, and the whole one, are encoded in one batch
MOST_SIDE = 256  # pixels of the pictures that are covered


def plain(image: Image.Image) -> Image.Image:
    """A picture of the same size that shows its paper alone.

    >>> plain(Image.new("L", (4, 4), 7)).getextrema()
    (7, 7)
    """
    return Image.fromarray(np.broadcast_to(_paper(np.asarray(image)), _shape(image)).copy())


def covered(image: Image.Image, *, side: int | None = None) -> list[Image.Image]:
    """The picture ``POSITIONS`` squared times, in rows, each with one position covered. Large ones
    are made smaller first: to ``side`` pixels, or as many as an encoder without a size may see.
    """
    small = reduced(image, side)
    pixels = np.asarray(small)
    paper, made = _paper(pixels), []
    rows, columns = (_edges(n) for n in pixels.shape[:2])
    for top, bottom in rows:
        for left, right in columns:
            changed = pixels.copy()
            changed[top:bottom, left:right] = paper
            made.append(Image.fromarray(changed))
    return made


def reduced(image: Image.Image, side: int | None = None) -> Image.Image:
    """The picture with at most so many pixels a side."""
    most = min(2 * side if side else MOST_SIDE, 2 * MOST_SIDE)
    if max(image.size) <= most:
        return image
    small = image.copy()
    small.thumbnail((most, most), Image.Resampling.BILINEAR)
    return small


def _edges(n: int) -> list[tuple[int, int]]:
    """Where each position begins and ends; in a tiny picture several are the same pixel."""
    return [(i * n // POSITIONS, max(-(-(i + 1) * n // POSITIONS), 1)) for i in range(POSITIONS)]


def _paper(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The median colour of the edges."""
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    middle: NDArray[np.uint8] = np.median(edges, axis=0).astype(np.uint8)
    return middle


def _shape(image: Image.Image) -> tuple[int, ...]:
    return np.asarray(image).shape
