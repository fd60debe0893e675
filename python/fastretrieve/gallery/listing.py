"""What there is to add: folders, files, tables, lists of URLs, pictures in memory.

Everything becomes a ``Candidate``: what names the item, where it is, and what is said about it.
Nothing is decoded here. A folder of 100,000 files is listed in under a second: one ``scandir`` a
folder, one ``stat`` a file.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastretrieve.data import DataError, Dataset, Skipped, open_dataset
from fastretrieve.data.readers import IMAGE_SUFFIXES, Box
from fastretrieve.data.sources import Files
from fastretrieve.data.tables import TABLE_SUFFIXES
from fastretrieve.encoders.images import to_image
from fastretrieve.gallery import manifest, parts
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.items import column_name, storable

URL_SUFFIXES = frozenset({".txt", ".urls"})
_CAPTIONS = ("caption", "text", "description")


class Candidate(NamedTuple):
    """Something that could be an item."""

    key: str  # the absolute path, with the box if it has one; or the URL
    path: str  # absolute, or relative to the gallery if the gallery keeps the picture
    size: int | None  # None where it has to be fetched first
    mtime_ns: int | None
    label: str | None = None
    label_is_given: bool = False  # else it is the name of a folder and gives way to a given one
    caption: str | None = None
    box: Box | None = None
    url: str | None = None
    metadata: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    is_named: bool = False  # by the caller, not found in a folder or a table


class Listing:
    """Reads sources; what cannot be listed is in ``skipped``."""

    def __init__(
        self, folder: Path, *, modality: str, recursive: bool, labels_from_folders: bool
    ) -> None:
        self.folder = folder  # of the gallery
        self.modality = modality
        self.recursive = recursive
        self.labels_from_folders = labels_from_folders
        self.skipped: list[Skipped] = []

    def candidates(self, source: Any, *, labels: Any = None) -> Iterator[Candidate]:
        """Every candidate of one source."""
        if isinstance(source, (str, os.PathLike)) and labels is None:
            yield from self._of_path(Path(source))
            return
        if labels is None and _are_paths(source):
            for each in source:
                yield from self._of_path(Path(each))
            return
        if hasattr(source, "getexif"):  # one PIL image
            source = [source]
        dataset = open_dataset(source, labels=labels, modality=_modality(self.modality))
        yield from self._of_dataset(dataset, is_named=True)

    def _of_path(self, path: Path) -> Iterator[Candidate]:
        path = Path(os.path.abspath(path))
        suffix = path.suffix.lower()
        if not path.exists():
            raise GalleryError(
                f"{path} does not exist; give a folder, an image, a table (.csv, .jsonl) or a "
                "list of URLs (.txt)"
            )
        if path.is_file() and suffix in URL_SUFFIXES:
            yield from self._of_urls(path)
        elif path.is_file() and suffix in {*TABLE_SUFFIXES, ".npz", ".npy"}:
            dataset = open_dataset(path, modality=_modality(self.modality))
            yield from self._of_dataset(dataset, is_named=False)
        elif path.is_dir() and self.modality == "image":
            for entry in scan(path, recursive=self.recursive):
                yield self._found(entry, path)
        elif path.is_dir():
            yield from self._of_sequences(path)
        else:
            yield self._file(path)._replace(is_named=True)

    def _found(self, entry: os.DirEntry[str], root: Path) -> Candidate:
        status = entry.stat()
        label = self._folder_label(entry.path, root)
        return Candidate(entry.path, entry.path, status.st_size, status.st_mtime_ns, label)

    def _folder_label(self, path: str, root: Path) -> str | None:
        """The first folder under the root names the class, as it does for training."""
        if not self.labels_from_folders:
            return None
        first, inner, _ = path[len(str(root)) :].lstrip(os.sep).partition(os.sep)
        return first if inner else None

    def _of_sequences(self, root: Path) -> Iterator[Candidate]:
        try:
            dataset = open_dataset(
                root, modality=_modality(self.modality), recursive=self.recursive
            )
        except DataError as error:
            raise GalleryError(str(error)) from error
        assert isinstance(dataset.source, Files)
        for path in dataset.source.paths:
            yield self._file(path)._replace(label=self._folder_label(str(path), root))

    def _file(self, path: Path) -> Candidate:
        """A file, or a folder of frames; one that is not there is found out when it is read."""
        where = os.path.abspath(path)
        try:
            return Candidate(where, where, *measured(Path(where)))
        except OSError:
            return Candidate(where, where, None, None)

    def _of_dataset(self, dataset: Dataset, *, is_named: bool) -> Iterator[Candidate]:
        self.skipped += dataset.skipped
        names = {name: column_name(name) for name in dataset.columns}
        caption = next((name for name in _CAPTIONS if name in names), None)
        captions = dataset.columns.get(caption) if caption else None
        rest = {name: own for name, own in names.items() if name != caption}
        for i in range(len(dataset)):
            try:
                candidate = self._of_dataset_item(dataset, i)
            except (DataError, ValueError, OSError) as error:
                self.skipped.append(Skipped(dataset.key(i), str(error)))
                continue
            said = None if captions is None else storable(captions[i])
            yield candidate._replace(
                label=dataset.label_name(i),
                label_is_given=True,
                caption=None if said is None else str(said),
                metadata={own: storable(dataset.columns[name][i]) for name, own in rest.items()},
                is_named=is_named,
            )

    def _of_dataset_item(self, dataset: Dataset, i: int) -> Candidate:
        if isinstance(dataset.source, Files):
            row = int(dataset.rows[i])
            url = dataset.source.url(row)
            candidate = self._file(dataset.source.paths[row]) if url is None else _at_url(url)
            box = dataset.source.box(row)
            if box is None:
                return candidate
            return candidate._replace(key=f"{candidate.key}#box={named_box(box)}", box=box)
        if self.modality != "image":
            raise GalleryError(
                "a gallery keeps sequences as files; save each one (.npy, .gif, a folder of "
                "frames) and add the folder"
            )
        return self._kept(dataset.read(i))

    def _kept(self, picture: Any) -> Candidate:
        """A picture without a file is kept in the gallery; the same picture twice is one item."""
        image = to_image(picture)
        digest = hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).hexdigest()
        path = picture_path(digest, ".png")
        full = parts.item_file(self.folder, path)
        if not full.exists():
            buffer = io.BytesIO()
            image.save(buffer, "PNG", compress_level=1)
            put_picture(full, buffer.getvalue())
        status = full.stat()
        # The time of the copy says nothing about the picture, its digest everything.
        return Candidate(f"picture:{digest}", path, status.st_size, 0)

    def _of_urls(self, path: Path) -> Iterator[Candidate]:
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise GalleryError(f"{path} is not a list of URLs: {error}") from error
        for number, line in enumerate(lines, 1):
            url = line.strip()
            if not url or url.startswith("#"):
                continue
            if not url.lower().startswith(("http://", "https://")):
                self.skipped.append(
                    Skipped(f"{path}:{number}", f"not a URL of http or https: {url[:80]}")
                )
                continue
            yield _at_url(url)


def _at_url(url: str) -> Candidate:
    """What has to be fetched first."""
    digest = hashlib.sha256(url.encode()).hexdigest()
    return Candidate(url, picture_path(digest, ""), None, None, url=url)


def scan(root: Path, *, recursive: bool) -> Iterator[os.DirEntry[str]]:
    """The image files of a folder in order of name; hidden ones and galleries are left out."""
    with os.scandir(root) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    if any(entry.name == manifest.FILE for entry in listed):
        return
    for entry in listed:
        if entry.name.startswith("."):
            continue
        # Without a dot this is the last letter, which is no suffix; splitext takes longer.
        suffix = entry.name[entry.name.rfind(".") :].lower()
        if suffix in IMAGE_SUFFIXES and entry.is_file():
            yield entry
        elif recursive and entry.is_dir(follow_symlinks=False):
            yield from scan(Path(entry.path), recursive=True)


def measured(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds, of a file or of a folder of frames."""
    if not path.is_dir():
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    frames = [entry.stat() for entry in os.scandir(path) if entry.is_file()]
    times = max((frame.st_mtime_ns for frame in frames), default=0)
    return sum(frame.st_size for frame in frames), times


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


def _are_paths(source: Any) -> bool:
    return (
        isinstance(source, (list, tuple))
        and len(source) > 0
        and all(isinstance(each, (str, os.PathLike)) for each in source)
    )


def _modality(name: str) -> Any:
    return name
