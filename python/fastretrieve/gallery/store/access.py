"""How a reader opens the database: with the locks of SQLite if it can.

To read a file in WAL mode, SQLite needs the shared memory beside it (``-shm``), or the right to
make that file. A reader that may not write the folder meets one of three cases:

- the log (``-wal``) and the shared memory are there, as beside a writer that is at work or was
  killed: SQLite reads with them, and misses nothing;
- there is no log, or an empty one: all that was committed is in the file itself. It is read without
  locks, and before and after each use ``Watch`` looks whether somebody has changed it;
- there is a log without shared memory: an error says so.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store import parts

# A file system gives the same time to two changes within one tick of its clock.
_TICK_NS = 50_000_000
_PATIENCE = 5.0  # seconds to wait until a file rests for a tick


class Watch(NamedTuple):
    """A database that is read without locks, as it was when it was opened."""

    path: Path
    state: tuple[int, ...]

    @classmethod
    def begin(cls, path: Path) -> Watch:
        """Begin when the file has rested long enough that any change will show."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            state = _state(path)
            if time.time_ns() - state[-1] > _TICK_NS or time.monotonic() > deadline:
                return cls(path, state)
            time.sleep(0.01)

    def is_unchanged(self) -> bool:
        """Whether what was read from the file since then was one state."""
        try:
            return _state(self.path) == self.state
        except OSError:
            return False

    def is_current(self) -> bool:
        """Whether the file is all there is to read."""
        return self.is_unchanged() and not any(
            _size(self.path, end) for end in ("-wal", "-journal")
        )


def may_write(folder: Path) -> bool:
    """Whether this process can make files there; never on a read-only medium."""
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def watch(path: Path) -> Watch | None:
    """None if SQLite can read with its locks, else a watch."""
    for end in ("", *parts.BESIDE_DATABASE):
        parts.file(path.with_name(path.name + end))
    if may_write(path.parent):
        return None
    if _size(path, "-wal") is not None and _size(path, "-shm") is not None:
        return None
    begun = Watch.begin(path)
    if begun.is_current():
        return begun
    raise GalleryError(f"{path} has changes in {path.name}-wal that {_cannot(path.parent)}")


def refused(path: Path, reason: object) -> GalleryError:
    """Why a database cannot be opened."""
    if may_write(path.parent):
        return GalleryError(f"{path} cannot be opened: {reason}; look at its permissions")
    return GalleryError(f"{path} cannot be opened ({reason}): {_cannot(path.parent)}")


def _cannot(folder: Path) -> str:
    """The missing right, and the remedy."""
    try:
        is_medium = bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        is_medium = False
    if is_medium:
        return (
            f"cannot be read on a read-only medium, where SQLite cannot make {parts.DATABASE}-shm; "
            "copy the folder to a place that can be written, and open it there"
        )
    return (
        f"user {os.geteuid()} cannot read, who may not write {folder}; get the right to write "
        "there, or let a user who has it open the gallery once"
    )


def _size(path: Path, end: str) -> int | None:
    try:
        return os.lstat(f"{path}{end}").st_size
    except FileNotFoundError:
        return None


def _state(path: Path) -> tuple[int, ...]:
    status = os.stat(path, follow_symlinks=False)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
