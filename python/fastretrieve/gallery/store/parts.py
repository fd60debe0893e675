"""The files and folders of a gallery, reached without following links.

A directory that somebody sent may hold links, pipes and devices under the names that we use, and a
database that names files elsewhere. What reads, writes or deletes below a gallery asks here first:
each name is looked up without following it, and everything lies below the gallery's own folder.
That folder itself may be a link: the caller named it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store.items import WORDS

MANIFEST = "gallery.json"
ENCODER = "encoder"
FITTED = "fitted-encoder"  # in its place, where the gallery fitted it (fitting.py)
DATABASE = "items.sqlite"
VECTORS = "vectors"
PICTURES = "pictures"
LOCK = "lock"
FORGETTING = "forgetting"  # there while `forget` is at work (forgetting.py)
BESIDE_DATABASE = ("-wal", "-shm", "-journal")  # what SQLite makes beside its file

FILES = (MANIFEST, LOCK, FORGETTING, *(DATABASE + end for end in ("", *BESIDE_DATABASE)))
FOLDERS = (ENCODER, FITTED, VECTORS, PICTURES)
ALL = frozenset({*FILES, *FOLDERS})

INDEX_FILE = re.compile(r"[0-9]{10,19}\.index", re.ASCII)
# Debris of a process that was killed: of ``atomic.replacing``, and of pictures (candidates.py).
_TEMPORARY = re.compile(r"\..*\.tmp", re.DOTALL)
_KINDS = {
    stat.S_ISLNK: "a link",
    stat.S_ISDIR: "a folder",
    stat.S_ISREG: "a file",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
}


def file(path: Path) -> Path:
    """The path, if an ordinary file is there or nothing."""
    _expect(path, stat.S_ISREG, "a file")
    return path


def folder(path: Path) -> Path:
    """The path, if a folder is there or nothing."""
    _expect(path, stat.S_ISDIR, "a folder")
    return path


def check(gallery: Path) -> None:
    """Refuse a gallery in which a part of ours is a link, or of another kind than it should be."""
    for name in FOLDERS:
        folder(gallery / name)
    for name in FILES:
        file(gallery / name)
    for name in ("config.json", "weights.safetensors"):
        file(gallery / ENCODER / name)
        file(gallery / FITTED / name)


def faults(gallery: Path) -> list[str]:
    """Every link, pipe and device below a gallery, where it keeps something."""
    found = []
    for name in sorted(ALL):
        try:
            (folder if name in FOLDERS else file)(gallery / name)
        except GalleryError as error:
            found.append(str(error))
            continue
        if name in FOLDERS and (gallery / name).is_dir():
            found += _faults_below(gallery / name)
    return found


def _faults_below(top: Path) -> list[str]:
    found = []
    for where, folders, names, at in os.fwalk(top, follow_symlinks=False):
        for name in sorted(folders + names):
            mode = os.lstat(name, dir_fd=at).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                found.append(f"{os.path.join(where, name)} is {_kind(mode)}; remove it")
    return found


def index_file(gallery: Path, name: str) -> Path:
    """An index file that the database names."""
    if not INDEX_FILE.fullmatch(name):
        raise GalleryError(
            f"{gallery / DATABASE} names an index file {name[:80]!r}, which is none that a gallery "
            "makes; restore it, or index the images again"
        )
    return file(folder(gallery / VECTORS) / name)


def item_file(gallery: Path, path: str) -> Path:
    """The file of an item: one that the gallery keeps lies below its pictures, without a link on
    the way; any other has an absolute path and is not ours. ``open_file`` of ``data`` opens both.
    """
    if os.path.isabs(path):
        return Path(path)
    if path.startswith(WORDS):
        raise GalleryError(f"a text has no file: {gallery / DATABASE} holds its words, item.text")
    steps = PurePosixPath(path).parts
    if len(steps) < 2 or steps[0] != PICTURES or ".." in steps or "\0" in path:
        raise GalleryError(
            f"{gallery / DATABASE} names a kept picture {path[:80]!r}, which is not below "
            f"{gallery / PICTURES}; remove that item"
        )
    at = gallery
    for step in steps[:-1]:
        at = folder(at / step)
    where = at / steps[-1]
    mode = _mode(where)
    if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise GalleryError(f"{where} is {_kind(mode)} instead of a picture; remove it")
    return where


def item_path(gallery: Path, path: str) -> Path:
    """As ``item_file``, but a path that leaves the gallery becomes one at which nothing can be, so
    that one bad item does not take the others of an answer along. Texts are in the database.
    """
    if path.startswith(WORDS):
        return gallery / DATABASE
    try:
        return item_file(gallery, path)
    except GalleryError:
        return gallery / MANIFEST / "refused" / os.path.basename(path).replace("\0", "")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """An ordinary file, to be read."""
    with os.fdopen(handle(path, os.O_RDONLY), "rb") as found:
        yield found


def handle(path: Path, flags: int) -> int:
    """A handle of an ordinary file, opened without following a link or waiting for a pipe."""
    file(path)
    try:
        made = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        file(path)  # it took the place of the file that was there
        raise error
    if not stat.S_ISREG(mode := os.fstat(made).st_mode):
        os.close(made)
        raise GalleryError(f"{path} is {_kind(mode)} instead of a file; remove it")
    return made


def strangers(gallery: Path) -> list[str]:
    """Files in a directory that neither a gallery nor a killed writer makes."""
    return sorted(
        name
        for name in os.listdir(gallery)
        if name not in ALL
        and not (_TEMPORARY.fullmatch(name) and name.startswith(tuple(f".{n}." for n in FILES)))
    )


def make_folders(gallery: Path) -> None:
    """Make the folders that are not there: an archive may have left out the empty ones."""
    for name in (VECTORS, PICTURES):
        folder(gallery / name).mkdir(exist_ok=True)


def remove_index_files(gallery: Path, keep: set[str]) -> None:
    """Remove index files of ours but for these, and what killed writers left of them."""

    def is_debris(name: str) -> bool:
        is_ours = INDEX_FILE.fullmatch(name) and name not in keep
        return bool(is_ours or _TEMPORARY.fullmatch(name))

    remove(gallery / VECTORS, is_debris)


def remove_debris(gallery: Path) -> None:
    """Remove what killed writers left half written. The caller holds the writer's lock."""

    def is_temporary(name: str) -> bool:
        return bool(_TEMPORARY.fullmatch(name))

    remove(gallery.resolve(), is_temporary)  # the directory itself may be a link, no part of it
    remove(gallery / ENCODER, is_temporary)
    remove(gallery / FITTED, is_temporary)
    for where in kept_folders(gallery):
        remove(where, lambda name: name.startswith("."))


