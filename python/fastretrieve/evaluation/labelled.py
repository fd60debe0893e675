"""Vectors with their labels, items and metadata.

They come from either kind of input: vectors that the caller has, or items that an encoder turns
into vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arrays import as_float, as_rows
from fastretrieve.data import Dataset, Skipped, open_dataset
from fastretrieve.data.dataset import encode_labels
from fastretrieve.data.splits import HELD_OUT, TRAIN, prefer


@dataclass(frozen=True)
class Labelled:
    """Row ``i`` of the vectors is item ``i`` of the data set, where there is one."""

    vectors: NDArray[np.float32]  # [n, dim]
    labels: NDArray[np.int64]  # [n], positions in classes, -1 where there is none
    classes: tuple[str, ...]
    dataset: Dataset | None = None
    skipped: tuple[Skipped, ...] = ()
    probabilities: NDArray[np.float32] | None = None  # [n, n_head_classes], of the encoder's head

    def __len__(self) -> int:
        return len(self.vectors)

    def relabel(self, classes: tuple[str, ...]) -> Labelled:
        """The same with labels numbered by ``classes``; an unknown class becomes -1."""
        position = {name: i for i, name in enumerate(classes)}
        table = np.array([position.get(name, -1) for name in self.classes] + [-1], np.int64)
        return replace(self, labels=table[self.labels], classes=classes)

    def column(self, name: str) -> NDArray[Any]:
        if self.dataset is None:
            raise ValueError(f"by={name!r} needs a data set with that column, only vectors came")
        return self.dataset.column(name)


def is_vectors(source: Any) -> bool:
    """Whether the caller gave vectors, not an encoder, a name or a class."""
    if source is None or isinstance(source, (str, Path, type)):
        return False
    return isinstance(source, (list, np.ndarray)) or (
        hasattr(source, "__dlpack__") or hasattr(source, "__array__")
    )


def from_vectors(vectors: Any, about: Any, *, name: str) -> Labelled:
    """Vectors and their labels, or a data set of the same length, or None."""
    here = vectors.detach().cpu() if hasattr(vectors, "detach") else vectors
    matrix = as_float(as_rows(here, name=name)).astype(np.float32, copy=False)
    if np.ndim(here) != 2:
        raise ValueError(f"{name} must be a matrix [n, dim], got shape {tuple(np.shape(here))}")
    if isinstance(about, Dataset):
        if len(about) != len(matrix):
            raise ValueError(f"there are {len(matrix)} {name} for a data set of {len(about)} items")
        return Labelled(matrix, about.labels, about.classes, about)
    labels, classes = encode_labels(about, len(matrix))
    return Labelled(matrix, labels, classes)


def open_parts(
    source: Any, labels: Any, split: str | None, *, modality: Any
) -> tuple[Dataset, Dataset | None]:
    """The items that ask, and those that are searched where files bring both as splits."""
    opened = open_dataset(source, labels=labels, split=split, modality=modality)
    if split is not None or isinstance(source, Dataset):
        return opened, None
    asked, searched = prefer(opened, HELD_OUT), prefer(opened, TRAIN)
    return (opened, None) if asked is None or searched is None else (asked, searched)


def from_items(encoder: Any, items: Any, labels: Any = None, **options: Any) -> Labelled:
    """Encode the items that can be read; ``options`` go to ``encode_dataset``."""
    from fastretrieve.encoders.encoding import encode_dataset

    dataset = open_dataset(items, labels=labels, modality=encoder.modality)
    found = encode_dataset(encoder, dataset, **options)
    kept = dataset.subset(found.rows)
    return Labelled(
        found.vectors,
        kept.labels,
        kept.classes,
        kept,
        (*dataset.skipped, *found.skipped),
        found.probabilities,
    )


def gallery_pair(gallery: Any) -> tuple[Any, Any]:
    """The vectors of a gallery, and their labels or data set."""
    if isinstance(gallery, tuple) and len(gallery) == 2 and is_vectors(gallery[0]):
        return gallery
    raise ValueError(
        "a gallery of vectors is (vectors, labels) or (vectors, Dataset), got "
        f"{type(gallery).__name__}; to give images, give an encoder too"
    )
