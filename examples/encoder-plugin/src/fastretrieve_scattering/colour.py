"""Where which colours are: a histogram over hue and saturation for each quarter of a picture."""

from __future__ import annotations

import numpy as np

N_HUES, N_SATURATIONS = 8, 3


def colour_histograms(images: np.ndarray) -> np.ndarray:
    """Float32 [n, 4 * 24] of RGB pictures [n, 3, h, w] in [0, 1]; each quarter sums to at most 1.

    A pixel counts by its brightness, split between the two nearest hues, so that a slight change of
    light does not jump from bin to bin. Square roots make the dot product the Hellinger affinity.
    """
    hue, saturation, value = hue_saturation_value(images)
    height, width = images.shape[2:]
    parts = []
    for rows in (slice(0, -(-height // 2)), slice(height // 2, None)):
        for columns in (slice(0, -(-width // 2)), slice(width // 2, None)):
            quarter = (slice(None), rows, columns)
            parts.append(_histogram(hue[quarter], saturation[quarter], value[quarter]))
    return np.sqrt(np.concatenate(parts, axis=1)).astype(np.float32)


def hue_saturation_value(
    images: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue in [0, 1), saturation and value in [0, 1], each [n, h, w]."""
    red, green, blue = images[:, 0], images[:, 1], images[:, 2]
    value, low = images.max(axis=1), images.min(axis=1)
    span = value - low
    safe = np.where(span > 0, span, 1)
    hue = np.select(
        [value == red, value == green],
        [((green - blue) / safe) % 6, (blue - red) / safe + 2],
        (red - green) / safe + 4,
    )
    saturation = span / np.where(value > 0, value, 1)
    return (hue / 6) % 1.0, saturation, value


def _histogram(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    n = len(hue)
    place = hue.reshape(n, -1) * N_HUES
    left = np.floor(place).astype(int)
    share = place - left
    row = np.minimum((saturation.reshape(n, -1) * N_SATURATIONS).astype(int), N_SATURATIONS - 1)
    weight = value.reshape(n, -1) / value[0].size
    counts = np.zeros((n, N_SATURATIONS, N_HUES))
    item = np.arange(n)[:, None]
    np.add.at(counts, (item, row, left % N_HUES), weight * (1 - share))
    np.add.at(counts, (item, row, (left + 1) % N_HUES), weight * share)
    return counts.reshape(n, -1)
