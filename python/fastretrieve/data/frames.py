"""The frames of a sequence, counted against the pixel limit before each is decoded.

All kept frames count together. GIF, WebP, APNG and AVIF build each frame on those before it, so
they are decoded from the start; frames that are not kept may take ``WALKED`` times the limit.
Frames of videos and folders are reduced if they would exceed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from fastretrieve.data.images import to_image
from fastretrieve.data.opening import PAGED, pixel_limit, refuse_pixels

WALKED = 8
MAX_FRAMES = 64  # of an animation, video or frame folder, spread evenly over its length


def frame_numbers(n_frames: int, max_frames: int = MAX_FRAMES) -> list[int]:
    """At most ``max_frames`` frame numbers, spread evenly, the first and last among them.

    >>> frame_numbers(9, 5)
    [0, 2, 4, 6, 8]
    """
    if n_frames <= max_frames:
        return list(range(n_frames))
    return [int(i) for i in np.linspace(0, n_frames - 1, max_frames).round()]


class PixelBudget:
    """How many pixels the frames of one sequence may have together."""

    def __init__(self, name: Any) -> None:
        self._name = name
        self._limit = pixel_limit()
        self._kept = self._walked = 0

    def keep(self, size: tuple[int, int]) -> None:
        """A frame that stays."""
        self._kept += size[0] * size[1]
        refuse_pixels(self._name, self._kept, self._limit, " in all frames")

    def walk(self, size: tuple[int, int]) -> None:
        """A frame that is only decoded."""
        self._walked += size[0] * size[1]
        limit = None if self._limit is None else WALKED * self._limit
        refuse_pixels(self._name, self._walked, limit, " in all frames")


def fitted(frame: Image.Image, *, n_frames: int, size: int | None) -> Image.Image:
    """The frame, reduced if ``n_frames`` of its size exceed the limit; never below twice the
    encoder's ``size``.
    """
    limit = pixel_limit()
    area = frame.width * frame.height
    if limit is None or size is None or area * n_frames <= limit:
        return frame
    by = (limit / (area * n_frames)) ** 0.5
    width, height = int(frame.width * by), int(frame.height * by)
    if min(width, height) < 2 * size:
        return frame
    return frame.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)


def middle_frame(item: Any) -> Image.Image:
    """A picture of a sequence: its middle frame, or its numbers [t, features] as shades."""
    if isinstance(item, np.ndarray) and item.ndim == 2:
        low, high = float(item.min()), float(item.max())
        shades = np.rint((item.T - low) / (high - low or 1) * 255).astype(np.uint8)
        return Image.fromarray(shades)
    return to_image(item[len(item) // 2])


def animation(image: Image.Image, wanted: Sequence[int], name: Any) -> list[Image.Image]:
    """The wanted frames of an open picture, upright, in mode "L" or "RGB"."""
    budget, kept = PixelBudget(name), set(wanted)
    frames = []
    for number in wanted if image.format in PAGED else range(max(wanted) + 1):
        image.seek(number)
        budget.walk(image.size)
        if number in kept:
            budget.keep(image.size)
            frames.append(to_image(image.copy()))
    return frames
