"""``pixels``: no learning. Resize, grey or colour, and on request a PCA with whitening.

The baseline to print beside every other encoder. It needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data.images import as_size, image_batch
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import API_VERSION, Batch, Items, Modality
from fastretrieve.encoders.saved import files
from fastretrieve.encoders.saved.opening import naming
from fastretrieve.encoders.saved.options import refuse_other_kinds
from fastretrieve.encoders.saved.weights import Entry

MAX_LOADED_PIXELS = 1 << 26  # a file that asks for more is damaged or hostile
MAX_PCA_PIXELS = 4096  # a PCA takes its square in memory and its cube in time


class PixelsEncoder:
    """The pixels as they are, or their first ``dim`` principal components.

    >>> encoder = PixelsEncoder(image_size=(2, 3), channels=1)
    >>> encoder.encode(encoder.preprocess([np.full((4, 6), 255, np.uint8)])).tolist()
    [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]

    With ``dim`` it learns a PCA from ``fit(batches)``; ``whiten`` scales every component to unit
    variance.
    """

    name = "pixels"
    modality: Modality = "image"
    api_version = API_VERSION
    capabilities = frozenset({"fit"})

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] = 32,
        channels: int = 3,
        dim: int | None = None,
        whiten: bool = False,
    ) -> None:
        self.image_size = as_size(image_size)
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {channels}")
        self.channels = channels
        n_pixels = self.n_pixels = channels * self.image_size[0] * self.image_size[1]
        if dim is not None and not 1 <= dim <= n_pixels:
            raise ValueError(f"dim must be in [1, {n_pixels}], the number of pixels, got {dim}")
        if whiten and dim is None:
            raise ValueError("whiten needs dim, the number of components to keep")
        if dim is not None and n_pixels > MAX_PCA_PIXELS:
            raise ValueError(
                f"a PCA takes at most {MAX_PCA_PIXELS} pixels and channels, {n_pixels} were asked "
                "for; choose a smaller image_size, or channels=1"
            )
        self.dim = n_pixels if dim is None else dim
        self.whiten = whiten
        self.uses_pca = dim is not None
        self.is_trained = dim is None
        shape = (self.dim, n_pixels) if self.uses_pca else (0, 0)  # raw pixels may be any number
        self.mean: NDArray[np.float64] = np.zeros(shape[1])
        self.components: NDArray[np.float64] = np.zeros(shape)

    def preprocess(self, items: Items) -> NDArray[np.float32]:
        """Float32 [n, channels, h, w] in [0, 1]."""
        return image_batch(items, size=self.image_size, channels=self.channels)

    def encode(self, batch: Batch) -> NDArray[np.float32]:
        """The pixels in a row, or their components."""
        flat = np.asarray(batch, np.float32).reshape(len(batch), self.n_pixels)
        if not self.uses_pca:
            return np.ascontiguousarray(flat)
        if not self.is_trained:
            raise EncoderError(
                f"pixels with dim={self.dim} needs a PCA that it has not learned; call "
                "fit(batches) or fr.train, or leave dim out for the raw pixels"
            )
        # Numbers from a damaged file may be too large. The vector is then not finite, as in torch.
        with np.errstate(over="ignore", invalid="ignore"):
            components: NDArray[np.float64] = (flat - self.mean) @ self.components.T
            return components.astype(np.float32)

    def fit(self, batches: Iterable[Batch]) -> PixelsEncoder:
        """Learn the PCA from all batches in one pass; without ``dim`` there is nothing to learn."""
        if not self.uses_pca:
            return self
        n, total, products = 0, np.zeros(self.n_pixels), np.zeros((self.n_pixels,) * 2)
        for batch in batches:
            rows = np.asarray(batch, np.float64).reshape(len(batch), -1)
            n += len(rows)
            total += rows.sum(axis=0)
            products += rows.T @ rows
        if n < 2:
            raise EncoderError(f"a PCA needs at least 2 images, got {n}")
        self.mean = total / n
        values, vectors = np.linalg.eigh(products / n - np.outer(self.mean, self.mean))
        order = np.argsort(values)[::-1][: self.dim]
        components = vectors[:, order].T
        # An eigenvector's sign is free; the largest entry is made positive so that fits agree.
        peaks = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
        self.components = components * np.sign(peaks)
        if self.whiten:
            variances = values[order]
            floor = max(float(variances[0]), 1e-12) * 1e-6
            self.components /= np.sqrt(np.maximum(variances, floor))[:, None]
        self.is_trained = True
        return self

    def to(self, device: Any) -> PixelsEncoder:
        """Pixels stay where they are: on the CPU."""
        return self

    def save(self, directory: str | Path) -> None:
        files.write_encoder(
            directory,
            encoder=self.name,
            config={
                "image_size": list(self.image_size),
                "channels": self.channels,
                "dim": self.dim if self.uses_pca else None,
                "whiten": self.whiten,
            },
            weights={"mean": self.mean, "components": self.components} if self.uses_pca else {},
            trained=self.is_trained,
        )

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> PixelsEncoder:
        saved = files.read_encoder(directory)
        with naming(saved.directory, cls.__name__):
            refuse_other_kinds(cls, saved.config)
            encoder = cls(**saved.config)
            if encoder.n_pixels > MAX_LOADED_PIXELS:
                raise ValueError(
                    f"{encoder.n_pixels:,} numbers an image, of at most {MAX_LOADED_PIXELS:,}"
                )
            found, wanted = saved.entries(), encoder._entries()
            if found != wanted:
                raise ValueError(f"the weights are {found}, not {wanted}")
            if encoder.uses_pca:
                arrays = saved.arrays()
                encoder.mean, encoder.components = arrays["mean"], arrays["components"]
            encoder.is_trained = saved.trained
            return encoder

    def _entries(self) -> dict[str, Entry]:
        """The weights that ``save`` writes."""
        if not self.uses_pca:
            return {}
        arrays = {"mean": self.mean, "components": self.components}
        return {name: Entry("F64", array.shape) for name, array in arrays.items()}
