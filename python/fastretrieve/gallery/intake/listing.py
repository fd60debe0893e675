"""The sources of an addition: folders, files, tables, lists of URLs, pictures in memory.

Each becomes candidates. A ``Candidate`` has the key of an item, its place, and its metadata.
Nothing is decoded here. A folder of 100,000 files is listed in under a second: one ``scandir`` a
folder, one ``stat`` a file.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastretrieve.data import DataError, Dataset, Skipped, open_dataset, walking
from fastretrieve.data.archives import find_archives, is_archive, matching
from fastretrieve.data.errors import readable
from fastretrieve.data.images import to_image
from fastretrieve.data.modalities import kind_of
from fastretrieve.data.opening import open_file
from fastretrieve.data.parts import ITEM, Inside
from fastretrieve.data.readers import IMAGE_SUFFIXES
from fastretrieve.data.sources import Files
from fastretrieve.data.tables import TABLE_SUFFIXES
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.intake.candidates import (
    Candidate,
    at_url,
    is_text,
    measured,
    named_box,
    of_text,
    picture_path,
    put_picture,
    size_and_time,
)
from fastretrieve.gallery.intake.scanning import scan
from fastretrieve.gallery.store import parts
from fastretrieve.gallery.store.items import storable

MAX_LINE = 1 << 16  # bytes of a URL
URL_SUFFIXES = frozenset({".txt", ".urls"})
_CAPTIONS = ("caption", "text", "description")


class Listing:
    """Reads sources; ``skipped`` holds what cannot be listed."""

    def __init__(
        self,
        folder: Path,
        *,
        modality: str,
        recursive: bool,
        labels_from_folders: bool,
        split: str | None = None,
        text_column: str | None = None,
    ) -> None:
        self.folder = folder  # of the gallery
        self.modality = modality
        self.kind = kind_of(modality)
        self.recursive = recursive
        self.labels_from_folders = labels_from_folders
        self.split = split
        self.text_column = text_column
        if text_column is not None and not self.kind.is_words:
            raise GalleryError(
                f"text_column is for a gallery of texts; {folder} holds {self.kind.items}"
            )
        self.skipped: list[Skipped] = []

    def candidates(self, source: Any, *, labels: Any = None) -> Iterator[Candidate]:
        """Every candidate of one source that can be recorded."""
        for candidate in self._candidates(source, labels):
            # SQLite and JSON keep text, and a file's name need not be text.
            if is_text(candidate.key, candidate.path, candidate.label, candidate.caption):
                yield candidate
            else:
                self._skip(candidate.key, "its name is not UTF-8; rename it")

    def _skip(self, key: Any, reason: Any) -> None:
        self.skipped.append(Skipped(readable(key), readable(reason)))

    def _candidates(self, source: Any, labels: Any) -> Iterator[Candidate]:
        if self.kind.is_words:
            yield from self._of_texts(source, labels)
            return
        if isinstance(source, (str, os.PathLike)) and labels is None:
            yield from self._of_path(Path(source))
            return
        if labels is None and _are_paths(source):
            for each in source:
                yield from self._of_path(Path(each))
            return
        if hasattr(source, "getexif"):  # one PIL image
            source = [source]
        dataset = open_dataset(
            source, labels=labels, split=self.split, modality=_modality(self.modality)
        )
        yield from self._of_dataset(dataset, is_named=True)

    def _of_texts(self, source: Any, labels: Any) -> Iterator[Candidate]:
        """Texts in memory, or those in files, which bring them whole."""
        dataset = open_dataset(
            source,
            labels=labels,
            modality="text",
            recursive=self.recursive,
            split=self.split,
            text_column=self.text_column,
        )
        is_folder = isinstance(source, (str, os.PathLike)) and os.path.isdir(source)
        is_inside = isinstance(dataset.source, Inside)
        for candidate in self._of_dataset(dataset, is_named=not is_inside):
            if is_folder and not self.labels_from_folders:
                candidate = candidate._replace(label=None)
            yield candidate._replace(label_is_given=not is_folder)

    def _of_path(self, path: Path) -> Iterator[Candidate]:
        path = Path(os.path.abspath(path))
        suffix = path.suffix.lower()
        if not (path.exists() or matching(path)):
            raise GalleryError(
                f"{readable(path)} does not exist; give a folder, an image, a table (.csv, .jsonl) "
                "or a list of URLs (.txt)"
            )
        if path.is_file() and suffix in URL_SUFFIXES:
            yield from self._of_urls(path)
        elif self._is_dataset(path):
            yield from self._of_opened(path)
        elif path.is_dir() and self.kind.is_one_file:
            found = scan(
                path, recursive=self.recursive, skipped=self.skipped, suffixes=self.kind.suffixes
            )
            entry = None
            for entry in found:
                try:
                    yield self._found(entry, path)
                except OSError as error:  # gone, or hidden, since its folder was read
                    walking.skip(entry.path, error, self.skipped)
            if entry is None and find_archives(path, recursive=self.recursive):
                yield from self._of_opened(path)
        elif path.is_dir():
            yield from self._of_sequences(path)
        else:
            yield self._file(path)._replace(is_named=True)

    def _is_dataset(self, path: Path) -> bool:
        """Whether a source brings items of its own making: a table, arrays, an archive."""
        if not path.exists() or self.split is not None:
            return True  # a pattern; or what has no such split, which the data set will say
        if path.is_dir():
            return bool(find_archives(path, recursive=False, named_alone=True))
        known = path.suffix.lower() in {*TABLE_SUFFIXES, ".npz", ".npy"}
        return known or is_archive(path)

    def _of_opened(self, path: Path) -> Iterator[Candidate]:
        dataset = open_dataset(
            path, modality=_modality(self.modality), recursive=self.recursive, split=self.split
        )
        yield from self._of_dataset(dataset, is_named=False)

    def _found(self, entry: os.DirEntry[str], root: Path) -> Candidate:
        status = entry.stat()
        label = self._folder_label(entry.path, root)
        return Candidate(entry.path, entry.path, *size_and_time([status]), label)

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
        self.skipped += dataset.skipped
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
        named = () if self.kind.is_words else _CAPTIONS
        caption = next((name for name in named if name in dataset.columns), None)
        for i in range(len(dataset)):
            try:
                values = {n: storable(column[i]) for n, column in dataset.columns.items()}
                if isinstance(dataset.source, Inside):
                    path, name = dataset.source.place(int(dataset.rows[i]))
                    values.setdefault("source", f"{path.name}{ITEM}{name}")
                said = values.pop(caption) if caption else None
                candidate = self._of_dataset_item(dataset, i)
                candidate = candidate._replace(
                    label=dataset.label_name(i),
                    label_is_given=True,
                    caption=candidate.caption if said is None else str(said),
                    metadata=values,
                    is_named=is_named,
                )
            except (ValueError, TypeError, OverflowError, OSError, RecursionError) as error:
                self._skip(dataset.key(i), error)
                continue
            yield candidate

    def _of_dataset_item(self, dataset: Dataset, i: int) -> Candidate:
        if isinstance(dataset.source, Files):
            row = int(dataset.rows[i])
            url = dataset.source.url(row)
            candidate = self._file(dataset.source.paths[row]) if url is None else at_url(url)
            box = dataset.source.box(row)
            if box is None:
                return candidate
            return candidate._replace(key=f"{candidate.key}#box={named_box(box)}", box=box)
        if self.kind.is_words:
            key = None
            if isinstance(dataset.source, Inside):
                path, name = dataset.source.place(int(dataset.rows[i]))
                key = f"{os.path.abspath(path)}{ITEM}{name}"
            return of_text(key, dataset.read(i))
        if not self.kind.is_picture:
            raise GalleryError(
                f"a gallery keeps {self.kind.items} as files; save each one ({self.kind.files}) "
                "and add the folder"
            )
        if isinstance(dataset.source, Inside):
            return self._inside(dataset.source, int(dataset.rows[i]))
        return self._kept(dataset.read(i))

    def _inside(self, source: Inside, row: int) -> Candidate:
        """A picture inside a file is kept too, and known by the file and its name there."""
        path, name = source.place(row)
        key = f"{os.path.abspath(path)}{ITEM}{name}"
        content = source.content(row)
        if not isinstance(content, bytes):
            return self._kept(content, key=key)
        suffix = os.path.splitext(name)[1].lower()
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape") + content).hexdigest()
        kept = picture_path(digest, suffix if suffix in IMAGE_SUFFIXES else "")
        return self._copied(key, kept, lambda: content)

    def _kept(self, picture: Any, *, key: str | None = None) -> Candidate:
        """A picture without a file is kept in the gallery; the same picture twice is one item,
        unless a key tells them apart.
        """
        image = to_image(picture)
        said = f"{key or ''}{image.mode}{image.size}".encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(said + image.tobytes()).hexdigest()

        def png() -> bytes:
            buffer = io.BytesIO()
            image.save(buffer, "PNG", compress_level=1)
            return buffer.getvalue()

        return self._copied(key or f"picture:{digest}", picture_path(digest, ".png"), png)

    def _copied(self, key: str, path: str, content: Callable[[], bytes]) -> Candidate:
        """A copy in the gallery, written unless it is there."""
        full = parts.item_file(self.folder, path)
        if not full.exists():
            put_picture(full, content())
        # The time of the copy says nothing about the picture, its digest everything.
        return Candidate(key, path, full.stat().st_size, 0)

    def _of_urls(self, path: Path) -> Iterator[Candidate]:
        number = 0
        with open_file(path) as file:
            while line := file.readline(MAX_LINE):
                number += 1
                is_whole = line.endswith(b"\n") or len(line) < MAX_LINE
                while not line.endswith(b"\n") and (more := file.readline(MAX_LINE)):
                    line = more
                url = line.decode("utf-8-sig", "replace").strip()
                if is_whole and (not url or url.startswith("#")):
                    continue
                if not is_whole or not url.lower().startswith(("http://", "https://")):
                    reason = f"not a URL of http or https: {url[:80]}"
                    if number == 1:  # a hint is said once
                        reason += " (lines of text go into a gallery of texts: encoder minilm)"
                    self._skip(f"{path}:{number}", reason)
                elif "\ufffd" in url:
                    self._skip(f"{path}:{number}", f"not UTF-8: {url[:80]}")
                else:
                    yield at_url(url)


def _are_paths(source: Any) -> bool:
    return (
        isinstance(source, (list, tuple))
        and len(source) > 0
        and all(isinstance(each, (str, os.PathLike)) for each in source)
    )


def _modality(name: str) -> Any:
    return name