def kept_folders(gallery: Path) -> list[Path]:
    """The folders in which a gallery keeps pictures."""
    try:
        entries = list(os.scandir(folder(gallery / PICTURES)))
    except FileNotFoundError:
        return []
    return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]


def remove(where: Path, is_unwanted: Callable[[str], bool]) -> int:
    """Remove the files in a folder for which it is true: by a handle of that folder, so that no
    name can lead out of it. Returns how many.
    """
    try:
        top = os.open(folder(where), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    n = 0
    try:
        for name in filter(is_unwanted, os.listdir(top)):
            if not stat.S_ISDIR(os.lstat(name, dir_fd=top).st_mode):
                os.unlink(name, dir_fd=top)
                n += 1
    finally:
        os.close(top)
    return n


def _mode(path: Path) -> int | None:
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise GalleryError(f"{str(path)!r} cannot be looked at: {error}") from error


def _expect(path: Path, is_wanted: Callable[[int], bool], wanted: str) -> None:
    mode = _mode(path)
    if mode is not None and not is_wanted(mode):
        raise GalleryError(
            f"{path} is {_kind(mode)} instead of {wanted}; a gallery holds its own parts and "
            "follows no links: remove it, or restore the gallery"
        )


def _kind(mode: int) -> str:
    return next((name for is_kind, name in _KINDS.items() if is_kind(mode)), "a device")
