"""The data of ``encoders.py``: Fashion-MNIST, a tinted copy of another shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fastretrieve.data.fashion_mnist import (
    download_fashion_mnist,
    find_fashion_mnist,
    load_fashion_mnist,
)


class Labelled(NamedTuple):
    """What is trained on and searched, and what is asked."""

    items: Any
    labels: NDArray[np.int64]
    queries: Any
    query_labels: NDArray[np.int64]


def fashion_mnist() -> Labelled:
    pictures = load_fashion_mnist(find_fashion_mnist() or download_fashion_mnist())
    gallery, queries = pictures.gallery, pictures.queries
    return Labelled(gallery.images, gallery.labels, queries.images, queries.labels)


def first(data: Labelled, n: int | None) -> Labelled:
    """The first ``n`` items and queries, or all."""
    return Labelled(*(part[:n] for part in data))


def tinted(data: Labelled, *, n_items: int, n_queries: int, size: tuple[int, int]) -> Labelled:
    """The first images in random colours, resized: colour says nothing about the class."""
    rng = np.random.default_rng(0)

    def tint(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        made = np.empty((len(images), *size, 3), np.uint8)
        for out, image in zip(made, images, strict=True):
            grown = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
            ink, paper = rng.uniform(0.5, 1.0, 3), rng.uniform(0.0, 0.3, 3)
            share = np.asarray(grown, np.float64)[:, :, None] / 255
            out[:] = np.rint(255 * (share * ink + (1 - share) * paper))
        return made

    return Labelled(
        tint(data.items[:n_items]),
        data.labels[:n_items],
        tint(data.queries[:n_queries]),
        data.query_labels[:n_queries],
    )


def write_files(images: NDArray[np.uint8], folder: Path) -> None:
    """One PNG file an image."""
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:06d}.png")


def pad_pixels(images: NDArray[np.uint8]) -> torch.Tensor:
    """Images as rows of pixels in [0, 1]: [n, values]."""
    return torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255)
