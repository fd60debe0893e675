"""Find the files that hold many items each, and make one data set of them.

``FORMATS`` holds a row for each kind of file. A data set may consist of several files, and of
several splits; each item's split is in the column ``split``. One bad file is skipped with its
reason, as long as another one can be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastretrieve.data.cifar import is_cifar, is_pickled, open_cifar, refuse_pickled
from fastretrieve.data.dataset import Dataset, encode_labels
from fastretrieve.data.errors import DataError, Skipped, readable
from fastretrieve.data.idx import is_idx, is_labels, open_idx
from fastretrieve.data.modalities import Modality, kind_of
from fastretrieve.data.npz import open_splits
from fastretrieve.data.parquet import open_parquet
from fastretrieve.data.parts import Inside, Volume
from fastretrieve.data.readers import IMAGE_SUFFIXES, has_suffix
from fastretrieve.data.shards import open_shard, refuse_packed
from fastretrieve.data.splits import SPLIT, TRAIN, split_in_path
from fastretrieve.data.walking import is_file, walk

_PACKED = re.compile(r"\.(tar\.(gz|bz2|xz|zst)|tgz|tbz2?|txz)$", re.IGNORECASE)


@dataclass(frozen=True)
class Format:
    """One kind of file."""

    knows: Callable[[str], bool]  # by its name
    open: Callable[[Path], Sequence[Volume]]
    is_named_alone: bool = False  # no other file has such a name: it may lie beside pictures
    holds_pictures: bool = False  # encoded ones, and no arrays


def _ends(suffix: str) -> Callable[[str], bool]:
    return lambda name: name.lower().endswith(suffix)


FORMATS = (
    Format(is_idx, lambda path: [open_idx(path)], is_named_alone=True),
    Format(is_cifar, lambda path: [open_cifar(path)], is_named_alone=True),
    Format(_ends(".tar"), lambda path: [open_shard(path)], holds_pictures=True),
    Format(_ends(".parquet"), lambda path: [open_parquet(path)], holds_pictures=True),
    Format(_ends(".npz"), open_splits),
)


def format_of(name: str) -> Format | None:
    """The row of a file by its name."""
    return next((row for row in FORMATS if row.knows(name)), None)


def is_archive(path: Path) -> bool:
    """Whether a file holds many items, by its name; a packed or pickled one is a ``DataError``."""
    if _PACKED.search(path.name):
        raise refuse_packed(path)
    if is_pickled(path):
        raise refuse_pickled(path)
    return format_of(path.name) is not None


def find_archives(root: Path, *, recursive: bool, named_alone: bool = False) -> list[Path]:
    """The files of a folder that make a data set, of one kind, in order of name.

    ``named_alone`` asks only for those whose names cannot mean anything else.
    """
    ignored: list[Skipped] = []
    every: list[Path] = []
    for folder, found in walk(root, recursive=recursive, skipped=ignored):
        every += [
            folder / entry.name
            for entry in found
            if not has_suffix(entry.name, IMAGE_SUFFIXES) and is_file(entry, ignored)
        ]
    for row in FORMATS:
        if named_alone and not row.is_named_alone:
            continue
        if chosen := [path for path in every if row.knows(path.name)]:
            return _without_repeats(chosen)
    # A pickle has a name like any other; only CIFAR's two together tell.
    if {path.name for path in every} & {"batches.meta", "meta"}:
        for path in every:
            if is_pickled(path):
                raise refuse_pickled(path)
    packed = next((path for path in every if _PACKED.search(path.name)), None)
    if packed is not None and not named_alone:
        raise refuse_packed(packed)
    return []


def matching(path: Path) -> list[Path]:
    """The files of one kind that a pattern names: shards/train-*.tar."""
    if not any(each in path.name for each in "*?["):
        return []
    found = sorted(p for p in path.parent.glob(path.name) if p.is_file() and is_archive(p))
    return [p for p in found if p.suffix == found[0].suffix]


def open_archives(
    paths: Sequence[Path],
    *,
    root: Path | None = None,
    modality: Modality = "image",
    classes: Sequence[str] | None = None,
) -> Dataset:
    """One data set of all these files; ``root`` is the folder that was given."""
    row = format_of(paths[0].name)
    assert row is not None
    if row.holds_pictures and not kind_of(modality).is_picture:
        raise DataError(f"{paths[0]} holds pictures; open it with modality='image'")
    volumes: list[Volume] = []
    skipped: list[Skipped] = []
    for path in paths:
        try:
            opened = row.open(path)
        except DataError as error:
            if len(paths) == 1:
                raise
            skipped.append(Skipped(readable(path), str(error)))
            continue
        for volume in opened:
            volume.split = volume.split or split_in_path(path, root)
        volumes += opened
    if not volumes:
        raise DataError(f"none of {len(paths)} files can be read; first: {skipped[0].reason}")
    volumes.sort(key=lambda volume: volume.split not in TRAIN)  # what is learned from comes first
    return join(volumes, modality=modality, classes=classes, skipped=skipped)


def join(
    volumes: Sequence[Volume],
    *,
    modality: Modality,
    classes: Sequence[str] | None = None,
    skipped: Sequence[Skipped] = (),
) -> Dataset:
    """One data set of several volumes."""
    source = Inside([volume.part for volume in volumes], modality=modality)
    named = classes or next((volume.classes for volume in volumes if volume.classes), None)
    labels: list[Any] = []
    for volume in volumes:
        labels += _labels(volume, named)
    numbers, names = encode_labels(labels, len(source), named)
    columns: dict[str, list[Any]] = {}
    filled = 0
    for volume in volumes:
        values = dict(volume.columns)
        if volume.split is not None:
            values[SPLIT] = [volume.split] * len(volume.part)
        for name, column in values.items():
            known = columns.setdefault(name, [])
            known += [None] * (filled - len(known)) + list(column)
        filled += len(volume.part)
    return Dataset(
        source,
        labels=numbers,
        classes=names,
        columns={name: _column(values, filled) for name, values in columns.items()},
        modality=modality,
        skipped=[*skipped, *(one for volume in volumes for one in volume.skipped)],
    )


def _labels(volume: Volume, names: Sequence[str] | None) -> list[Any]:
    """The labels of a volume; numbers by its own names, where these differ from the others'."""
    if volume.labels is None:
        return [None] * len(volume.part)
    own = volume.classes
    if own is None or names is None:
        return list(volume.labels)
    return [
        own[value] if isinstance(value, int) and 0 <= value < len(own) else None
        for value in volume.labels
    ]


def _column(values: list[Any], n: int) -> Any:
    column = np.empty(n, object)
    column[:] = values + [None] * (n - len(values))
    return column


def _without_repeats(paths: Sequence[Path]) -> list[Path]:
    """Without files of labels, and without the packed twin of a file that lies unpacked."""
    names = set(paths)
    items = [path for path in paths if not (is_idx(path.name) and is_labels(path))]
    kept = [p for p in items if not (p.suffix == ".gz" and p.with_suffix("") in names)]
    return kept or list(paths)
