"""Parquet files with encoded pictures, as Hugging Face writes them, or with texts.

The column of pictures is a struct of ``bytes`` and ``path``, or plain bytes; the schema's metadata
``huggingface`` names classes. Needs pyarrow. Sizes are those of the file's footer, which is
compared with the file before a column is read. Pictures are read by row group; the last ones stay
in memory.
"""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fastretrieve._common.locks import ForkSafeLock
from fastretrieve._common.needs import wanting
from fastretrieve.data.arrays import MAX_BYTES, refuse_growth
from fastretrieve.data.errors import DataError, TooLarge, readable
from fastretrieve.data.opening import open_file
from fastretrieve.data.parts import Lines, Volume
from fastretrieve.data.texts import text_column

CACHE_BYTES = 256 << 20  # of pictures that stay in memory, of all files together
_PICTURES = ("image", "img", "picture", "photo", "jpg", "png", "bytes")
_LABELS = ("label", "labels", "class", "fine_label")
_BATCH = 16  # rows at a time: a dictionary may hold one large picture for all
_MAX_METADATA = 16 << 20  # bytes of the footer's text


class _Groups:
    """The pictures of the row groups that were read last, by file and group."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._kept: OrderedDict[Any, list[bytes | None]] = OrderedDict()
        self._n_bytes = 0

    def get(self, key: Any) -> list[bytes | None] | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Any, pictures: list[bytes | None]) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = pictures
            self._n_bytes += _size(pictures)
            while self._n_bytes > CACHE_BYTES and len(self._kept) > 1:
                self._n_bytes -= _size(self._kept.popitem(last=False)[1])


_groups = _Groups()


class Pictures:
    """The pictures of a Parquet file, as a part."""

    def __init__(self, path: Path, column: str, counts: Sequence[int]) -> None:
        self.path, self.column, self.counts = path, column, list(counts)
        self._changed = path.stat().st_mtime_ns

    def __len__(self) -> int:
        return sum(self.counts)

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> bytes:
        group = 0
        row = index
        while row >= self.counts[group]:
            row -= self.counts[group]
            group += 1
        key = (self.path, self._changed, self.column, group)
        pictures = _groups.get(key)
        if pictures is None:
            pictures = self._read_group(group)
            _groups.put(key, pictures)
        picture = pictures[row]
        if not picture:
            raise DataError(f"{self.path}: row {index} holds no picture (only a path, or nothing)")
        return picture

    def _read_group(self, group: int) -> list[bytes | None]:
        pictures: list[bytes | None] = []
        total = 0
        with _opened(self.path) as file:
            if self.path.stat().st_mtime_ns != self._changed:
                raise DataError(f"{self.path} has changed since it was opened; open it again")
            for batch in file.iter_batches(_BATCH, row_groups=[group], columns=[self.column]):
                values = batch.column(0)
                if hasattr(values.type, "num_fields") and values.type.num_fields:
                    values = values.field("bytes")
                total += values.nbytes
                if total > MAX_BYTES:
                    raise TooLarge(
                        f"{self.path}: row group {group} has more than {MAX_BYTES:,} bytes of "
                        "pictures; write smaller ones (row_group_size=100)"
                    )
                pictures += values.to_pylist()
        if len(pictures) != self.counts[group]:
            raise DataError(f"{self.path}: row group {group} ends after {len(pictures)} rows")
        return pictures


def open_parquet(path: Path) -> Volume:
    """The pictures of one Parquet file, with labels and columns."""
    with _opened(path) as file:
        schema = file.schema_arrow
        features = _features(schema)
        column = _picture_column(path, schema, features)
        part = Pictures(path, column, _counts(path, file))
        values = _plain_columns(path, file, len(part))
    return Volume(part, *_labels(values, features), columns=values)


def open_text_parquet(path: Path, column: str | None) -> Volume:
    """The texts of one Parquet file, with labels and columns."""
    types: Any = import_module("pyarrow.types")
    with _opened(path) as file:
        schema = file.schema_arrow
        features = _features(schema)
        fitting = [
            field.name
            for field in schema
            if types.is_string(field.type) or types.is_large_string(field.type)
        ]
        chosen = text_column(path, fitting, column)
        values = _plain_columns(path, file, sum(_counts(path, file)))
    texts = values.pop(chosen)
    return Volume(Lines(path, texts), *_labels(values, features), columns=values)


def _counts(path: Path, file: Any) -> list[int]:
    """The numbers of rows of the row groups."""
    footer = file.metadata
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    _refuse_sizes(path, groups)
    counts = [group.num_rows for group in groups]
    if not sum(counts):
        raise DataError(f"{path} holds no rows")
    return counts


def _plain_columns(path: Path, file: Any, n_rows: int) -> dict[str, list[Any]]:
    """The columns of text and numbers."""
    others = [field.name for field in file.schema_arrow if _is_plain(field.type)]
    table = file.read(columns=others, use_threads=False)
    values = {name: table.column(name).to_pylist() for name in others}
    if any(len(column) != n_rows for column in values.values()):
        raise DataError(f"{path}: its columns do not have {n_rows} values")
    return values


def _labels(
    values: dict[str, list[Any]], features: dict[str, Any]
) -> tuple[list[Any] | None, list[str] | None]:
    """Remove the labels from the columns, with the names of their classes; columns of other
    classes get names for numbers.
    """
    label = next((name for name in _LABELS if name in values), None)
    label = label or next((name for name in values if _names(features, name)), None)
    labels = None if label is None else values.pop(label)
    classes = _names(features, label) if label else None
    for name in values:
        if names := _names(features, name):
            values[name] = [_named(names, value) for value in values[name]]
    return labels, classes


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file; whatever pyarrow raises is a ``DataError``."""
    with wanting("parquet", f"reading {path.name}"):
        pq: Any = import_module("pyarrow.parquet")
    with contextlib.closing(open_file(path)) as raw:
        try:
            yield pq.ParquetFile(
                raw,
                thrift_string_size_limit=_MAX_METADATA,
                thrift_container_size_limit=1_000_000,
            )
        except (DataError, MemoryError):
            raise
        except Exception as error:  # a damaged file makes pyarrow raise anything at all
            told = str(error).splitlines()
            reason = told[0] if told else type(error).__name__
            raise DataError(f"{path}: not a readable Parquet file: {reason}") from error


