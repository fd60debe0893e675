"""Pairs as a data set: both members of a pair have the same class, the pair.

A pair comes from a row of a table with two paths or texts, from two folders with equal names, or
from two lists. An item that belongs to several pairs comes once, and these pairs are one class.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data.dataset import Dataset, encode_labels
from fastretrieve.data.errors import DataError, Skipped, readable
from fastretrieve.data.modalities import Modality, kind_of
from fastretrieve.data.rows import TableRows
from fastretrieve.data.sources import Files, Memory, Texts
from fastretrieve.data.tables import TABLE_SUFFIXES
from fastretrieve.data.texts import fault_of

SIDE = "side"  # the column that says which member an item is
_STEMS = ("path", "file", "filename", "image")
NAMES = (
    *((f"{stem}{a}", f"{stem}{b}") for stem in _STEMS for a, b in (("_a", "_b"), ("1", "2"))),
    *((f"{stem}_1", f"{stem}_2") for stem in _STEMS),
    ("anchor", "positive"),
)
"""The names of the two columns of paths."""

Pairs = bool | tuple[str, str]


def open_pairs(source: Any, pairs: Pairs, *, modality: Modality, recursive: bool) -> Dataset:
    """The pairs of a table, of two folders, of a folder that holds two, or of two lists."""
    if not isinstance(pairs, bool):
        return _of_table(_table(source), pairs, modality)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_dir():
            return _of_table(_table(path), None, modality)
        source = _two_folders(path)
    if not isinstance(source, (tuple, list)) or len(source) != 2:
        raise DataError(
            "pairs come from a table with two columns of paths, two folders (a, b), a folder that "
            f"holds two, or two lists of items; got {type(source).__name__}"
        )
    left, right = source
    if _is_folder(left) and _is_folder(right):
        return _of_folders(Path(left), Path(right), modality, recursive)
    return _of_lists(left, right, modality)


def pair_columns(path: Path) -> tuple[str, str] | None:
    """The two columns of paths of a table that has no single one."""
    for _, row in TableRows(path):
        if isinstance(row, str):
            continue
        if any(row.get(name) for name in (*_STEMS, "url")):
            return None
        return next((both for both in NAMES if both[0] in row and both[1] in row), None)
    return None


class _Classes:
    """Joins pairs that share an item: items by key, each in one class."""

    def __init__(self) -> None:
        self.items: dict[Any, int] = {}  # key -> number
        self._parents: list[int] = []

    def put(self, key: Any) -> int:
        if key not in self.items:
            self.items[key] = len(self._parents)
            self._parents.append(len(self._parents))
        return self.items[key]

    def root(self, item: int) -> int:
        while self._parents[item] != item:
            self._parents[item] = self._parents[self._parents[item]]
            item = self._parents[item]
        return item

    def join(self, a: int, b: int) -> None:
        a, b = self.root(a), self.root(b)
        self._parents[max(a, b)] = min(a, b)


def _of_table(path: Path, names: tuple[str, str] | None, modality: Modality) -> Dataset:
    given = names or pair_columns(path)
    if given is None:
        shown = ", ".join("/".join(both) for both in NAMES[:3])
        raise DataError(
            f"{path} has no two columns of paths ({shown}, ...); say which: pairs=('a', 'b')"
        )
    is_words = kind_of(modality).is_words
    classes = _Classes()
    sides: list[str] = []
    told: list[dict[str, Any]] = []
    skipped: list[Skipped] = []
    for line, row in TableRows(path):
        both = [row.get(name) for name in given] if not isinstance(row, str) else []
        wrong = [v for v in both if not isinstance(v, str) or not v.strip() or "\0" in v]
        wrong = wrong or [v for v in both if is_words and fault_of(v)]
        if isinstance(row, str) or wrong:
            what = "texts" if is_words else "paths"
            reason = row if isinstance(row, str) else f"no {what} in {given[0]} and {given[1]}"
            skipped.append(Skipped(readable(f"{path}:{line}"), readable(reason)))
            continue
        rest = {name: value for name, value in row.items() if name not in given}
        members = []
        for side, value in zip(given, both, strict=True):
            item = str(value).strip() if is_words else path.parent / str(value)
            members.append(classes.put(item))
            if members[-1] == len(sides):
                sides.append(side)
                told.append(rest)
        classes.join(*members)
    if not sides:
        first = next((f"; first: {one.key}: {one.reason}" for one in skipped), "")
        raise DataError(f"{path} holds no pair{first}")
    columns = {name: [row.get(name) for row in told] for row in told[:1] for name in row}
    return _made(list(classes.items), classes, sides, columns, modality, skipped)


def _of_folders(left: Path, right: Path, modality: Modality, recursive: bool) -> Dataset:
    skipped: list[Skipped] = []
    sides = [_by_name(folder, modality, recursive, skipped) for folder in (left, right)]
    for own, other in (sides, sides[::-1]):
        for name in sorted(set(own) - set(other)):
            skipped.append(Skipped(readable(own[name]), "the other folder has no such name"))
    names = sorted(set(sides[0]) & set(sides[1]))
    if not names:
        raise DataError(
            f"{left} and {right} have no file of one name; a pair is a/0001.png and b/0001.jpg"
        )
    paths = [side[name] for name in names for side in sides]
    return Dataset(
        Files(paths, modality=modality),
        labels=np.repeat(np.arange(len(names)), 2),
        classes=[readable(name) for name in names],
        columns={SIDE: _texts([_side(left, right), _side(right, left)] * len(names))},
        modality=modality,
        skipped=skipped,
    )


def _by_name(
    folder: Path, modality: Modality, recursive: bool, skipped: list[Skipped]
) -> dict[str, Path]:
    """The items of a folder by their path in it without the suffix; the first of one name."""
    found: dict[str, Path] = {}
    for path in kind_of(modality).find(folder, recursive=recursive, skipped=skipped):
        name = str(path.relative_to(folder).with_suffix(""))
        if name in found:
            skipped.append(Skipped(readable(path), f"its name is that of {found[name]}"))
        else:
            found[name] = path
    return found


def _side(folder: Path, other: Path) -> str:
    """The folder's name, or its path where the other is called the same."""
    return readable(folder if folder.name == other.name else folder.name)


