"""The writer's lock, and how a gallery is known to have been copied.

The system frees the lock when the process that took it ends. A forked child is not the writer: it
closes its copy of the handle.

The lock file also holds the inode of its database. Files that were copied one after the other
beside a writer may not belong together. Such a copy has another inode, so it is checked once when
it is opened.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store import parts

_MAX_BYTES = 100  # of the file: a process and a number
_held: set[int] = set()  # handles


@contextlib.contextmanager
def locked(folder: Path, *, wait: float) -> Iterator[None]:
    """Hold the writer's lock."""
    try:
        handle, process = parts.handle(folder / parts.LOCK, os.O_RDWR | os.O_CREAT), os.getpid()
    except OSError as error:
        raise GalleryError(
            f"{folder} cannot be changed: {error.strerror}; get the right to write there"
        ) from error
    _held.add(handle)
    try:
        said = _said(handle, folder)
        _wait_for(handle, folder, wait)
        _say(handle, f"{process} {' '.join(said[1:2])}")
        yield
    finally:
        if process == os.getpid():
            _held.discard(handle)
            with contextlib.suppress(OSError):  # for all copies of the handle, in children too
                fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


def note_identity(folder: Path) -> None:
    """Note that the files of a gallery belong together. The caller holds the lock."""
    number = os.lstat(folder / parts.DATABASE).st_ino
    handle = parts.handle(folder / parts.LOCK, os.O_RDWR)
    try:
        _say(handle, f"{os.getpid()} {number}")
    finally:
        os.close(handle)


def is_copy(folder: Path) -> bool:
    """Whether the files were copied, one after the other, since that was noted."""
    try:
        handle = parts.handle(folder / parts.LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        said = _said(handle, folder)
        return len(said) > 1 and said[1] != str(os.lstat(folder / parts.DATABASE).st_ino)
    finally:
        os.close(handle)


def _wait_for(handle: int, folder: Path, wait: float) -> None:
    deadline = time.monotonic() + wait
    while not _try_lock(handle):
        if time.monotonic() >= deadline:
            holder = (_said(handle, folder) or ["unknown"])[0]
            raise GalleryError(
                f"{folder} is being changed by process {holder}; wait for it to end, or give a "
                "time to wait"
            )
        time.sleep(0.05)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _said(handle: int, folder: Path) -> list[str]:
    data = os.pread(handle, _MAX_BYTES + 1, 0)
    if len(data) > _MAX_BYTES or not all(word.isdigit() for word in data.split()):
        raise GalleryError(
            f"{folder / parts.LOCK} is not the lock of a gallery, and would be overwritten; "
            "remove it"
        )
    return data.decode("ascii").split()


def _say(handle: int, text: str) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)


def _let_go() -> None:
    """In a forked child: the lock is the parent's."""
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
