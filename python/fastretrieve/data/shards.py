"""Tar files of pictures, with a label or caption beside each, as WebDataset writes them.

A sample is the members of one name up to its first dot: ``0001.jpg``, ``0001.cls`` (a label),
``0001.txt`` (a caption), ``0001.json`` (both, and further columns). Without labels the first folder
in the tar names the class. The index is made by one walk over the headers; a picture is read from
its place when it is asked for. A member that cannot be used is skipped with the reason.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fastretrieve.data.arrays import MAX_BYTES
from fastretrieve.data.columns import TableColumns
from fastretrieve.data.errors import DataError, Skipped, readable
from fastretrieve.data.opening import open_file
from fastretrieve.data.parts import ITEM, Volume
from fastretrieve.data.readers import IMAGE_SUFFIXES
from fastretrieve.data.rows import MAX_ROW, json_row

_LABELS = ("label", "class", "cls")
_BESIDE = {".cls": 1 << 10, ".txt": MAX_ROW, ".json": MAX_ROW}  # bytes that such a member may have


class Members:
    """The pictures of a tar file, as a part."""

    def __init__(self, path: Path, names: list[str], spans: list[tuple[int, int]]) -> None:
        self.path, self.names, self.spans = path, names, spans
        self._state = _state(os.stat(path))

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def read(self, index: int) -> bytes:
        start, n_bytes = self.spans[index]
        with contextlib.closing(open_file(self.path)) as file:
            if _state(os.fstat(file.fileno())) != self._state:
                raise DataError(f"{self.path} has changed since it was opened; open it again")
            file.seek(start)
            return file.read(n_bytes)


class _Sample:
    """What belongs to one picture."""

    def __init__(self) -> None:
        self.name = ""
        self.span = (0, 0)
        self.label: Any = None
        self.values: dict[str, Any] = {}


class _Shard:
    """Collects the samples of one tar file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples: dict[str, _Sample] = {}
        self.skipped: list[Skipped] = []

    def skip(self, name: str, reason: object) -> None:
        self.skipped.append(Skipped(readable(f"{self.path}{ITEM}{name}"), readable(reason)))

    def read(self) -> None:
        n_bytes = self.path.stat().st_size
        with contextlib.closing(open_file(self.path)) as file:
            for member in self._members(file):
                name = member.name.removeprefix("./")
                if not member.isreg() or member.issparse():
                    if not member.isdir():
                        self.skip(name, "a link, a device or a sparse file, not a plain file")
                elif member.offset_data + member.size > n_bytes:
                    self.skip(name, "the tar file ends before it does")
                elif not PurePosixPath(name).name.startswith("."):
                    self._take(name, member, file)

    def _members(self, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
        """Every member up to the first header that is damaged."""
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    yield member
                    archive.members = []  # type: ignore[attr-defined]  # else it keeps them all
        except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
            if not self.samples:
                raise DataError(f"{self.path}: not a readable tar file: {error}") from error
            self.skip("", f"the rest cannot be read: {error}")

    def _take(self, name: str, member: tarfile.TarInfo, file: IO[bytes]) -> None:
        folder, _, last = name.rpartition("/")
        stem, _, ending = last.partition(".")
        suffix = f".{ending.rpartition('.')[2].lower()}"
        is_picture = suffix in IMAGE_SUFFIXES
        if not is_picture and suffix not in _BESIDE:
            return
        limit = MAX_BYTES if is_picture else _BESIDE[suffix]
        if not 0 < member.size <= limit:
            self.skip(name, f"{member.size:,} bytes, 1 to {limit:,} go")
            return
        sample = self.samples.setdefault(f"{folder}/{stem}", _Sample())
        if not is_picture:
            at = file.tell()
            file.seek(member.offset_data)
            self._note(name, sample, suffix, file.read(member.size))
            file.seek(at)
        elif sample.name:
            self.skip(name, f"its sample has a picture already: {sample.name}")
        else:
            sample.name, sample.span = name, (member.offset_data, member.size)

    def _note(self, name: str, sample: _Sample, suffix: str, content: bytes) -> None:
        """Put a label, a caption or metadata down."""
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            self.skip(name, "it is not UTF-8")
            return
        if suffix == ".txt":
            sample.values["caption"] = text.strip()
        elif suffix == ".cls":
            sample.label = text.strip()
        else:
            row = json_row(text)
            if isinstance(row, str):
                self.skip(name, row)
                return
            values = {key: value for key, value in row.items() if key}
            label = next((values.pop(key) for key in _LABELS if key in values), None)
            if sample.label is None and isinstance(label, (str, int)):
                sample.label = label
            sample.values = values | sample.values


def open_shard(path: Path) -> Volume:
    """The pictures of one tar file."""
    shard = _Shard(path)
    shard.read()
    samples = [sample for sample in shard.samples.values() if sample.name]
    if not samples:
        first = next((f"; first: {one.key}: {one.reason}" for one in shard.skipped), "")
        raise DataError(f"{path} holds no pictures{first}")
    names = [sample.name for sample in samples]
    labels: Sequence[Any] = [sample.label for sample in samples]
    if all(label is None for label in labels):
        labels = _folders(names)
    columns = TableColumns()
    for row, sample in enumerate(samples):
        for name, value in sample.values.items():
            columns.put(name, value, row, 0)
    columns.settle(len(samples), 0)
    part = Members(path, names, [sample.span for sample in samples])
    values = {name: list(column) for name, column in columns.arrays(len(samples)).items()}
    return Volume(part, labels, columns=values, skipped=shard.skipped)


def refuse_packed(path: Path) -> DataError:
    return DataError(
        f"{path} is packed, so that no picture in it can be read alone; unpack it first: a folder, "
        "or a plain .tar file"
    )


def _folders(names: Sequence[str]) -> list[str | None]:
    """The first folder that not all share, as for class folders on disk.

    >>> _folders(["a/cat/1.jpg", "a/dog/2.jpg"]), _folders(["1.jpg", "2.jpg"])
    (['cat', 'dog'], [None, None])
    """
    parents = [name.split("/")[:-1] for name in names]
    first, last = min(parents), max(parents)
    same = [a == b for a, b in zip(first, last, strict=False)]
    n_shared = [*same, False].index(False)
    return [parent[n_shared] if len(parent) > n_shared else None for parent in parents]


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
