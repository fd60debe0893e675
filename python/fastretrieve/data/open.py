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

from fastretrieve.data.arrays import map_array, read_arrays
from fastretrieve.data.dataset import Dataset, encode_labels
from fastretrieve.data.errors import DataError, Skipped
from fastretrieve.data.modalities import Modality, kind_of
from fastretrieve.data.sources import Files, Memory
from fastretrieve.data.tables import TABLE_SUFFIXES, open_table


def open_dataset(
    source: Any,
    *,
    labels: Any = None,
    classes: Sequence[str] | None = None,
    columns: dict[str, Any] | None = None,
    modality: Modality = "image",
    recursive: bool = True,
) -> Dataset:
    """Open a data set from

    - a folder of class folders (the first folder names the class), or a flat folder;
    - a CSV, TSV or JSONL file of paths, with labels, boxes and further columns (``tables.py``);
    - an ``.npz`` file with ``images`` (or ``sequences``) and ``labels``, or an ``.npy`` file;
    - an array or tensor [n, ...], or a list of paths, PIL images, arrays or sequences;
    - a pair ``(items, labels)``; one image or video file; a ``Dataset``, which comes back as it is.

    >>> open_dataset((np.zeros((3, 8, 8), np.uint8), ["a", "b", "a"]))
    Dataset(3 image items, 2 classes)
    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, tuple) and len(source) == 2 and labels is None:
        source, labels = source
    skipped: list[Skipped] = []
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if labels is None and (dataset := _open_path(path, modality, recursive, classes)):
            return dataset
        source = _listed(path, modality, recursive, skipped)
    items, from_disk = _as_items(source)
    store = Files(items, modality=modality) if from_disk else Memory(items)
    numbers, names = encode_labels(labels, len(store), classes)
    return Dataset(
        store,
        labels=numbers,
        classes=names,
        columns={
            name: _column(name, values, len(store)) for name, values in (columns or {}).items()
        },
        modality=modality,
        skipped=skipped,
    )


def _open_path(
    path: Path, modality: Modality, recursive: bool, classes: Sequence[str] | None
) -> Dataset | None:
    """The sources that bring labels of their own; None where there can be none."""
    if not path.exists():
        raise DataError(f"{path} does not exist; give a folder, a table (.csv, .jsonl) or a file")
    suffix = path.suffix.lower()
    if path.is_file() and suffix in TABLE_SUFFIXES:
        return open_table(path, modality=modality, classes=classes)
    if path.is_file() and suffix == ".npz":
        return _open_npz(path, modality, classes)
    if path.is_dir():
        skipped: list[Skipped] = []
        paths = _listed(path, modality, recursive, skipped)
        folders = [p.relative_to(path).parts[0] if p.parent != path else None for p in paths]
        labels, names = encode_labels(folders, len(paths), classes)
        return Dataset(
            Files(paths, modality=modality),
            labels=labels,
            classes=names,
            modality=modality,
            skipped=skipped,
        )
    return None


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
    items, labels, names = ("images", "sequences", "x", "data"), ("labels", "y"), "classes"
    arrays, listed = read_arrays(path, (*items, *labels, names))
    found = [name for name in items if name in arrays]
    if not found:
        raise DataError(
            f"{path} holds {listed[:20]}; name the items 'images' or 'sequences', and the labels "
            "'labels'"
        )
    given = classes if classes is not None else arrays.get(names)
    return open_dataset(
        arrays[found[0]],
        labels=next((arrays[name] for name in labels if name in arrays), None),
        classes=None if given is None else [str(name) for name in given],
        modality=modality,
    )


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
