"""Read pending items ahead of the encoder, and find out what the database wants to know of them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastretrieve.data import DataError, Dataset, read_item
from fastretrieve.gallery.downloads import Limits, fetch
from fastretrieve.gallery.items import Known
from fastretrieve.gallery.listing import Candidate, measured

_ORIENTATION = 0x0112  # the EXIF tag; from 5 on width and height change places


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

    def __init__(self, folder: Path, modality: str, pending: list[Pending], limits: Limits) -> None:
        self.pending = pending
        self.modality = "sequence" if modality == "sequence" else "image"
        self.labels = np.broadcast_to(np.int64(-1), (len(pending),))
        self.facts: dict[int, Fact] = {}
        self.same: set[int] = set()  # the time of the file differs, its content does not
        self.stopped = False
        self._folder = folder  # of the gallery
        self._limits = limits

    def __len__(self) -> int:
        return len(self.pending)

    def key(self, index: int) -> str:
        return self.pending[index].candidate.key

    def read_many(self, indices: NDArray[np.int64]) -> None:
        return None

    def read(self, index: int, *, size: int | None = None) -> Any:
        if self.stopped:
            raise DataError("stopped")
        candidate, known = self.pending[index]
        path = self._local(candidate)
        try:
            status, digest = measured(path), _digest(path)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from error
        relative = os.path.relpath(path, self._folder) if candidate.url else candidate.path
        mtime_ns = 0 if candidate.mtime_ns == 0 else status[1]
        self.facts[index] = Fact(status[0], mtime_ns, digest, None, None, relative)
        if known is not None and not known.deleted and known.hash == digest:
            self.same.add(index)
            raise DataError("unchanged")
        width, height = _dimensions(path, candidate)
        self.facts[index] = self.facts[index]._replace(width=width, height=height)
        return read_item(path, modality=self.modality, size=size, box=candidate.box)

    def _local(self, candidate: Candidate) -> Path:
        path = self._folder / candidate.path  # an absolute path stays as it is
        return fetch(candidate.url, path, self._limits) if candidate.url else path


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for part in sorted(path.iterdir()) if path.is_dir() else [path]:
        if part.is_file():
            with part.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()


def _dimensions(path: Path, candidate: Candidate) -> tuple[int | None, int | None]:
    """Width and height of the upright picture, from its header."""
    if candidate.box is not None:
        left, top, right, bottom = candidate.box
        return round(right - left), round(bottom - top)
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
            return (height, width) if turned else (width, height)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None, None  # a video, an array; or damaged, as reading it will say
