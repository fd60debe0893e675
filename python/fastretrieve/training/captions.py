"""Pairs of picture and caption, for an encoder that ``learns_captions``.

A picture goes through the frozen tower once, and so does each caption. The head learns from pairs
of their vectors; a picture with several captions is in several pairs.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data import Dataset
from fastretrieve.data.captions import CAPTIONS
from fastretrieve.encoders.encoding import Encoded, encode_texts


class PairedVectors:
    """The source of a data set: an item is the vector of a picture, then that of its caption."""

    def __init__(
        self,
        images: NDArray[np.float32],
        texts: NDArray[np.float32],
        pairs: NDArray[np.int64],
    ) -> None:
        self.images, self.texts = images, texts
        self.pairs = pairs  # [n, 2], rows of images and of texts

    def __len__(self) -> int:
        return len(self.pairs)

    def key(self, index: int) -> str:
        return f"#{index}"

    def read(self, index: int, *, size: int | None) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self.read_many(np.array([index]))[0]
        return found

    def read_many(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        image, text = self.pairs[np.asarray(indices, np.int64)].T
        return np.concatenate([self.images[image], self.texts[text]], axis=1)


def joined(first: Dataset, second: Dataset) -> Dataset:
    """The pairs of both, which share no picture."""
    one, other = (cast("PairedVectors", each.source) for each in (first, second))
    before = np.array([len(one.images), len(one.texts)])
    source = PairedVectors(
        np.concatenate([one.images, other.images]),
        np.concatenate([one.texts, other.texts]),
        np.concatenate([one.pairs, other.pairs + before]),
    )
    return Dataset(source, labels=source.pairs[:, 0].copy(), classes=(), modality=first.modality)


def learns_captions(encoder: Any) -> bool:
    """Whether an encoder is trained on pictures with captions."""
    return bool(getattr(encoder, "learns_captions", False))


def paired(encoder: Any, dataset: Dataset, found: Encoded) -> Dataset:
    """All pairs of the pictures that could be read; a label is the number of a picture."""
    texts: dict[str, int] = {}
    pairs = [
        (row, texts.setdefault(text, len(texts)))
        for row, captions in enumerate(dataset.columns[CAPTIONS][found.rows])
        for text in captions
    ]
    numbers = np.array(pairs, np.int64).reshape(-1, 2)
    source = PairedVectors(
        np.ascontiguousarray(found.vectors), encode_texts(encoder.text, list(texts)), numbers
    )
    return Dataset(source, labels=numbers[:, 0].copy(), classes=(), modality=dataset.modality)
