"""``scattering``: wavelet scattering and colour histograms, an encoder without weights.

It inherits from nothing: a class with the names of ``fastretrieve.encoders.protocol.Encoder`` is an
encoder. The features are in ``wavelets.py`` and ``colour.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastretrieve.encoders import image_batch, read_encoder, write_encoder
from fastretrieve_scattering.colour import colour_histograms
from fastretrieve_scattering.wavelets import Scattering

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class ScatteringEncoder:
    """Texture at ``n_scales`` scales and ``n_angles`` orientations on a grid, and colour.

    >>> encoder = ScatteringEncoder(image_size=32, n_scales=2, n_angles=4, grid=2, channels=1)
    >>> encoder.encode(encoder.preprocess([np.eye(20, dtype=np.float32)])).shape
    (1, 100)
    """

    name = "scattering"
    modality = "image"
    api_version = 1
    capabilities = frozenset()

    def __init__(
        self,
        *,
        image_size: int = 64,
        n_scales: int = 3,
        n_angles: int = 8,
        grid: int = 4,
        channels: int = 3,
        colour_weight: float = 0.5,
    ) -> None:
        """``channels=1`` leaves colour out; ``colour_weight`` is its share of the vector."""
        if not 0 <= colour_weight <= 1:
            raise ValueError(f"colour_weight lies between 0 and 1, got {colour_weight}")
        self.config = {
            "image_size": image_size,
            "n_scales": n_scales,
            "n_angles": n_angles,
            "grid": grid,
            "channels": channels,
            "colour_weight": colour_weight,
        }
        self.image_size = (image_size, image_size)
        self.channels = channels
        self.colour_weight = colour_weight if channels == 3 else 0.0
        self.scattering = Scattering(image_size, n_scales=n_scales, n_angles=n_angles, grid=grid)
        self.n_colours = len(colour_histograms(np.zeros((1, 3, 2, 2), np.float32))[0])
        self.dim = self.scattering.dim + (self.n_colours if channels == 3 else 0)

    def preprocess(self, items: Any) -> np.ndarray:
        """Float32 [n, channels, h, w] in [0, 1], from any kind of image."""
        return image_batch(items, size=self.image_size, channels=self.channels)

    def encode(self, batch: Any) -> np.ndarray:
        """Float32 [n, dim], each part scaled to its share of a vector of length one."""
        images = np.asarray(batch, np.float32)
        if len(images) == 0:
            return np.empty((0, self.dim), np.float32)
        grey = np.tensordot(_LUMA, images, axes=(0, 1)) if self.channels == 3 else images[:, 0]
        parts = [_scaled(self.scattering(grey), (1 - self.colour_weight) ** 0.5)]
        if self.channels == 3:
            parts.append(_scaled(colour_histograms(images), self.colour_weight**0.5))
        return np.concatenate(parts, axis=1).astype(np.float32)

    def to(self, device: Any) -> ScatteringEncoder:
        """NumPy stays on the CPU."""
        return self

    def save(self, directory: str | Path) -> None:
        """The filters follow from the options, so there are no weights to write."""
        write_encoder(directory, encoder=self.name, config=self.config, weights={})

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> ScatteringEncoder:
        return cls(**read_encoder(directory).config)


def _scaled(rows: np.ndarray, length: float) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows * (length / np.where(norms > 0, norms, 1))
