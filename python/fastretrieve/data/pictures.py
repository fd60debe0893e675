"""Pictures of items for people, and a cross in place of an item that is gone."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw, ImageOps

from fastretrieve.data.modalities import kind_of

_PAPER, _LINES = "#eaeef2", "#656d76"


def picture_of(item: Any, *, modality: str = "image") -> Image.Image:
    """A picture of an item of any modality.

    >>> import numpy as np
    >>> picture_of(np.zeros((7, 3)), modality="sequence").size
    (7, 3)
    """
    return kind_of(modality).picture(item)


def missing_picture(size: int) -> Image.Image:
    """A cross, in place of an item whose file is gone or damaged."""
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
