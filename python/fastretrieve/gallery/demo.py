"""What ``fastretrieve demo`` does beyond raw pixels: train a small encoder, build a gallery with
it, search it, and say how much better the neighbours are.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from fastretrieve.datasets import Pictures, Split
from fastretrieve.encoders import create_encoder
from fastretrieve.encoders.encoding import as_array
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.gallery.gallery import Gallery
from fastretrieve.ops import topk

DIM, WIDTH = 64, 8
EPOCHS = 2  # about a minute on two cores
SMALL = 10_000  # fewer pictures than these are cheap to look at more often
BATCH = 512


class Built(NamedTuple):
    """A gallery, and the vectors that were compared."""

    gallery: Gallery
    encoder: Encoder
    vectors: NDArray[np.float32]  # [n_pictures, DIM]
    queries: NDArray[np.float32]  # [n_queries, DIM]
    accuracy: float  # of the nearest neighbour's label, by the encoder
    pixels_accuracy: float  # by raw pixels


def build(pictures: Pictures, out: Path, *, console: Console, epochs: int | None = None) -> Built:
    """Train a ``cnn`` on the pictures, build ``out/demo.gallery``, and say what it is worth."""
    from fastretrieve.training import train

    shown, asked = pictures.gallery, pictures.queries
    names = [pictures.label_names[label] for label in shown.labels]
    side = shown.images.shape[1]
    encoder = create_encoder("cnn", dim=DIM, image_size=side, channels=1, width=WIDTH)
    passes = epochs or (EPOCHS if len(names) >= SMALL else 10 * EPOCHS)
    console.print(f"training a cnn of {DIM} numbers for {passes} epochs")
    started = time.perf_counter()
    train(encoder, shown.images, labels=names, epochs=passes, validation=False)
    console.print(f"trained in {time.perf_counter() - started:.0f} s")

    folder = out / "demo.gallery"
    shutil.rmtree(folder, ignore_errors=True)
    gallery = Gallery.create(folder, encoder=encoder)
    console.print(f"{folder}: {gallery.add(shown.images, labels=names)}")

    vectors, queries = gallery.vectors(), encode(encoder, asked.images)
    kept = [str(item.label) for item in gallery.items(limit=len(gallery))]
    wanted = [pictures.label_names[label] for label in asked.labels]
    ours = _accuracy(vectors, kept, queries, wanted, metric="cosine")
    pixels = _accuracy(_pixels(shown), names, _pixels(asked), wanted, metric="l2")
    console.print(
        f"the nearest picture has the query's label in {ours:.2%} of the queries; by raw pixels "
        f"({side * side} numbers instead of {DIM}) in {pixels:.2%}"
    )
    matches = gallery.search(asked.images[0], k=11)
    matches.title = pictures.label_names[asked.labels[0]]
    matches.save(out / "search.png")
    console.print(
        f"one search: {matches.seconds.encode * 1e3:.1f} ms to encode, "
        f"{matches.seconds.search * 1e3:.1f} ms for the rest; wrote {out / 'search.png'}"
    )
    return Built(gallery, encoder, vectors, queries, ours, pixels)


def how_to_go_on(gallery: Gallery) -> str:
    """What to type next."""
    return (
        f"search it on a page: pip install 'fastretrieve[serve]' && "
        f"fastretrieve serve {gallery.path}"
    )


def encode(encoder: Encoder, images: Any) -> NDArray[np.float32]:
    """Vectors of pictures in memory."""
    parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    return np.concatenate([as_array(encoder.encode(encoder.preprocess(part))) for part in parts])


def _accuracy(
    rows: NDArray[np.float32],
    names: list[str],
    queries: NDArray[np.float32],
    wanted: list[str],
    *,
    metric: str,
) -> float:
    """How often the nearest row has the name that is wanted."""
    hits = topk(queries, rows, k=1, metric=metric)  # type: ignore[arg-type]
    return float((np.array(names)[np.asarray(hits.ids)[:, 0]] == np.array(wanted)).mean())


def _pixels(split: Split) -> NDArray[np.float32]:
    return split.images.reshape(len(split.images), -1).astype(np.float32)
