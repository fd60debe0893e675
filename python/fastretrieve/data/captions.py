"""The captions of a data set: texts beside each picture.

They come from a column: a text a row, or a list of texts in JSONL and Parquet. Rows of one file
(and box) are one item with several captions. Without such a column the names of classes are
captions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastretrieve.data.dataset import Dataset
from fastretrieve.data.errors import DataError, Skipped
from fastretrieve.data.texts import fault_of

CAPTIONS = "captions"  # the column that captioned() makes: a tuple of texts an item
_NAMES = ("caption", "captions", "text", "texts")  # in the order in which one is chosen


def captioned(dataset: Dataset) -> Dataset:
    """The items that have captions, each once, with a column ``captions`` and without labels.

    >>> from fastretrieve.data import open_dataset
    >>> images = np.zeros((3, 8, 8), np.uint8)
    >>> columns = {"caption": ["a boot", None, ["a bag", "a red bag"]]}
    >>> captioned(open_dataset(images, columns=columns)).columns["captions"].tolist()
    [('a boot',), ('a bag', 'a red bag')]
    """
    first: dict[str, int] = {}  # the first row of an item
    texts: dict[str, dict[str, None]] = {}
    skipped: list[Skipped] = []
    for row, value in enumerate(_values(dataset)):
        key = dataset.key(row)
        found = list(_texts(value))
        faults = [fault for fault in map(fault_of, found or [None]) if fault]
        if faults:
            skipped.append(Skipped(key, f"a caption is left out: {faults[0]}"))
        good = [text.strip() for text in found if not fault_of(text)]
        if good:
            first.setdefault(key, row)
            texts.setdefault(key, {}).update(dict.fromkeys(good))
    if not first:
        raise DataError(
            "no item has a caption; give a table with the columns path and caption (or text), a "
            'data set with such a column (open_dataset(images, columns={"caption": [...]})), or '
            "class folders, whose names are captions then"
        )
    kept = dataset.subset(list(first.values()))
    kept.labels, kept.classes = np.full(len(kept), -1, np.int64), ()
    kept.columns[CAPTIONS] = np.empty(len(kept), object)
    kept.columns[CAPTIONS][:] = [tuple(texts[key]) for key in first]
    kept.skipped = (*dataset.skipped, *skipped)
    return kept


def _values(dataset: Dataset) -> Iterator[Any]:
    """What each row has for captions."""
    name = next((name for name in _NAMES if name in dataset.columns), None)
    if name is not None:
        return iter(dataset.columns[name])
    return (dataset.label_name(row) for row in range(len(dataset)))


def _texts(value: Any) -> Iterator[Any]:
    """The texts of one value; a number is a text, too, where a whole column looked like numbers."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from () if isinstance(each, (list, tuple)) else _texts(each)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if math.isfinite(value):
            yield str(value)
    elif value is not None and value != "":
        yield value
