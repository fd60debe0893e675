"""Read pending items ahead of the encoder, and find out what the database wants to know of them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data import DataError, Dataset
from fastretrieve.data.modalities import Modality, kind_of
from fastretrieve.data.opening import open_file
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.intake.candidates import (
    Candidate,
    measured,
    size_and_time,
    text_size,
)
from fastretrieve.gallery.intake.downloads import DownloadLimits, fetch
from fastretrieve.gallery.store import parts
from fastretrieve.gallery.store.items import WORDS, Known, words_path


class Pending(NamedTuple):
    """A candidate to encode, and what is known of it."""

    candidate: Candidate
    known: Known | None


class Fact(NamedTuple):
    """What reading an item found out about it."""

    size: int
    mtime_ns: int
    hash: str
    width: int | None
    height: int | None
    path: str


class Queue(Dataset):
    """The pending items as a data set; reading one also finds out its facts."""

    def __init__(
        self,
        folder: Path,
        modality: Modality,
        pending: list[Pending],
        limits: DownloadLimits,
        *,
        anew: bool = False,
    ) -> None:
        self.pending = pending
        self.kind = kind_of(modality)
        self.modality = modality
        self.labels = np.broadcast_to(np.int64(-1), (len(pending),))
        self.facts: dict[int, Fact] = {}
        self.same: set[int] = set()  # the time of the file differs, its content does not
        self.stopped = False
        self._folder = folder  # of the gallery
        self._limits = limits
        self._anew = anew  # unchanged items are decoded too

    def __len__(self) -> int:
        return len(self.pending)

    def key(self, index: int) -> str:
        return self.pending[index].candidate.key

    def read_many(self, indices: NDArray[np.int64]) -> None:
        return None

    def read(self, index: int, *, size: int | None = None) -> Any:
        if self.stopped:
            raise DataError("stopped")
        candidate = self.pending[index].candidate
        if self.kind.is_words:
            return self._words(index, candidate)
        path = self._local(candidate)
        try:
            # Measured before it is read: the next addition notices a change in between.
            if not self.kind.is_one_file:
                self._note(index, path, measured(path), _digest_of_parts(path))
                return self._sized(index, *self.kind.decode(path, name=path, size=size))
            with open_file(path) as file:  # once: to open and parse it again would cost a tenth
                found = size_and_time([os.fstat(file.fileno())])
                self._note(index, path, found, _digest(file))
                file.seek(0)
                return self._sized(
                    index, *self.kind.decode(file, name=path, size=size, box=candidate.box)
                )
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from error

    def _words(self, index: int, candidate: Candidate) -> str:
        """A text, which the database holds: no file is read."""
        text, path = candidate.caption, candidate.path
        if not path.startswith(WORDS) or text is None or words_path(text) != path:
            raise DataError(f"{candidate.key}: its words are not those that were added; remove it")
        self._note(index, Path(path), text_size(text), path[len(WORDS) :])
        return text

    def _note(self, index: int, path: Path, found: tuple[int, int], digest: str) -> None:
        """Keep what is known before decoding; an item that is there already is not decoded."""
        candidate, known = self.pending[index]
        n_bytes, changed = found
        relative = os.path.relpath(path, self._folder) if candidate.url else candidate.path
        mtime_ns = 0 if candidate.mtime_ns == 0 else changed
        self.facts[index] = Fact(n_bytes, mtime_ns, digest, None, None, relative)
        is_there = known is not None and not known.deleted and known.hash == digest
        if is_there and not self._anew:
            self.same.add(index)
            raise DataError("unchanged")

    def _sized(self, index: int, item: Any, size: tuple[int | None, int | None]) -> Any:
        self.facts[index] = self.facts[index]._replace(width=size[0], height=size[1])
        return item

    def _local(self, candidate: Candidate) -> Path:
        try:
            path = parts.item_file(self._folder, candidate.path)
        except GalleryError as error:
            raise DataError(str(error)) from error
        return fetch(candidate.url, path, self._limits) if candidate.url else path


def _digest(file: IO[bytes], digest: Any = None) -> str:
    digest = digest or hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return str(digest.hexdigest())


def _digest_of_parts(path: Path) -> str:
    """Of a file, or of the files in a folder of frames."""
    digest = hashlib.sha256()
    for part in sorted(path.iterdir()) if path.is_dir() else [path]:
        if part.is_file():
            with open_file(part) as file:
                _digest(file, digest)
    return digest.hexdigest()
