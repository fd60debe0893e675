"""``open_dataset``: from a folder, a table, a file or arrays to a ``Dataset``.

Tables are read in ``tables.py``, folders listed by ``modalities.py``, which also reads the items
when they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data import npz
from fastretrieve.data.archives import find_archives, is_archive, join, matching, open_archives
from fastretrieve.data.arrays import map_array
from fastretrieve.data.dataset import Dataset, encode_labels
from fastretrieve.data.errors import DataError, Skipped
from fastretrieve.data.modalities import Modality, kind_of
from fastretrieve.data.pairs import Pairs, open_pairs, pair_columns
from fastretrieve.data.sources import Files, Memory
from fastretrieve.data.splits import choose, prefer
from fastretrieve.data.tables import TABLE_SUFFIXES, open_table
from fastretrieve.data.textfiles import open_texts


def open_dataset(
    source: Any,
    *,
    labels: Any = None,
    classes: Sequence[str] | None = None,
    columns: dict[str, Any] | None = None,
    modality: Modality = "image",
    recursive: bool = True,
    split: str | None = None,
    pairs: Pairs = False,
    text_column: str | None = None,
) -> Dataset:
    """Open a data set from

    - a folder of class folders (the first folder names the class), or a flat folder;
    - a CSV, TSV or JSONL file of paths, with labels, boxes and further columns (``tables.py``);
    - an ``.npz`` file with ``images`` (or ``sequences``) and ``labels``, or an ``.npy`` file;
    - a file that holds many items, or a folder of such files: IDX, CIFAR, ``.npz`` with splits,
      tar, Parquet (``archives.py``);
    - an array or tensor [n, ...], or a list of paths, PIL images, arrays or sequences;
    - a pair ``(items, labels)``; one image or video file; a ``Dataset``, which comes back as it is;
    - of texts: a .txt file with one a line, a folder of such files, a table or Parquet file with a
      column ``text``, else ``caption``, else ``text_column``; a list of ``str``, or of files as
      ``Path``.

    ``split`` keeps the items with this value in the column ``split``. ``pairs`` makes each pair a
    class: of two folders ``(a, b)`` with equal names or of two lists if True, of two columns of
    paths in a table if it names them (``pairs.py``).

    >>> open_dataset((np.zeros((3, 8, 8), np.uint8), ["a", "b", "a"]))
    Dataset(3 image items, 2 classes)
    """
    if pairs:
        opened = open_pairs(source, pairs, modality=modality, recursive=recursive)
    else:
        opened = _open(source, labels, classes, columns, modality, recursive, text_column)
    return opened if split is None else choose(opened, split, source=_called(source))


def open_split(
    source: Any, *, split: str | None, otherwise: Sequence[str], **options: Any
) -> Dataset:
    """``open_dataset`` with this split; without one, the first of ``otherwise`` that the files of
    ``source`` bring, else all. A ``Dataset`` stays as it is.
    """
    opened = open_dataset(source, split=split, **options)
    preferred = split is None and not isinstance(source, Dataset)
    return (prefer(opened, otherwise) if preferred else None) or opened


def _open(
    source: Any,
    labels: Any,
    classes: Sequence[str] | None,
    columns: dict[str, Any] | None,
    modality: Modality,
    recursive: bool,
    text_column: str | None,
) -> Dataset:
    if isinstance(source, Dataset):
        return source
    if isinstance(source, tuple) and len(source) == 2 and labels is None:
        source, labels = source
    if kind_of(modality).is_words:
        opened = open_texts(source, classes=classes, column=text_column, recursive=recursive)
        return _described(opened, labels, classes, columns)
    if text_column is not None:
        raise DataError("text_column is for texts: modality='text'")
    skipped: list[Skipped] = []
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if labels is None and (dataset := _open_path(path, modality, recursive, classes)):
            return dataset
        source = _listed(path, modality, recursive, skipped)
    items, from_disk = _as_items(source)
    store = Files(items, modality=modality) if from_disk else Memory(items)
    numbers, names = encode_labels(None, len(store), classes)
    opened = Dataset(store, labels=numbers, classes=names, modality=modality, skipped=skipped)
    return _described(opened, labels, classes, columns)


def _described(
    opened: Dataset, labels: Any, classes: Sequence[str] | None, columns: dict[str, Any] | None
) -> Dataset:
    """Give a data set, which nobody else has yet, these labels and columns."""
    n = len(opened)
    if labels is not None:
        opened.labels, opened.classes = encode_labels(labels, n, classes)
    given = {name: _column(name, values, n) for name, values in (columns or {}).items()}
    opened.columns |= given
    return opened


def _open_path(
    path: Path, modality: Modality, recursive: bool, classes: Sequence[str] | None
) -> Dataset | None:
    """The sources that bring labels of their own; None where there can be none."""
    if not path.exists():
        if found := matching(path):
            return open_archives(found, modality=modality, classes=classes)
        raise DataError(f"{path} does not exist; give a folder, a table (.csv, .jsonl) or a file")
    suffix = path.suffix.lower()
    if path.is_file() and suffix in TABLE_SUFFIXES:
        if pair_columns(path) is not None:
            return open_pairs(path, True, modality=modality, recursive=recursive)
        return open_table(path, modality=modality, classes=classes)
    if path.is_file() and suffix == ".npz":
        return _open_npz(path, modality, classes)
    if path.is_file() and is_archive(path):
        return open_archives([path], modality=modality, classes=classes)
    return _open_folder(path, modality, recursive, classes) if path.is_dir() else None


def _open_folder(
    path: Path, modality: Modality, recursive: bool, classes: Sequence[str] | None
) -> Dataset:
    """Class folders, a flat folder, or a folder of files that hold many items each."""
    found = find_archives(path, recursive=False, named_alone=True)
    skipped: list[Skipped] = []
    try:
        paths = [] if found else _listed(path, modality, recursive, skipped)
    except DataError:
        found = find_archives(path, recursive=recursive)
        if not found:
            raise
    if found:
        return open_archives(found, root=path, modality=modality, classes=classes)
    folders = [p.relative_to(path).parts[0] if p.parent != path else None for p in paths]
    labels, names = encode_labels(folders, len(paths), classes)
    return Dataset(
        Files(paths, modality=modality),
        labels=labels,
        classes=names,
        modality=modality,
        skipped=skipped,
    )


def _listed(path: Path, modality: Modality, recursive: bool, skipped: list[Skipped]) -> Any:
    """The items of a folder in order of their names, or a single file as one item."""
    kind = kind_of(modality)
    if path.is_file():
        is_array = path.suffix.lower() == ".npy" and kind.stacks_in_npy
        return map_array(path) if is_array else [path]
    paths = list(kind.find(path, recursive=recursive, skipped=skipped))
    if not paths:
        first = f"; first: {skipped[0].key}: {skipped[0].reason}" if skipped else ""
        raise DataError(
            f"{path} holds no {modality} files"
            + ("" if recursive else " (subfolders were not searched: recursive=False)")
            + first
        )
    return paths


def _open_npz(path: Path, modality: Modality, classes: Sequence[str] | None) -> Dataset:
    found = npz.open_npz(path)
    if not isinstance(found, npz.Whole):
        return join(found, modality=modality, classes=classes)
    given = classes if classes is not None else found.classes
    return open_dataset(found.items, labels=found.labels, classes=given, modality=modality)


def _called(source: Any) -> str:
    return str(source) if isinstance(source, (str, os.PathLike)) else "the data set"


def _as_items(source: Any) -> tuple[Any, bool]:
    """The items, and whether they are paths to read."""
    if hasattr(source, "detach"):
        source = source.detach().cpu()
        # Tensors keep channels first and arrays keep them last; as tensors they stay unambiguous.
        return (source.numpy() if source.ndim == 3 else source), False
    if isinstance(source, np.ndarray):
        if source.ndim < 2:
            raise DataError(f"an array of items is [n, ...], got shape {source.shape}")
        return source, False
    try:
        items = list(source)
    except TypeError:
        raise DataError(
            f"cannot read a data set from {type(source).__name__}; give a folder, a table, a file, "
            "an array [n, ...] or a list of images"
        ) from None
    on_disk = [isinstance(item, (str, os.PathLike)) for item in items]
    if any(on_disk) and not all(on_disk):
        raise DataError("a list of items holds paths or images, not both")
    return ([Path(item) for item in items] if any(on_disk) else items), any(on_disk)


def _column(name: str, values: Any, n_items: int) -> NDArray[Any]:
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(listed) != n_items:
        raise DataError(f"column {name!r} has {len(listed)} values for {n_items} items")
    column = np.empty(n_items, object)
    column[:] = listed
    return column