def _refuse_sizes(path: Path, groups: Sequence[Any]) -> None:
    """Raise where the footer announces more than a file of this size should hold."""
    n_bytes = path.stat().st_size
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    if any(group.num_rows < 0 for group in groups) or any(
        column.total_compressed_size < 0 or column.total_uncompressed_size < 0 for column in columns
    ):
        raise DataError(f"{path}: its footer announces negative sizes")
    packed = sum(column.total_compressed_size for column in columns)
    if packed > n_bytes:
        raise DataError(f"{path}: its footer announces {packed:,} bytes, it has {n_bytes:,}")
    total = sum(column.total_uncompressed_size for column in columns)
    # A column of one value has a few bytes for any number of rows; a value takes eight in memory.
    rows = 8 * sum(group.num_rows for group in groups)
    refuse_growth(path, max(total, rows), n_bytes, "write it without compression")


def _features(schema: Any) -> dict[str, Any]:
    """What Hugging Face says of the columns, or nothing."""
    raw = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        said = json.loads(raw)["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _feature(features: dict[str, Any], name: str) -> dict[str, Any]:
    found = features.get(name)
    return found if isinstance(found, dict) else {}


def _names(features: dict[str, Any], name: str) -> list[str] | None:
    """The names of the classes of a column."""
    feature = _feature(features, name)
    names = feature.get("names")
    if feature.get("_type") != "ClassLabel" or not isinstance(names, list) or not names:
        return None
    return [str(each) for each in names]


def _named(names: Sequence[str], value: Any) -> Any:
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _picture_column(path: Path, schema: Any, features: dict[str, Any]) -> str:
    """The column that Hugging Face calls an image, else the first that could be one."""
    fitting = [field.name for field in schema if _holds_bytes(field.type)]
    said = [name for name in fitting if _feature(features, name).get("_type") == "Image"]
    named = [name for name in fitting if name.lower() in _PICTURES]
    found = [*said, *named]
    if not found:
        raise DataError(
            f"{path} has no column of encoded pictures (bytes, or a struct of bytes and path, "
            f"called image); its columns are {[readable(name) for name in schema.names][:20]}"
        )
    return str(found[0])


def _holds_bytes(kind: Any) -> bool:
    types: Any = import_module("pyarrow.types")
    if types.is_struct(kind):
        inner = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        return "bytes" in inner and _holds_bytes(inner["bytes"])
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_plain(kind: Any) -> bool:
    types: Any = import_module("pyarrow.types")
    tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_string)
    return any(test(kind) for test in (*tests, types.is_large_string))


def _size(pictures: Sequence[bytes | None]) -> int:
    return sum(len(picture or b"") for picture in pictures)
