"""A table of items: CSV, TSV or JSONL with one item a row.

Columns: ``path`` (or ``file``, ``filename``, ``image``), relative to the table, or ``url``, which
only a gallery fetches; ``label`` (or ``class``), optional; a box, optional, which makes the item a
crop of the image: ``left``, ``top``, ``right``, ``bottom``, or ``x1``, ``y1``, ``x2``, ``y2``, or
``x``, ``y``, ``w``, ``h``, or in JSONL ``box``: [left, top, right, bottom]. Every other column is
metadata (``columns.py``). Rows that make no sense are skipped and listed with their line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

from fastretrieve._common.arguments import shown
from fastretrieve.data.columns import TableColumns
from fastretrieve.data.dataset import Dataset, encode_labels
from fastretrieve.data.errors import DataError, Skipped, readable
from fastretrieve.data.modalities import Modality
from fastretrieve.data.readers import Box
from fastretrieve.data.rows import Row, TableRows
from fastretrieve.data.sources import Files

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
MAX_LISTED = 100_000  # skipped rows that are listed; the rest are counted
_PATHS = ("path", "file", "filename", "image")
_URL = "url"  # of an item without a path; beside one it is metadata
_LABELS = ("label", "class")
_CORNERS = (("left", "top", "right", "bottom"), ("x1", "y1", "x2", "y2"))
_EXTENT = ("x", "y", "w", "h")


class _Paths(Sequence[Path]):
    """The paths of the files, joined to the folder on access: a name takes less memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self.folder / name for name in self.names[index]]
        return self.folder / self.names[index]  # an absolute path stays as it is


class _Item(NamedTuple):
    """The place and label of an item, from its row."""

    file: str  # "" where there is a URL
    url: str | None
    box: Box | None
    label: Any


class TableReader:
    """Reads a table, row by row, into columns; a row ``of_texts`` needs no path."""

    def __init__(self, path: Path, *, of_texts: bool = False) -> None:
        self.path = path
        self.of_texts = of_texts
        self.lines: list[int] = []  # the number of each row's line
        self.rows = TableRows(path)
        self.paths = _Paths(path.parent)
        self.urls: list[str | None] = []
        self.boxes: list[Box | None] = []
        self.columns = TableColumns()
        self.skipped: list[Skipped] = []
        self.n_unlisted = 0

    def read(self) -> None:
        """All rows."""
        for line, row in self.rows:
            if isinstance(row, str):
                self.skip(line, row)
                continue
            try:
                item = _Item("", None, None, _label(row)) if self.of_texts else _item(row)
            except (ValueError, TypeError, OverflowError) as error:
                self.skip(line, str(error))
                continue
            at = len(self.urls)
            self.lines.append(line)
            self.paths.names.append(item.file)
            self.urls.append(item.url)
            self.boxes.append(item.box)
            for name, value in row.items():
                self.columns.put(name, value, at, self.rows.n_characters)
        self.columns.settle(len(self.urls), self.rows.n_characters)
        self._list_left_out()

    def skip(self, line: int, reason: str) -> None:
        if len(self.skipped) < MAX_LISTED:
            self.skipped.append(Skipped(readable(f"{self.path}:{line}"), readable(reason)))
        else:
            self.n_unlisted += 1

    def take_labels(self) -> list[Any] | None:
        """Remove the column of labels, where there is one."""
        label = next((name for name in _LABELS if self.columns.has(name)), None)
        return self.columns.take(label, len(self.lines)) if label else None

    def _list_left_out(self) -> None:
        """List the columns that are left out, and the number of unlisted rows."""
        left_out = dict(self.rows.left_out)
        for name in sorted(self.columns.left_out):
            left_out[f"column {name!r}"] = "so few rows have it that its gaps take too much memory"
        if self.columns.has(""):
            self.columns.take("", 0)
            left_out['column ""'] = "it has no name"
        for name, reason in left_out.items():
            self.skipped.append(Skipped(readable(f"{self.path}: {name}"), readable(reason)))
        if self.n_unlisted:
            more = f"{self.n_unlisted:,} more rows that make no sense"
            self.skipped.append(Skipped(readable(self.path), more))


def open_table(
    path: Path, *, modality: Modality = "image", classes: Sequence[str] | None = None
) -> Dataset:
    """Read a table into a ``Dataset``; the items themselves are read later."""
    table = TableReader(path)
    table.read()
    n_rows = len(table.urls)
    if n_rows == 0:
        first = next((f"; first: {one.key}: {one.reason}" for one in table.skipped), "")
        raise DataError(f"{path} has no usable row{first}; it needs a column 'path' or 'url'")
    columns = table.columns
    labels, names = encode_labels(table.take_labels(), n_rows, classes)
    urls = table.urls if any(table.urls) else None
    for name in {*_PATHS, *_box_columns(columns), *([_URL] if all(table.urls) else [])}:
        columns.take(name, 0)
    return Dataset(
        Files(
            table.paths,
            modality=modality,
            boxes=table.boxes if any(table.boxes) else None,
            urls=urls,
        ),
        labels=labels,
        classes=names,
        columns=columns.arrays(n_rows),
        modality=modality,
        skipped=table.skipped,
    )


def _item(row: Row) -> _Item:
    """The item of a row; a ``ValueError`` says what is wrong with it."""
    file = next((row[name] for name in _PATHS if row.get(name)), None)
    url = str(row.get(_URL) or "").strip() if file is None else ""
    if url and not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"not a URL of http or https: {url[:80]}")
    if file is not None and not isinstance(file, str):
        raise ValueError(f"a path is text, got {shown(file)}")
    if not url and file is None:
        raise ValueError("no path and no url")
    if file and "\0" in file:
        raise ValueError("its path holds a NUL byte")
    box = _box(row)
    if box is not None and not (box[2] > box[0] and box[3] > box[1]):
        raise ValueError(f"box (left, top, right, bottom) = {box} is empty")
    return _Item(file or "", url or None, box, _label(row))


def _label(row: Row) -> Any:
    label = next((row[name] for name in _LABELS if name in row), None)
    if isinstance(label, (list, dict, bool)) or label in (math.inf, -math.inf):
        raise ValueError(f"a label is text or a number, got {shown(label)}")
    return label


def _box(row: Row) -> Box | None:
    given = row.get("box")
    if given not in (None, ""):
        if not isinstance(given, list) or len(given) != 4:
            raise ValueError(f"box is [left, top, right, bottom], got {shown(given)}")
        return _edges(dict(zip(_CORNERS[0], given, strict=True)))
    for names in (*_CORNERS, _EXTENT):
        edges = {name: row[name] for name in names if row.get(name) not in (None, "")}
        if len(edges) == len(names):
            a, b, c, d = _edges(edges)
            return (a, b, a + c, b + d) if names == _EXTENT else (a, b, c, d)
    return None


def _edges(given: dict[str, Any]) -> Box:
    try:
        a, b, c, d = (float(value) for value in given.values() if not isinstance(value, bool))
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"box {shown(given)} is not made of numbers") from None
    if not all(abs(edge) < 2**31 for edge in (a, b, c, d)):  # NaN fails this too
        raise ValueError(f"box {shown(given)} is not in pixels of a picture")
    return a, b, c, d


def _box_columns(columns: TableColumns) -> set[str]:
    sets = [{*names} for names in (*_CORNERS, _EXTENT) if all(map(columns.has, names))]
    return {"box"}.union(*sets)
