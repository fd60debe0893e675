"""Wavelet scattering: filter, take the modulus, average; twice.

Scale ``j`` has the centre frequency ``0.75 pi / 2^j``. An order-one coefficient is the average over
a cell of ``|x * psi|``; an order-two coefficient averages ``||x * psi_1| * psi_2|`` with ``psi_2``
coarser than ``psi_1``: how the texture itself varies. Filters are applied by FFT, so the picture
is mirrored at its edges first.
"""

from __future__ import annotations

import numpy as np


class Scattering:
    """Scattering coefficients of square grey pictures, on a grid of ``grid`` x ``grid`` cells."""

    def __init__(self, size: int, *, n_scales: int, n_angles: int, grid: int) -> None:
        if size < 8 or grid < 1 or size < 4 * grid:
            raise ValueError(
                f"image_size {size} is too small for a grid of {grid}: a cell needs 4 pixels a side"
            )
        if not 1 <= n_scales <= int(np.log2(size)) - 1:
            raise ValueError(f"n_scales must be in [1, {int(np.log2(size)) - 1}], got {n_scales}")
        if n_angles < 1:
            raise ValueError(f"n_angles must be at least 1, got {n_angles}")
        self.size, self.grid = size, grid
        self.margin = size // 4
        padded = size + 2 * self.margin
        angles = np.arange(n_angles) * np.pi / n_angles
        self.filters = [
            np.stack([morlet(padded, scale=j, angle=angle) for angle in angles])
            for j in range(n_scales)
        ]
        n_second = n_angles * (n_scales * (n_scales - 1) // 2)
        self.dim = (1 + n_angles * n_scales + n_second) * grid * grid

    def __call__(self, grey: np.ndarray) -> np.ndarray:
        """Float32 [n, dim] of pictures [n, size, size]."""
        # One picture at a time: a batch of spectra would not fit the cache, and is no faster.
        return np.stack([self._one(picture) for picture in grey]).astype(np.float32)

    def _one(self, picture: np.ndarray) -> np.ndarray:
        padded = np.pad(picture, self.margin, mode="symmetric")
        cells = [self._cells(padded[None])]
        first = [_modulus(padded[None], bank) for bank in self.filters]
        for j, coarse in enumerate(first):
            cells.append(self._cells(coarse))
            for bank in self.filters[j + 1 :]:
                # Second order along the same orientation, where most of its energy is.
                cells.append(self._cells(_modulus(coarse, bank)))
        found = np.concatenate(cells).reshape(-1)
        return np.log1p(4 * np.maximum(found, 0))  # contrast counts by ratio, not by difference

    def _cells(self, maps: np.ndarray) -> np.ndarray:
        """The average of each cell: [n, grid * grid] of padded maps [n, side, side]."""
        inner = maps[:, self.margin : -self.margin, self.margin : -self.margin]
        edges = np.linspace(0, self.size, self.grid + 1).round().astype(int)[:-1]
        sums = np.add.reduceat(np.add.reduceat(inner, edges, axis=1), edges, axis=2)
        sides = np.diff([*edges, self.size])
        return (sums / (sides[:, None] * sides)).reshape(len(maps), -1)


def morlet(size: int, *, scale: int, angle: float) -> np.ndarray:
    """The spectrum [size, size] of a Morlet wavelet: a bump off the origin, and 0 at it."""
    frequency = np.fft.fftfreq(size) * 2 * np.pi
    fy, fx = np.meshgrid(frequency, frequency, indexing="ij")
    centre = 0.75 * np.pi / 2**scale
    width = 0.8 * 2**scale
    along = fx * np.cos(angle) + fy * np.sin(angle)
    across = (fy * np.cos(angle) - fx * np.sin(angle)) / 0.5
    bump = np.exp(-(((along - centre) ** 2 + across**2) * width**2) / 2)
    low = np.exp(-((along**2 + across**2) * width**2) / 2)
    return (bump - low * bump[0, 0]).astype(np.float32)  # no answer to a constant picture


def _modulus(maps: np.ndarray, bank: np.ndarray) -> np.ndarray:
    return np.abs(np.fft.ifft2(np.fft.fft2(maps) * bank))
