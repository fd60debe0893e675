"""Small items to check an encoder with: images of every kind; sequences and texts of several
lengths.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class Sample(NamedTuple):
    """Items, and a label for each."""

    items: list[Any]
    labels: NDArray[np.int64]  # [n], 0 or 1


def sample_images(n: int = 12, *, seed: int = 0) -> Sample:
    """Stripes across (label 0) or along (label 1), of many sizes, kinds and colours."""
    rng = np.random.default_rng(seed)
    items, labels = [], np.arange(n) % 2
    for i, label in enumerate(labels.tolist()):
        height, width = [(40, 40), (33, 47), (64, 48)][i % 3]
        along = np.arange(width if label else height)
        wave = 0.5 + 0.4 * np.sin(2 * np.pi * along / rng.uniform(9, 14) + rng.uniform(0, 6))
        plane = np.broadcast_to(wave[None, :] if label else wave[:, None], (height, width))
        colour = rng.uniform(0.6, 1.0, 3)
        pixels = plane[:, :, None] * colour + rng.normal(0, 0.03, (height, width, 3))
        items.append(_as_kind(np.clip(pixels, 0, 1), i % 4))
    return Sample(items, labels.astype(np.int64))


def sample_sequences(n: int = 12, *, n_features: int = 6, seed: int = 0) -> Sample:
    """Rising (label 0) or falling (label 1) curves, float32 [t, n_features] of different t."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    items = []
    for label in labels.tolist():
        length = int(rng.integers(5, 12))
        ramp = np.linspace(-1, 1, length) * (-1 if label else 1)
        noise = rng.normal(0, 0.1, (length, n_features))
        items.append((ramp[:, None] * rng.uniform(0.5, 1.5, n_features) + noise).astype(np.float32))
    return Sample(items, labels.astype(np.int64))


def sample_texts(n: int = 12, *, seed: int = 0) -> Sample:
    """Sentences about the sea (label 0) or a kitchen (label 1), of 1 to 40 words; one is not
    English, and one is empty.

    >>> sample_texts(3).items[1:]
    ['a kitchen with knives on the oven', 'the']
    """
    rng = np.random.default_rng(seed)
    items, labels = [], np.arange(n) % 2
    for i, label in enumerate(labels.tolist()):
        things, where = _WORDS[label]
        length = (7, 7, 1, 40, 12)[i % 5]
        words = f"{where} with {' on the '.join(rng.permutation(things))} and".split()
        items.append(" ".join((words * 8)[:length]))
    for i, text in ((4, "寿司と海, Ünïcödé, naïve — 🌊"), (7, "")):
        if i < n:
            items[i] = text
    return Sample(items, labels.astype(np.int64))


_WORDS = (
    (("waves", "boats", "sand", "gulls"), "the sea"),
    (("bread", "pans", "oven", "knives"), "a kitchen"),
)


def _as_kind(pixels: NDArray[np.float64], kind: int) -> Any:
    """One picture as PIL colour, PIL grey, a uint8 array or a float array."""
    bytes_ = np.rint(pixels * 255).astype(np.uint8)
    if kind == 0:
        return Image.fromarray(bytes_)
    if kind == 1:
        return Image.fromarray(bytes_).convert("L")
    return bytes_ if kind == 2 else pixels.astype(np.float32)
