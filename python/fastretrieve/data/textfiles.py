"""Files that hold many texts: .txt with a text a line, tables and Parquet with a column of texts.

All are read when they are opened: a text takes less memory than the path of a picture. A line that
is no text is listed with its number, and the others still come.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastretrieve.data.archives import join
from fastretrieve.data.dataset import Dataset, encode_labels
from fastretrieve.data.errors import DataError, Skipped, TooLarge, readable
from fastretrieve.data.modalities import kind_of
from fastretrieve.data.parquet import open_text_parquet
from fastretrieve.data.parts import Lines, Volume
from fastretrieve.data.rows import TableRows
from fastretrieve.data.sources import Texts
from fastretrieve.data.splits import split_in_path
from fastretrieve.data.tables import MAX_LISTED, TABLE_SUFFIXES, TableReader
from fastretrieve.data.texts import TEXT_SUFFIXES, fault_of, text_column

MAX_BYTES = 1 << 29  # of a file
MAX_TEXTS = 5_000_000  # in a file
_PARQUET = frozenset({".parquet"})


def open_texts(
    source: Any,
    *,
    classes: Sequence[str] | None = None,
    column: str | None = None,
    recursive: bool = True,
) -> Dataset:
    """A data set of texts from a file or a folder (``str`` or ``Path``), from a list of files
    (``Path``), or of texts (``str``).
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return _of_folder(path, classes, recursive) if path.is_dir() else _of(path, classes, column)
    if isinstance(source, (bytes, bytearray)) or not hasattr(source, "__iter__"):
        raise DataError(
            f"cannot read texts from {type(source).__name__}; give a file, a folder, or a list of "
            "str"
        )
    items = source.tolist() if hasattr(source, "tolist") else list(source)
    are_files = [isinstance(item, os.PathLike) for item in items]
    if any(are_files):
        if not all(are_files):
            raise DataError("a list holds texts (str) or files (Path), not both")
        return join([_volume(Path(item), column) for item in items], modality="text")
    labels, names = encode_labels(None, len(items), classes)
    return Dataset(Texts(items), labels=labels, classes=names, modality="text")


def _of(path: Path, classes: Sequence[str] | None, column: str | None) -> Dataset:
    return join([_volume(path, column)], modality="text", classes=classes)


def _of_folder(root: Path, classes: Sequence[str] | None, recursive: bool) -> Dataset:
    """The lines of all .txt files; the first folder below the root names the class."""
    skipped: list[Skipped] = []
    volumes: list[Volume] = []
    for path in kind_of("text").find(root, recursive=recursive, skipped=skipped):
        try:
            volume = _of_lines(path)
        except DataError as error:
            skipped.append(Skipped(readable(path), str(error)))
            continue
        inner = path.relative_to(root).parts[:-1]
        volume.labels = [inner[0] if inner else None] * len(volume.part)
        volume.split = split_in_path(path, root)
        volumes.append(volume)
    if not volumes:
        first = f"; first: {skipped[0].key}: {skipped[0].reason}" if skipped else ""
        raise DataError(f"{root} holds no .txt files with texts{first}")
    return join(volumes, modality="text", classes=classes, skipped=skipped)


def _volume(path: Path, column: str | None) -> Volume:
    suffix = path.suffix.lower()
    if suffix not in TEXT_SUFFIXES | TABLE_SUFFIXES | _PARQUET:
        raise DataError(
            f"{path} holds no texts; give .txt (one a line), .csv, .tsv, .jsonl or .parquet"
        )
    if not path.exists():
        raise DataError(
            f"{path} does not exist; give a file or a folder, or texts themselves as a list: "
            "['a red boot']"
        )
    if (n_bytes := path.stat().st_size) > MAX_BYTES:
        raise TooLarge(f"{path}: {n_bytes:,} bytes, at most {MAX_BYTES:,} of text go; split it")
    if suffix in _PARQUET:
        return open_text_parquet(path, column)
    return _of_lines(path) if suffix in TEXT_SUFFIXES else _of_table(path, column)


class _Listed:
    """The texts that are found in a file, their numbers, and what is skipped."""

    def __init__(self, path: Path, skipped: Sequence[Skipped] = ()) -> None:
        self.path = path
        self.texts: list[str] = []
        self.numbers: list[int] = []
        self.skipped = list(skipped)
        self.n_unlisted = 0

    def put(self, number: int, text: Any, fault: str = "") -> bool:
        """Take a text, or list why not."""
        fault = fault or fault_of(text)
        if fault:
            if len(self.skipped) < MAX_LISTED:
                self.skipped.append(Skipped(readable(f"{self.path}:{number}"), fault))
            else:
                self.n_unlisted += 1
            return False
        if len(self.texts) == MAX_TEXTS:
            raise TooLarge(f"{self.path} holds more than {MAX_TEXTS:,} texts; split it")
        self.texts.append(text)
        self.numbers.append(number)
        return True

    def volume(self) -> Volume:
        if self.n_unlisted:
            more = f"{self.n_unlisted:,} more lines that are no text"
            self.skipped.append(Skipped(readable(self.path), more))
        if not self.texts:
            first = next((f"; first: {one.key}: {one.reason}" for one in self.skipped), "")
            raise DataError(f"{self.path} holds no text{first}")
        return Volume(Lines(self.path, self.texts, self.numbers), skipped=self.skipped)


def _of_lines(path: Path) -> Volume:
    """The lines of a file; empty ones part the others and are no fault."""
    listed = _Listed(path)
    for number, line, fault in TableRows(path).plain():
        text = line.strip()
        if fault or text:
            listed.put(number, text, fault)
    return listed.volume()


def _of_table(path: Path, column: str | None) -> Volume:
    """The rows of a table, with labels and columns."""
    table = TableReader(path, of_texts=True)
    table.read()
    n_rows, columns = len(table.lines), table.columns
    if not n_rows:
        first = next((f"; first: {one.key}: {one.reason}" for one in table.skipped), "")
        raise DataError(f"{path} has no usable row{first}; it needs a column 'text' or 'caption'")
    texts = columns.take(text_column(path, columns.names, column), n_rows)
    listed = _Listed(path, table.skipped)
    rows = [
        i
        for i, (number, text) in enumerate(zip(table.lines, texts, strict=True))
        if listed.put(number, text.strip() if isinstance(text, str) else text)
    ]
    volume = listed.volume()
    labels = table.take_labels()
    volume.labels = None if labels is None else [labels[i] for i in rows]
    volume.columns = {
        name: [values[i] for i in rows] for name, values in columns.arrays(n_rows).items()
    }
    return volume
