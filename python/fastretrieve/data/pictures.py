"""Pictures of items for people to look at, and what stands for an item that is gone."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from fastretrieve.data.images import to_image

_PAPER, _LINES = "#eaeef2", "#656d76"


def picture_of(item: Any, *, modality: str = "image") -> Image.Image:
    """A picture of an item: the image, the middle frame of a sequence, or its numbers as shades.

    >>> picture_of(np.zeros((7, 3)), modality="sequence").size
    (7, 3)
    """
    if modality == "image":
        return to_image(item)
    if isinstance(item, np.ndarray) and item.ndim == 2:
        low, high = float(item.min()), float(item.max())
        shades = np.rint((item.T - low) / (high - low or 1) * 255).astype(np.uint8)
        return Image.fromarray(shades)
    return to_image(item[len(item) // 2])


def missing_picture(size: int) -> Image.Image:
    """What stands for an item whose file is gone or damaged: a cross."""
    cross = Image.new("RGB", (size, size), _PAPER)
    pen = ImageDraw.Draw(cross)
    pen.line((0, 0, size, size), _LINES, 2)
    pen.line((0, size, size, 0), _LINES, 2)
    return cross


def enlarged(image: Image.Image, size: int) -> Image.Image:
    """In colour and fitted into a square; the pixels of small pictures stay sharp.

    >>> enlarged(Image.new("L", (28, 14)), 160).size
    (160, 80)
    """
    is_small = max(image.size) * 2 <= size
    method = Image.Resampling.NEAREST if is_small else Image.Resampling.LANCZOS
    return ImageOps.contain(image.convert("RGB"), (size, size), method)
