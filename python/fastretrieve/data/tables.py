"""A table of items: CSV, TSV or JSONL with one item a row.

Columns: ``path`` (or ``file``, ``filename``, ``image``), relative to the table, or ``url``, which
only a gallery fetches; ``label`` (or ``class``), optional; a box, optional, which makes the item a
crop of the image: ``left``, ``top``, ``right``, ``bottom``, or ``x1``, ``y1``, ``x2``, ``y2``, or
``x``, ``y``, ``w``, ``h``, or in JSONL ``box``: [left, top, right, bottom]. Every other column is
metadata. Rows that make no sense are skipped and listed with their line.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data.dataset import Dataset, Modality, Skipped, encode_labels
from fastretrieve.data.errors import DataError
from fastretrieve.data.readers import Box
from fastretrieve.data.sources import Files

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
_PATHS = ("path", "file", "filename", "image")
_URL = "url"  # of an item without a path; beside one it is metadata
_LABELS = ("label", "class")
_CORNERS = (("left", "top", "right", "bottom"), ("x1", "y1", "x2", "y2"))
_EXTENT = ("x", "y", "w", "h")
_ZEROS = re.compile(r"[+-]?0\d")  # a number is not written so

Row = Mapping[str, Any]


def open_table(
    path: Path, *, modality: Modality = "image", classes: Sequence[str] | None = None
) -> Dataset:
    """Read a table into a ``Dataset``; the items themselves are read later."""
    read = _read_json_lines if path.suffix.lower() in (".jsonl", ".ndjson") else _read_csv
    paths: list[Path] = []
    urls: list[str | None] = []
    boxes: list[Box | None] = []
    rows: list[Row] = []
    skipped: list[Skipped] = []
    for line, row in read(path):
        try:
            file, url, box = _item(row)
        except (ValueError, TypeError) as error:
            skipped.append(Skipped(f"{path}:{line}", str(error)))
            continue
        paths.append(path.parent / file)  # an absolute path stays as it is
        urls.append(url)
        boxes.append(box)
        rows.append(row)
    if not rows:
        first = f"; first: {skipped[0].key}: {skipped[0].reason}" if skipped else ""
        raise DataError(f"{path} has no usable row{first}; it needs a column 'path' or 'url'")
    label = next((name for name in _LABELS if any(name in row for row in rows)), None)
    labels, names = encode_labels(
        [row.get(label) for row in rows] if label else None, len(rows), classes
    )
    without = {label, *_PATHS, *_box_columns(rows)} | ({_URL} if all(urls) else set())
    return Dataset(
        Files(
            paths,
            modality=modality,
            boxes=boxes if any(boxes) else None,
            urls=urls if any(urls) else None,
        ),
        labels=labels,
        classes=names,
        columns=_columns(rows, without=without),
        modality=modality,
        skipped=skipped,
    )


def _read_csv(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head = file.read(4096)
            file.seek(0)
            tabs = path.suffix.lower() == ".tsv" or head.count("\t") > head.count(",")
            reader = csv.DictReader(file, delimiter="\t" if tabs else ",")
            for row in reader:
                yield reader.line_num, {str(k).strip(): v for k, v in row.items() if k is not None}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table: {error}") from error


def _read_json_lines(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line, text in enumerate(file, 1):
                if not text.strip():
                    continue
                try:
                    row = json.loads(text)
                except ValueError as error:
                    row = {"": f"not JSON: {error}"}
                yield line, row if isinstance(row, dict) else {"": "not a JSON object"}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable table: {error}") from error


def _item(row: Row) -> tuple[str, str | None, Box | None]:
    """The path, or "" and the URL, and the box of a row; a ``ValueError`` says what is wrong."""
    if "" in row and len(row) == 1:
        raise ValueError(row[""])
    file = next((row[name] for name in _PATHS if row.get(name)), None)
    url = str(row.get(_URL) or "").strip() if file is None else ""
    if url and not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"not a URL of http or https: {url[:80]}")
    if not url and not isinstance(file, str):
        raise ValueError("no path and no url")
    box = _box(row)
    if box is not None and not (box[2] > box[0] and box[3] > box[1]):
        raise ValueError(f"box (left, top, right, bottom) = {box} is empty")
    return file or "", url or None, box


def _box(row: Row) -> Box | None:
    if row.get("box") is not None:
        left, top, right, bottom = (float(edge) for edge in row["box"])
        return left, top, right, bottom
    for names in (*_CORNERS, _EXTENT):
        given = {name: row[name] for name in names if row.get(name) not in (None, "")}
        if len(given) == len(names):
            try:
                a, b, c, d = (float(value) for value in given.values())
            except ValueError:
                raise ValueError(f"box {given} is not made of numbers") from None
            return (a, b, a + c, b + d) if names == _EXTENT else (a, b, c, d)
    return None


def _box_columns(rows: Sequence[Row]) -> set[str]:
    present = {name for row in rows for name in row}
    sets = [{*names} for names in (*_CORNERS, _EXTENT) if {*names} <= present]
    return {"box"}.union(*sets)


def _columns(rows: Sequence[Row], *, without: set[Any]) -> dict[str, NDArray[Any]]:
    """Metadata by column; text that is a number everywhere becomes one."""
    names = list(dict.fromkeys(name for row in rows for name in row if name not in without))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        column = np.empty(len(rows), object)
        column[:] = _numbers(values) or values
        columns[name] = column
    return columns


def _numbers(values: list[Any]) -> list[Any] | None:
    """Text as numbers, where all of it is; "007" is a name. JSON's own types stay as they are."""
    texts = [value for value in values if value not in (None, "")]
    if not all(isinstance(text, str) and not _ZEROS.match(text) for text in texts):
        return None
    for kind in (int, float):
        try:
            return [kind(value) if value else None for value in values]
        except ValueError:
            continue
    return None
