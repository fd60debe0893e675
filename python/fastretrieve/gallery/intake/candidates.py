"""``Candidate``: something that could be an item, its key, and where its picture is kept."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastretrieve.data.readers import Box
from fastretrieve.gallery.store.items import MAX_INTEGER, WORDS, words_path


class Candidate(NamedTuple):
    """Something that could be an item."""

    key: str  # the absolute path, with the box if it has one; or the URL
    path: str  # absolute; relative to the gallery if it keeps the picture; WORDS and a digest
    size: int | None  # None where it has to be fetched first
    mtime_ns: int | None
    label: str | None = None
    label_is_given: bool = False  # else it is the name of a folder and gives way to a given one
    caption: str | None = None  # of a text, the text
    box: Box | None = None
    url: str | None = None
    metadata: dict[str, Any] = {}  # noqa: RUF012  (never changed) by the names of the source
    is_named: bool = False  # by the caller, not found in a folder or a table


def is_text(*values: str | None) -> bool:
    """Whether these can be kept as text: half a surrogate pair stands for a byte that is none."""
    try:
        "".join(value for value in values if value).encode()
    except UnicodeEncodeError:
        return False
    return True


def at_url(url: str) -> Candidate:
    """What has to be fetched first."""
    digest = hashlib.sha256(url.encode()).hexdigest()
    return Candidate(url, picture_path(digest, ""), None, None, url=url)


def measured(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds, of a file or of a folder of frames."""
    if not path.is_dir():
        return size_and_time([path.stat()])
    with os.scandir(path) as entries:
        return size_and_time([entry.stat() for entry in entries if entry.is_file()])


def size_and_time(found: Sequence[os.stat_result]) -> tuple[int, int]:
    """The size of files together, and the last time that one changed, as far as 64 bits hold it."""
    size = sum(status.st_size for status in found)
    time = max((status.st_mtime_ns for status in found), default=0)
    return size, min(max(time, -MAX_INTEGER), MAX_INTEGER)


def text_size(text: str) -> tuple[int, int]:
    """Size in bytes of a text; it has no time: its digest says everything."""
    return len(text.encode()), 0


def of_text(key: str | None, text: str) -> Candidate:
    """A text; without a key, the same text is the same item."""
    path = words_path(text)
    return Candidate(key or f"text:{path[len(WORDS) :]}", path, *text_size(text), caption=text)


def named_box(box: Iterable[float]) -> str:
    """A box as part of a key."""
    return ",".join(f"{edge:g}" for edge in box)


def picture_path(digest: str, suffix: str) -> str:
    """Where the gallery keeps a picture, relative to itself."""
    return f"pictures/{digest[:2]}/{digest}{suffix}"


def put_picture(path: Path, data: bytes) -> None:
    """Write a picture whole or not at all; it is flushed with all others before a commit."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)