def _of_lists(left: Any, right: Any, modality: Modality) -> Dataset:
    if isinstance(left, (str, os.PathLike)) or isinstance(right, (str, os.PathLike)):
        raise DataError(f"pairs come from two folders; {left} or {right} is none")
    if len(left) != len(right):
        raise DataError(f"two lists of pairs have one length, got {len(left)} and {len(right)}")
    if len(left) == 0:
        raise DataError("two lists of pairs hold no pair")
    each = list(_alternating(left, right))
    sides = ["a", "b"] * len(left)
    classes = _Classes()
    if all(isinstance(item, (str, os.PathLike)) for item in each):
        is_words = kind_of(modality).is_words
        numbers = [classes.put(item if is_words else Path(item)) for item in each]
        firsts = [sides[at] for at in np.unique(numbers, return_index=True)[1]]
        for a, b in zip(numbers[::2], numbers[1::2], strict=True):
            classes.join(a, b)
        return _made(list(classes.items), classes, firsts, {}, modality, [])
    items: Any = each
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        items = np.stack(each) if left.shape == right.shape and left.dtype == right.dtype else each
    return Dataset(
        Memory(items),
        labels=np.repeat(np.arange(len(left)), 2),
        classes=[str(i) for i in range(len(left))],
        columns={SIDE: _texts(sides)},
        modality=modality,
    )


def _made(
    items: Sequence[Any],
    classes: _Classes,
    sides: Sequence[str],
    columns: dict[str, list[Any]],
    modality: Modality,
    skipped: Sequence[Skipped],
) -> Dataset:
    """Files or texts whose classes are the pairs that they belong to, named by the first one."""
    roots = [classes.root(item) for item in range(len(items))]
    numbers = {root: number for number, root in enumerate(dict.fromkeys(roots))}
    labels, _ = encode_labels([numbers[root] for root in roots], len(items))
    names = [readable(items[root]) for root in numbers]
    return Dataset(
        Texts(items) if kind_of(modality).is_words else Files(items, modality=modality),
        labels=labels,
        classes=names,
        columns={name: _texts(values) for name, values in columns.items()} | {SIDE: _texts(sides)},
        modality=modality,
        skipped=skipped,
    )


def _alternating(left: Any, right: Any) -> Iterator[Any]:
    for a, b in zip(left, right, strict=True):
        yield a
        yield b


def _two_folders(path: Path) -> tuple[Path, Path]:
    inner = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(inner) != 2:
        raise DataError(
            f"{path} holds {len(inner)} folders; pairs=True wants two, with equal names in them, or"
            " give the two: (a, b)"
        )
    return inner[0], inner[1]


def _table(source: Any) -> Path:
    path = Path(source) if isinstance(source, (str, os.PathLike)) else None
    if path is None or path.suffix.lower() not in TABLE_SUFFIXES or not path.is_file():
        raise DataError(
            f"pairs=('a', 'b') names two columns of a table (.csv, .jsonl); got {source}"
        )
    return path


def _is_folder(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike)) and Path(source).is_dir()


def _texts(values: Sequence[Any]) -> NDArray[Any]:
    column = np.empty(len(values), object)
    column[:] = list(values)
    return column
