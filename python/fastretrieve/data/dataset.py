"""A data set: items that are read on demand, their labels, and any further columns.

A ``Dataset`` holds no pixels of its own. ``source`` reads an item by number (``sources.py``);
``rows`` says which of its items belong, so a subset copies nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastretrieve._common.arguments import shown
from fastretrieve.data.errors import DataError, Skipped
from fastretrieve.data.modalities import Modality, kind_of


class ItemSource(Protocol):
    """Items by number."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """A name for messages and reports: the path, or ``#12``."""
        ...

    def read(self, index: int, *, size: int | None) -> Any:
        """The item. ``size`` permits a smaller decoding, not below this many pixels a side."""
        ...

    def read_many(self, indices: NDArray[np.int64]) -> Any | None:
        """All items as one array where that is cheap, else None."""
        ...


class Dataset:
    """Items with labels and columns; make one with ``open_dataset``.

    >>> from fastretrieve.data import open_dataset
    >>> images = np.zeros((4, 8, 8), np.uint8)
    >>> data = open_dataset(images, labels=["boot", "bag", "boot", "bag"])
    >>> data.classes, data.labels.tolist()
    (('bag', 'boot'), [1, 0, 1, 0])
    """

    def __init__(
        self,
        source: ItemSource,
        *,
        labels: NDArray[np.int64],
        classes: Sequence[str],
        columns: Mapping[str, NDArray[Any]] | None = None,
        modality: Modality = "image",
        rows: NDArray[np.int64] | None = None,
        skipped: Sequence[Skipped] = (),
    ) -> None:
        self.source = source
        self.rows = np.arange(len(source), dtype=np.int64) if rows is None else rows
        self.labels = labels  # int64 [n_items], -1 where an item has none
        self.classes = tuple(classes)
        self.columns = dict(columns or {})  # name -> [n_items]
        kind_of(modality)  # an error if it is unknown
        self.modality: Modality = modality
        self.skipped = tuple(skipped)  # rows and files that could not be listed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.read(index)

    def __iter__(self) -> Iterator[Any]:
        return (self.read(i) for i in range(len(self)))

    def __repr__(self) -> str:
        names = f", {len(self.classes)} classes" if self.classes else ""
        return f"Dataset({len(self)} {self.modality} items{names})"

    @property
    def is_labelled(self) -> bool:
        """Whether any item has a label."""
        return bool((self.labels >= 0).any())

    def key(self, index: int) -> str:
        """The path of an item, or its number."""
        return self.source.key(int(self.rows[index]))

    def read(self, index: int, *, size: int | None = None) -> Any:
        """Read one item; a ``DataError`` says why it cannot be read."""
        return self.source.read(int(self.rows[index]), size=size)

    def read_many(self, indices: NDArray[np.int64]) -> Any | None:
        """Items as one array where the source can, else None."""
        return self.source.read_many(self.rows[indices])

    def label_name(self, index: int) -> str | None:
        """The class of an item, or None."""
        label = int(self.labels[index])
        return self.classes[label] if label >= 0 else None

    def column(self, name: str) -> NDArray[Any]:
        """One column of metadata; "label" gives the names of the classes."""
        if name == "label" and name not in self.columns:
            return np.array([self.label_name(i) for i in range(len(self))], object)
        if name not in self.columns:
            raise DataError(
                f"no column {name!r}; this data set has {sorted(self.columns) or 'no columns'}"
            )
        return self.columns[name]

    def subset(self, indices: ArrayLike) -> Dataset:
        """The items at ``indices`` (numbers or a boolean mask), in that order."""
        picked = np.asarray(indices)
        picked = np.flatnonzero(picked) if picked.dtype == np.bool_ else picked.astype(np.int64)
        if len(picked) and not (picked.min() >= 0 and picked.max() < len(self)):
            raise DataError(
                f"subset asks for items {picked.min()} to {picked.max()} of {len(self)}"
            )
        return Dataset(
            self.source,
            labels=self.labels[picked],
            classes=self.classes,
            columns={name: values[picked] for name, values in self.columns.items()},
            modality=self.modality,
            rows=self.rows[picked],
        )

    def split(self, share: float, *, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Split off ``share`` of every class; returns (the rest, the share).

        Classes of which ``share`` is less than half an item, pairs for instance, go to one side
        whole: ``share`` of these classes. Unlabelled items count as one class. A class of one item
        stays in the rest.

        >>> from fastretrieve.data import open_dataset
        >>> data = open_dataset(np.zeros((10, 4, 4), np.uint8), labels=[0] * 8 + [1] * 2)
        >>> [part.labels.tolist() for part in data.split(0.25)]
        [[0, 0, 0, 0, 0, 0, 1], [0, 0, 1]]
        """
        if not 0 < share < 1:
            raise ValueError(f"share must lie between 0 and 1, got {share}")
        rng = np.random.default_rng(seed)
        held = np.zeros(len(self), bool)
        small = []
        for label, members in _members_of(self.labels):
            if label >= 0 and share * len(members) < 0.5:
                small += [members] if len(members) > 1 else []
                continue
            n_held = min(max(round(share * len(members)), 1), len(members) - 1)
            held[rng.permutation(members)[:n_held]] = True
        for i in rng.permutation(len(small))[: round(share * len(small))]:
            held[small[i]] = True
        return self.subset(~held), self.subset(held)

    def relabel(self, classes: Sequence[str]) -> Dataset:
        """The same items with labels numbered by ``classes``; others become -1.

        Two data sets are compared by name: relabel one with the other's classes.
        """
        position = {name: i for i, name in enumerate(classes)}
        table = np.array([position.get(name, -1) for name in self.classes] + [-1], np.int64)
        other = self.subset(np.arange(len(self)))
        other.labels, other.classes = table[self.labels], tuple(classes)
        return other


def encode_labels(
    values: Any, n_items: int, classes: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels of any kind as numbers and class names; None, "" and -1 mean no label.

    Names are sorted, whole numbers by value; given ``classes``, integers are positions in it.
    """
    if values is None:
        return np.full(n_items, -1, np.int64), tuple(classes or ())
    one_each = np.ndim(values) == 1 if hasattr(values, "tolist") else isinstance(values, Iterable)
    if not one_each or isinstance(values, (str, bytes)):
        raise DataError(f"labels must be a list of {n_items} names or numbers, got {shown(values)}")
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(listed) != n_items:
        raise DataError(f"there are {len(listed)} labels for {n_items} items")
    listed = [value.item() if isinstance(value, np.generic) else value for value in listed]
    listed = [None if _is_missing(value) else value for value in listed]
    whole = all(value is None or isinstance(value, int) for value in listed)
    if classes is not None and whole:
        numbers = [-1 if value is None else int(value) for value in listed]
        if max(numbers, default=-1) >= len(classes):
            raise DataError(f"label {max(numbers)} has no name: there are {len(classes)} classes")
        return np.array(numbers, np.int64), tuple(classes)
    present = {value for value in listed if value is not None}
    counts = all(str(value).isdecimal() for value in present)
    names = classes or tuple(str(v) for v in sorted(present, key=int if counts else str))
    position = {name: i for i, name in enumerate(names)}
    if unknown := {str(value) for value in present} - set(position):
        raise DataError(
            f"labels {sorted(unknown)[:5]} are not among the classes {list(names)[:20]}"
        )
    labels = [-1 if value is None else position[str(value)] for value in listed]
    return np.array(labels, np.int64), tuple(names)


def _members_of(labels: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each label with the numbers of its items, in one pass: there may be as many as items."""
    order = np.argsort(labels, kind="stable")
    values, starts = np.unique(labels[order], return_index=True)
    yield from zip(values.tolist(), np.split(order, starts[1:]), strict=True)


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, int) and value < 0) or value != value
