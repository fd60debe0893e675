"""Files that appear whole or not at all, whatever happens while they are written.

A new file lies beside its target as ``.name.xxxxxxxx.tmp``, locked by its writer. The lock ends
with the process, so the next writer of that name recognises and removes what a killed one left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_UNCONFIRMED = (
    "{path} was written and is whole, but the disk did not confirm its name: "
    "a power cut may bring the former file back"
)
MAX_NAME_BYTES = 200  # of the target's name in that of the temporary file: 255 are allowed


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A new file that takes the place of ``path`` when the block ends well, and is gone if not.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(f"{folder}/a") as file:
    ...         _ = file.write(b"whole")
    ...     Path(f"{folder}/a").read_bytes()
    b'whole'
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    if target.exists() and not target.is_file():  # a device would become a file
        raise OSError(errno.EINVAL, f"{path} is no ordinary file, and only such are written")
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder; make it first", str(target))
    temporary, is_there = None, False
    try:
        _sweep(target)
        temporary, handle = _new_file(target)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            _sync(file.fileno())
            os.replace(temporary, target)  # still locked, so that no other writer sweeps it away
            is_there = True
            _sync_folder(target.parent)
    except OSError as error:
        _forget(temporary)
        state = _UNCONFIRMED if is_there else "nothing was written, {path} is as it was"
        reason = f"{error.strerror or error}: {state.format(path=path)}"
        raise OSError(error.errno, reason) from error
    except BaseException:
        _forget(temporary)
        raise


def _new_file(target: Path) -> tuple[Path, int]:
    """A new file beside the target, open and locked, with the permissions of the target."""
    try:
        mode: int | None = target.stat().st_mode & 0o777
    except FileNotFoundError:
        mode = None
    while True:
        temporary = target.with_name(f"{_prefix(target)}{secrets.token_hex(4)}.tmp")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            handle = os.open(temporary, flags, 0o666 if mode is None else mode)
        except FileExistsError:
            continue
        try:
            if mode is not None:
                os.fchmod(handle, mode)
            if _lock(handle) and _is_at(temporary, handle):
                return temporary, handle
        except BaseException:
            os.close(handle)
            _forget(temporary)
            raise
        os.close(handle)  # another writer sweeps it away, as it was not locked yet


def _sweep(target: Path) -> None:
    """Remove the files that killed writers of this target left. A file that cannot be locked stays:
    it is being written, or its file system has no locks.
    """
    name = re.compile(re.escape(os.fsencode(_prefix(target))) + rb"[0-9a-z_]{8}\.tmp")
    try:
        entries = os.listdir(os.fsencode(target.parent))
    except OSError:  # a folder that may be written to and not listed
        return
    for entry in filter(name.fullmatch, entries):
        left = target.parent / os.fsdecode(entry)
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                is_file = stat.S_ISREG(os.fstat(handle).st_mode)
                if is_file and _lock(handle, needed=True) and _is_at(left, handle):
                    os.unlink(left)
            finally:
                os.close(handle)


def _prefix(target: Path) -> str:
    """How the names of the target's temporary files begin."""
    return f".{os.fsdecode(os.fsencode(target.name)[:MAX_NAME_BYTES])}."


def _lock(handle: int, *, needed: bool = False) -> bool:
    """Lock the file, unless another process has. The file system of a network may have no locks:
    then a writer goes on without one, and a sweep, which needs one, removes nothing.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return not needed
    return True


def _is_at(path: Path, handle: int) -> bool:
    """Whether the name still means the open file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _sync(handle: int) -> None:
    """Wait until the disk has the file. A thread waits, so that Ctrl-C reaches the caller."""
    own, errors = os.dup(handle), list[OSError]()

    def work() -> None:
        try:
            os.fsync(own)
        except OSError as error:
            errors.append(error)
        finally:
            os.close(own)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def _sync_folder(path: Path) -> None:
    """Wait until the disk has the new name."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _forget(temporary: Path | None) -> None:
    if temporary is not None:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
