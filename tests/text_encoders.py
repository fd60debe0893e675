"""Small encoders of texts, which need no package: letters in threes, counted."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data.texts import as_texts
from fastretrieve.encoders.saved import files


class Letters:
    """How often each three letters come, in ``dim`` bins."""

    name = "letters"
    modality = "text"
    api_version = 1
    capabilities: frozenset[str] = frozenset()

    def __init__(self, *, dim: int = 64) -> None:
        self.dim = dim
        self.fitted_to = 0
        self.mean = np.zeros(dim, np.float32)

    def preprocess(self, items: Any) -> NDArray[np.float32]:
        counts = np.zeros((len(items), self.dim), np.float32)
        for row, text in zip(counts, as_texts(items), strict=True):
            padded = f" {text.lower()} "
            for i in range(len(padded) - 2):
                row[zlib.crc32(padded[i : i + 3].encode()) % self.dim] += 1
        return counts

    def encode(self, batch: Any) -> NDArray[np.float32]:
        return np.asarray(batch, np.float32) - self.mean

    def to(self, device: Any) -> Letters:
        return self

    def save(self, directory: str | Path) -> None:
        files.write_encoder(
            directory,
            encoder=self.name,
            config={"dim": self.dim},
            weights={"mean": self.mean},
            trained=True,
            extra={"fitted_to": self.fitted_to},
        )

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> Letters:
        saved = files.read_encoder(directory)
        encoder = cls(**saved.config)
        encoder.mean, encoder.fitted_to = saved.arrays()["mean"], saved.fitted_to
        return encoder


class FittedLetters(Letters):
    """``fit`` learns the mean to subtract."""

    name = "fitted-letters"
    capabilities = frozenset({"fit"})
    fit_items = (3, 100)
    is_trained = True

    @property
    def is_fitted(self) -> bool:
        return self.fitted_to > 0

    def fit(self, batches: Iterable[Any]) -> FittedLetters:
        counts = np.concatenate(list(batches))
        self.mean, self.fitted_to = counts.mean(axis=0), len(counts)
        return self
