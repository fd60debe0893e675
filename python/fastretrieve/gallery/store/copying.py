"""Copy a gallery while others change it: one commit of it, whole and verified.

SQLite's backup copies the database inside a transaction that sees one commit. The index files of
that commit are opened before anything is copied: a writer that merges them away takes away no more
than their names. All goes into a folder beside the target, which is renamed at the end. What a
killed copy left is removed by the next copy to the same place.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from fastretrieve._common.progress import Progress
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store import checking, connections, locking, parts
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store.forking import ForkSafeConnection, connect
from fastretrieve.gallery.store.storage import Storage

_PART = 4 << 20
_PAGES = 1000  # of the database, between two looks for Ctrl-C
_END = ".copying"


def copy(
    storage: Storage,
    target: Path,
    progress: Progress,
    change: Callable[[Storage], object] | None = None,
) -> None:
    """Copy the last commit to ``target``, which must not be there or be an empty folder.

    ``change`` changes the copy before anybody can see it.
    """
    target = target.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise GalleryError(f"{target} is there already; copy to a place where nothing is")
    if not target.parent.is_dir():
        raise GalleryError(f"{target.parent} is no folder; make it first")
    _remove_debris(target)
    building = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=_END))
    try:
        with locking.locked(building, wait=0):
            _fill(storage, building, progress)
        if change is not None:
            with contextlib.closing(Storage.open(building)) as made:
                change(made)
        with locking.locked(building, wait=0):
            # The index of words is as good as it was, and can be made anew at any time.
            if faults := checking.check(Storage.open(building), words=False):
                raise GalleryError(f"{storage.folder} cannot be copied: {faults[0]}")
            building.chmod(stat.S_IMODE(storage.folder.stat().st_mode) | stat.S_IRWXU)
            _sync(building)
            _rename(building, target)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _rename(building: Path, target: Path) -> None:
    try:
        os.rename(building, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise GalleryError(f"{target} was made by somebody else meanwhile") from error
    _sync_folder(target.parent)


def _fill(storage: Storage, building: Path, progress: Progress) -> None:
    source = storage.folder
    parts.make_folders(building)
    with _snapshot(storage) as (connection, indexes):
        sizes = [os.fstat(file.fileno()).st_size for _, file in indexes]
        total, done = storage.database.path.stat().st_size + sum(sizes), 0

        def count(n: int) -> None:
            nonlocal done
            done += n
            progress(min(done, total), total)

        _copy_database(connection, building)
        count(total - sum(sizes))
        for listed, file in indexes:
            path = parts.index_file(building, listed.name)
            if _copy_bytes(file, path, count) != listed.sha256:
                raise GalleryError(
                    f"{parts.index_file(source, listed.name)} is damaged: its SHA-256 is not the "
                    "one that was committed; restore it, then copy"
                )
        kept = f"path >= '{parts.PICTURES}/' AND path < '{parts.PICTURES}0'"
        for (path,) in connection.execute(f"SELECT DISTINCT path FROM item WHERE {kept}"):
            _copy_picture(source, building, path)
    _copy_encoder(storage.saved_encoder().directory, building / parts.ENCODER)
    locking.note_identity(building)
    _copy_file(source / parts.MANIFEST, building / parts.MANIFEST)


@contextlib.contextmanager
def _snapshot(
    storage: Storage,
) -> Iterator[tuple[ForkSafeConnection, list[tuple[db.IndexFile, IO[bytes]]]]]:
    """One commit: its rows, and its index files, which are open."""
    for _ in range(connections.TRIES):
        with contextlib.ExitStack() as held:
            connection = held.enter_context(storage.database.snapshot())
            try:
                files = [
                    (each, held.enter_context(parts.opened(path)))
                    for each in db.index_files(connection)
                    for path in [parts.index_file(storage.folder, each.name)]
                ]
            except FileNotFoundError as error:
                missing = error.filename  # merged away since the snapshot was taken
                continue
            yield connection, files
            return
    raise GalleryError(f"{missing} is missing; restore it, or index the images again")


def _copy_database(connection: ForkSafeConnection, building: Path) -> None:
    target = connect((building / parts.DATABASE).as_uri() + "?mode=rwc", isolation_level=None)
    with contextlib.closing(target):
        connection.backup(target, pages=_PAGES, progress=lambda *_: None)
        target.execute("PRAGMA journal_mode = WAL")
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _copy_picture(source: Path, building: Path, path: str) -> None:
    """A picture that is gone was erased, or never fetched."""
    target = parts.item_file(building, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        _copy_file(parts.item_file(source, path), target)


def _copy_encoder(source: Path, target: Path) -> None:
    """All files, in any depth; links are not followed."""
    parts.folder(source)
    for where, folders, names in os.walk(source):
        into = target / os.path.relpath(where, source)
        into.mkdir()
        for name in folders:
            parts.folder(Path(where, name))
        for name in names:
            _copy_file(Path(where, name), into / name)


def _copy_file(source: Path, target: Path) -> None:
    with parts.opened(source) as file:
        _copy_bytes(file, target, lambda n: None)


def _copy_bytes(file: IO[bytes], target: Path, count: Callable[[int], None]) -> str:
    """Copy a file; returns its SHA-256."""
    digest = hashlib.sha256()
    with target.open("xb") as copied:
        while part := file.read(_PART):
            digest.update(part)
            copied.write(part)
            count(len(part))
    return digest.hexdigest()


def _sync(top: Path) -> None:
    """Flush all files and folders to the disk."""
    for where, _, names in os.walk(top, topdown=False):
        for name in names:
            with open(os.path.join(where, name), "rb") as file:
                os.fsync(file.fileno())
        _sync_folder(where)


def _sync_folder(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_debris(target: Path) -> None:
    """Remove what killed copies to this place left."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*{_END}"):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(GalleryError, OSError), locking.locked(path, wait=0):
                shutil.rmtree(path)
