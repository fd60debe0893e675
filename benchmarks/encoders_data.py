"""The data of ``encoders.py``: Fashion-MNIST, and tinted copies of another shape."""

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

PIECE, N_PIECES = 3, 6  # clutter: pieces a third of the height a side


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


class Tinted(NamedTuple):
    """Tinted images, and the colour [3] of what each of them shows."""

    pictures: Labelled
    inks: NDArray[np.float64]
    query_inks: NDArray[np.float64]


def tinted(
    data: Labelled, *, n_items: int, n_queries: int, size: tuple[int, int], cluttered: bool = False
) -> Labelled:
    """The first images in random colours, resized: colour says nothing about the class.

    Clutter, pieces of other images in colours of their own, lies behind what an image shows.
    """
    return tinted_with_inks(
        data, n_items=n_items, n_queries=n_queries, size=size, cluttered=cluttered
    ).pictures


def tinted_with_inks(
    data: Labelled, *, n_items: int, n_queries: int, size: tuple[int, int], cluttered: bool
) -> Tinted:
    """The images of ``tinted``, with their colours."""
    rng = np.random.default_rng(0)

    def tint(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        made, inks = np.empty((len(images), *size, 3), np.uint8), np.empty((len(images), 3))
        for out, ink, image in zip(made, inks, images, strict=True):
            ink[:], paper = rng.uniform(0.5, 1.0, 3), rng.uniform(0.0, 0.3, 3)
            behind = np.broadcast_to(paper, (*size, 3)).copy()
            if cluttered:
                _strew(behind, images, rng)
            share = _grown(image, size)
            out[:] = np.rint(255 * (share * ink + (1 - share) * behind))
        return made, inks

    items, inks = tint(data.items[:n_items])
    queries, query_inks = tint(data.queries[:n_queries])
    labels, query_labels = data.labels[:n_items], data.query_labels[:n_queries]
    return Tinted(Labelled(items, labels, queries, query_labels), inks, query_inks)


def _strew(
    picture: NDArray[np.float64], images: NDArray[np.uint8], rng: np.random.Generator
) -> None:
    """Lay squares cut from random images into the picture [height, width, 3]."""
    height, width = picture.shape[:2]
    side = height // PIECE
    for other in rng.integers(0, len(images), N_PIECES).tolist():
        top, from_top = rng.integers(0, height - side + 1, 2).tolist()
        left, from_left = rng.integers(0, width - side + 1, 2).tolist()
        share = _grown(images[other], (height, width))
        piece = share[from_top : from_top + side, from_left : from_left + side]
        place = picture[top : top + side, left : left + side]
        place += piece * (rng.uniform(0.2, 0.8, 3) - place)


def _grown(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float64]:
    """An image of another size, its values in [0, 1]: [height, width, 1]."""
    grown = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(grown, np.float64)[:, :, None] / 255


def write_files(images: NDArray[np.uint8], folder: Path) -> None:
    """One PNG file an image."""
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:06d}.png")


def pad_pixels(images: NDArray[np.uint8]) -> torch.Tensor:
    """Images as rows of pixels in [0, 1]: [n, values]."""
    return torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255)
