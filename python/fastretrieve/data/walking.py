"""List folders; an entry that cannot be read is added to ``skipped``, and the walk goes on.

Links to folders are not followed, so no walk is endless. Nothing here recurses: folders may be
nested as deep as the system allows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fastretrieve.data.errors import Skipped, readable

Entry = os.DirEntry[str]


def entries(folder: str | Path, skipped: list[Skipped]) -> list[Entry]:
    """The entries of a folder, in order of name."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        skip(folder, error, skipped)
        return []


def is_file(entry: Entry, skipped: list[Skipped]) -> bool:
    """Whether it is a file, or a link to one; a link that leads nowhere is listed."""
    try:
        if entry.is_file():
            return True
        if entry.is_symlink() and not os.path.exists(entry.path):
            skipped.append(Skipped(readable(entry.path), "a link that leads nowhere"))
    except OSError as error:
        skip(entry.path, error, skipped)
    return False


def is_folder(entry: Entry, skipped: list[Skipped]) -> bool:
    """Whether it is a folder, not a link to one."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError as error:
        skip(entry.path, error, skipped)
        return False


def skip(path: str | Path, error: OSError, skipped: list[Skipped]) -> None:
    skipped.append(Skipped(readable(path), readable(error.strerror or error)))


def walk(
    root: Path, *, recursive: bool, skipped: list[Skipped]
) -> Iterator[tuple[Path, list[Entry]]]:
    """Every folder with its entries, in order of name, a folder before those below it; hidden
    entries are left out.
    """
    waiting: list[str | Path] = [root]
    while waiting:
        folder = waiting.pop()
        found = [each for each in entries(folder, skipped) if not each.name.startswith(".")]
        yield Path(folder), found
        if recursive:
            inner = [entry.path for entry in found if is_folder(entry, skipped)]
            waiting += reversed(inner)
