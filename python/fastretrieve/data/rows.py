"""The rows of a CSV, TSV or JSONL file, one after another; a bad one never takes the rest along.

A row that cannot be read comes as text that says why, and reading goes on with the next line. A row
has at most ``MAX_ROW`` characters and a table at most ``MAX_COLUMNS`` columns.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from fastretrieve.data.errors import DataError
from fastretrieve.data.opening import open_file
from fastretrieve.data.texts import UTF_16

MAX_ROW = 1 << 20  # characters
MAX_COLUMNS = 1000
_MAX_DIGITS = 1000  # of a whole number: to read more takes time that grows with its square
_UNDECODED = re.compile("[\udc80-\udcff]")
_REREAD = 16 * MAX_ROW  # characters of rows that are begun again, beside four times the file

Row = Mapping[str, Any]
Line = tuple[int, str, str]  # its number, its text, and why it cannot be used


class TableRows:
    """The rows of a table with the numbers of their lines; what is wrong comes as text."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_characters = 0  # read so far
        self.left_out: dict[str, str] = {}  # columns that no row has, with the reason

    def __iter__(self) -> Iterator[tuple[int, Row | str]]:
        is_json = self.path.suffix.lower() in (".jsonl", ".ndjson")
        with self._opened() as file:
            yield from self._of_json(file) if is_json else self._of_csv(file)

    def plain(self) -> Iterator[Line]:
        """The lines as they are, of a file that is no table."""
        with self._opened() as file:
            yield from self._lines(file)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[TextIO]:
        with contextlib.closing(open_file(self.path)) as raw:
            if raw.read(2) in UTF_16:
                raise DataError(f"{self.path} is text in UTF-16; save it as UTF-8")
            raw.seek(0)
            # What is not UTF-8 becomes surrogates here, by which its line is recognised.
            file = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
            try:
                yield file
            except OSError as error:
                raise DataError(f"{self.path}: not a readable table: {error}") from error

    def _lines(self, file: TextIO) -> Iterator[Line]:
        number = 0
        while text := file.readline(MAX_ROW):
            number += 1
            n_characters = len(text)
            while not text.endswith(("\n", "\r")) and (more := file.readline(MAX_ROW)):
                n_characters += len(more)
                text = more
            self.n_characters += n_characters
            if n_characters > MAX_ROW:
                yield number, "\n", f"a row of {n_characters:,} characters, at most {MAX_ROW:,} go"
            elif "\0" in text:
                yield number, text.replace("\0", ""), "it holds a NUL byte"
            elif not text.isascii() and _UNDECODED.search(text):
                yield number, text, "it is not UTF-8"
            else:
                yield number, text, ""

    def _of_json(self, file: TextIO) -> Iterator[tuple[int, Row | str]]:
        for number, text, fault in self._lines(file):
            if fault or text.strip():
                yield number, fault or json_row(text)

    def _of_csv(self, file: TextIO) -> Iterator[tuple[int, Row | str]]:
        head = file.read(4096)
        file.seek(0)
        tabs = self.path.suffix.lower() == ".tsv" or head.count("\t") > head.count(",")
        names: list[str | None] | None = None
        for number, values in _records(self._lines(file), "\t" if tabs else ","):
            if names is None:
                if isinstance(values, str):
                    raise DataError(f"{self.path}:{number}: the names of the columns: {values}")
                names = self._named(values)
            elif isinstance(values, str):
                yield number, values
            elif any(value.strip() for value in values[len(names) :]):
                yield number, f"{len(values)} fields, but {len(names)} columns have names"
            else:
                yield (
                    number,
                    {
                        name: value
                        for name, value in zip(names, values, strict=False)
                        if name is not None
                    },
                )

    def _named(self, header: list[str]) -> list[str | None]:
        """The names of the columns; None for those that are left out."""
        names: list[str | None] = []
        for number, given in enumerate(header[:MAX_COLUMNS], 1):
            name = given.strip()
            if name and name not in names:
                names.append(name)
                continue
            names.append(None)
            if name:
                self.left_out[f"column {number}"] = f"it is called {name[:80]!r}, as one before it"
            else:
                self.left_out[f"column {number}"] = "it has no name"
        if len(header) > MAX_COLUMNS:
            names += [None] * (len(header) - MAX_COLUMNS)
            self.left_out[f"columns {MAX_COLUMNS + 1} to {len(header)}"] = (
                f"a table has at most {MAX_COLUMNS} columns"
            )
        return names


class _Feeder:
    """Gives lines to the CSV reader, and knows which ones a row was made of."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = iter(lines)
        self._again: deque[Line] = deque()
        self._spare = _REREAD
        self.begin()

    def begin(self) -> None:
        """Before the next row."""
        self.used: list[Line] = []
        self.size = 0
        self.fault = ""

    def __iter__(self) -> _Feeder:
        return self

    def __next__(self) -> str:
        if self._again:
            line = self._again.popleft()
        else:
            line = next(self._lines, (0, "", ""))
            self._spare += 4 * len(line[1])
        if not line[0]:
            if self.used:
                self.fault = "a quoted field that does not end"
            raise StopIteration
        self.used.append(line)
        self.size += len(line[1])
        self.fault = self.fault or line[2]
        if self.size > MAX_ROW:
            raise csv.Error(f"a row of more than {MAX_ROW:,} characters")
        return line[1]

    def begin_again(self) -> None:
        """Give the lines after the first of this row once more: it should not have had them."""
        if self.size <= self._spare:
            self._spare -= self.size
            self._again.extendleft(reversed(self.used[1:]))


def _records(lines: Iterable[Line], delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """The fields of each row that is not empty, or what is wrong with it.

    A stray quote joins the lines up to the next one, or to the end of the file. Where that makes no
    row, or text goes on behind the next one, only the first of these lines is bad.
    """
    feeder = _Feeder(lines)
    reader = csv.reader(feeder, delimiter=delimiter)
    while True:
        feeder.begin()
        try:
            values = next(reader)
            if len(feeder.used) > 1 and not feeder.fault:
                _refuse_stray_quote(feeder.used, delimiter)
        except StopIteration:
            return
        except csv.Error as error:
            yield feeder.used[0][0], str(error)
            feeder.begin_again()
            continue
        if feeder.fault:
            yield feeder.used[0][0], feeder.fault
            if feeder.fault.startswith("a quoted field"):
                feeder.begin_again()
        elif values:
            yield feeder.used[0][0], values


def _refuse_stray_quote(lines: Iterable[Line], delimiter: str) -> None:
    """Raise where a row of several lines goes on right behind its closing quote."""
    for _ in csv.reader((line[1] for line in lines), delimiter=delimiter, strict=True):
        pass


def json_row(text: str) -> Row | str:
    """An object, or what is wrong with it."""
    try:
        row = json.loads(
            text,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_constant,
            object_pairs_hook=_unique,
        )
    except RecursionError:
        return "it is nested too deep"
    except ValueError as error:
        return f"not JSON: {error}"
    if not isinstance(row, dict):
        return "not a JSON object"
    if len(row) > MAX_COLUMNS:
        return f"{len(row)} columns, at most {MAX_COLUMNS} go"
    if "\\u" in text and not _is_text(row):
        return "it holds half a surrogate pair, which no text can"
    return row


def _is_text(row: dict[str, Any]) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"a number beyond 64 bits: {text[:40]}")
    return number


def _constant(name: str) -> float:
    if name != "NaN":  # which is how many programs write what is missing
        raise ValueError(f"{name} is no number")
    return math.nan


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("a name that comes twice in one object")
    return row
