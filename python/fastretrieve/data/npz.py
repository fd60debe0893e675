"""``.npz`` files: items and labels by name, whole or in splits.

Names: ``images`` (or ``sequences``, ``x``, ``data``) with ``labels`` (or ``y``) and ``classes``;
splits as Keras has them, ``x_train`` with ``y_train``, or as ``train_images`` with
``train_labels``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from fastretrieve.data.arrays import read_arrays
from fastretrieve.data.errors import DataError
from fastretrieve.data.parts import Rows, Volume

ITEMS, LABELS, CLASSES = ("images", "sequences", "x", "data"), ("labels", "y"), "classes"
_SPLITS = ("train", "test", "val", "valid", "validation", "extra")
_PAIRS = (("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("{}_x", "{}_y"))


class Whole(NamedTuple):
    """Items without splits."""

    items: NDArray[Any]
    labels: NDArray[Any] | None
    classes: list[str] | None


def open_npz(path: Path) -> Whole | list[Volume]:
    """The items under the usual names, or the volumes of its splits."""
    named = [(split, x.format(split), y.format(split)) for split in _SPLITS for x, y in _PAIRS]
    wanted = dict.fromkeys([*ITEMS, *LABELS, CLASSES, *(n for _, *names in named for n in names)])
    arrays, listed = read_arrays(path, wanted)
    given = arrays.get(CLASSES)
    classes = None if given is None else [str(name) for name in given]
    if found := next((name for name in ITEMS if name in arrays), None):
        labels = next((arrays[name] for name in LABELS if name in arrays), None)
        return Whole(arrays[found], labels, classes)
    volumes = [
        _volume(path, split, x, arrays[x], arrays.get(y), classes)
        for split, x, y in named
        if x in arrays
    ]
    if not volumes:
        raise DataError(
            f"{path} holds {listed[:20]}; name the items 'images' or 'sequences', and the labels "
            "'labels'; splits are x_train, y_train, x_test, y_test"
        )
    return volumes


def open_splits(path: Path) -> list[Volume]:
    """The items of an ``.npz`` file as volumes, with splits or without."""
    found = open_npz(path)
    if not isinstance(found, Whole):
        return found
    return [_volume(path, None, "items", *found)]


def _volume(
    path: Path,
    split: str | None,
    name: str,
    items: NDArray[Any],
    labels: NDArray[Any] | None,
    classes: list[str] | None,
) -> Volume:
    if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]  # as Keras keeps those of CIFAR
    if items.ndim < 2 or (labels is not None and labels.shape != items.shape[:1]):
        shape = None if labels is None else labels.shape
        raise DataError(
            f"{path}: {name} has shape {items.shape} and its labels {shape}; items are [n, ...] and"
            " labels [n]"
        )
    values = None if labels is None else labels.tolist()
    return Volume(Rows(path, items, prefix=f"{name}/"), values, classes, split)
