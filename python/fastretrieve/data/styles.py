"""Two sets of pictures as one data set: pictures of a style to leave, and of one to reach."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data.dataset import Dataset
from fastretrieve.data.errors import DataError
from fastretrieve.data.modalities import Modality
from fastretrieve.data.open import open_split
from fastretrieve.data.splits import TRAIN

STYLES = ("from", "to")
FEWEST = 16  # pictures of a style, from which something can be learned


def open_styles(
    from_: Any, to: Any, *, modality: Modality = "image", split: str | None = None
) -> Dataset:
    """The items of both sources, those of ``from_`` first; the label says of which they are.

    Each is what ``open_dataset`` takes; labels of its own do not count.

    >>> pictures = np.zeros((16, 8, 8), np.uint8)
    >>> open_styles(pictures, pictures).labels.tolist() == [0] * 16 + [1] * 16
    True
    """
    if from_ is None or to is None:
        raise ValueError("a style is learned from two folders: give both from_= and to=")
    opened = [
        open_split(each, split=split, otherwise=TRAIN, modality=modality) for each in (from_, to)
    ]
    # In random order: whoever looks at the first ones sees some of all kinds.
    rng = np.random.default_rng(0)
    both = [each.subset(rng.permutation(len(each))) for each in opened]
    for name, each in zip(STYLES, both, strict=True):
        if len(each) < FEWEST:
            raise DataError(
                f"{name!r} holds {len(each)} pictures, too few to learn a style from; give at "
                f"least {FEWEST}, better some hundred"
            )
    labels = np.repeat(np.arange(2), [len(each) for each in both])
    skipped = [bad for each in opened for bad in each.skipped]
    return Dataset(
        _Joined(*both), labels=labels, classes=STYLES, modality=modality, skipped=skipped
    )


class _Joined:
    """The items of two data sets, one after the other."""

    def __init__(self, first: Dataset, second: Dataset) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def _at(self, index: int) -> tuple[Dataset, int]:
        n = len(self.first)
        return (self.first, index) if index < n else (self.second, index - n)

    def key(self, index: int) -> str:
        part, row = self._at(index)
        return part.key(row)

    def read(self, index: int, *, size: int | None) -> Any:
        part, row = self._at(index)
        return part.read(row, size=size)

    def read_many(self, indices: NDArray[np.int64]) -> None:
        return None  # the parts may hold items of different kinds
