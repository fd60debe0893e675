"""The splits of a data set: their names, and how one is chosen.

A split is a value of the column ``split``. Files bring it in their names (``train-0001.tar``), in
the names of their folders or arrays (``x_train``); a table may have the column.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastretrieve.data.dataset import Dataset
from fastretrieve.data.errors import DataError, readable

SPLIT = "split"
TRAIN = ("train", "training")
HELD_OUT = ("validation", "valid", "val", "dev", "test")  # in the order in which one is chosen
_OTHERS = {"data": "train", "t10k": "test"}  # of CIFAR (data_batch_1.bin) and MNIST
_WORDS = {*TRAIN, "testing", "extra", "unsupervised", *HELD_OUT}
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")


def split_in_path(path: Path, root: Path | None) -> str | None:
    """The split that a file's name says, or else the nearest folder below ``root``.

    >>> [split_in_path(Path(name), None) for name in ("t10k-images-idx3-ubyte.gz", "train.bin")]
    ['test', 'train']
    >>> split_in_path(Path("a/val/0001.tar"), Path("a")), split_in_path(Path("0001.tar"), None)
    ('val', None)
    """
    inner = path.relative_to(root).parts if root is not None else (path.name,)
    for number, part in enumerate(reversed(inner)):
        if number == 0 and (shard := _SHARD.match(part)):
            return shard[1].rpartition("-")[2] or shard[1]
        words = [word for word in re.split(r"[^a-z0-9]+", part.lower()) if word]
        found = next((word for word in words if word in _WORDS), None)
        if found is None and words and number == 0:
            found = _OTHERS.get(words[0])
        if found is not None:
            return found
    return None


def splits_of(dataset: Dataset) -> list[str]:
    """The names of the splits, in their order."""
    values = dataset.columns.get(SPLIT, ())
    return list(dict.fromkeys(str(value) for value in values if value is not None))


def choose(dataset: Dataset, split: str, *, source: Any = "the data set") -> Dataset:
    """The items of one split; the name of a missing one is a ``DataError``."""
    names = splits_of(dataset)
    wanted = split if split in names else _OTHERS.get(split, split)
    if wanted not in names:
        has = f"its splits are {', '.join(names)}" if names else "it has no column 'split'"
        raise DataError(f"{readable(source)} has no split {split!r}; {has}")
    chosen = dataset.subset([value == wanted for value in dataset.columns[SPLIT]])
    chosen.skipped = dataset.skipped
    return chosen


def prefer(dataset: Dataset, names: Sequence[str]) -> Dataset | None:
    """The first of these splits that the files of a data set bring; None where they bring none."""
    if not hasattr(dataset.source, "place"):  # a table's column is the user's own
        return None
    found = splits_of(dataset)
    return next((choose(dataset, name) for name in names if name in found), None)
