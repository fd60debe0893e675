"""The files of a folder, without hidden ones and those of galleries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fastretrieve.data import Skipped, walking
from fastretrieve.data.readers import IMAGE_SUFFIXES, has_suffix
from fastretrieve.gallery.store import manifest


def scan(
    root: Path,
    *,
    recursive: bool,
    skipped: list[Skipped] | None = None,
    suffixes: frozenset[str] = IMAGE_SUFFIXES,
) -> Iterator[os.DirEntry[str]]:
    """The files of a folder with these suffixes, in order of name, without hidden ones and
    galleries. ``skipped`` receives the entries that cannot be looked into.
    """
    noted = [] if skipped is None else skipped
    waiting = [iter(_but_galleries(str(root), noted))]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
        elif entry.name.startswith("."):
            continue
        elif has_suffix(entry.name, suffixes) and walking.is_file(entry, noted):
            yield entry
        elif recursive and walking.is_folder(entry, noted):
            waiting.append(iter(_but_galleries(entry.path, noted)))


def _but_galleries(folder: str, skipped: list[Skipped]) -> list[os.DirEntry[str]]:
    listed = walking.entries(folder, skipped)
    return [] if any(entry.name == manifest.FILE for entry in listed) else listed
