"""The sources of a data set: files, or items in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data.errors import DataError, readable
from fastretrieve.data.modalities import kind_of, read_item
from fastretrieve.data.readers import Box
from fastretrieve.data.texts import checked_text


class Files:
    """One item a file (or frame folder), or a box of an image."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        modality: str = "image",
        boxes: Sequence[Box | None] | None = None,
        urls: Sequence[str | None] | None = None,
    ) -> None:
        kind_of(modality)  # an error if it is unknown
        self.paths = paths
        self.modality = modality
        self.boxes = list(boxes) if boxes is not None else None
        self.urls = list(urls) if urls is not None else None  # of items that have no file yet

    def __len__(self) -> int:
        return len(self.paths)

    def key(self, index: int) -> str:
        box = self.box(index)
        where = "" if box is None else "#box=" + ",".join(f"{edge:g}" for edge in box)
        return readable(f"{self.url(index) or self.paths[index]}{where}")

    def box(self, index: int) -> Box | None:
        return self.boxes[index] if self.boxes is not None else None

    def url(self, index: int) -> str | None:
        return self.urls[index] if self.urls is not None else None

    def read(self, index: int, *, size: int | None) -> Any:
        if (url := self.url(index)) is not None:
            raise DataError(
                f"{url}: only a gallery fetches URLs (`fastretrieve add`); download it and give its"
                " path"
            )
        return read_item(self.paths[index], modality=self.modality, size=size, box=self.box(index))

    def read_many(self, indices: NDArray[np.int64]) -> None:
        return None


class Memory:
    """Items in memory: one array [n, ...], or a list of images or sequences."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def key(self, index: int) -> str:
        return f"#{index}"

    def read(self, index: int, *, size: int | None) -> Any:
        return self.items[index]

    def read_many(self, indices: NDArray[np.int64]) -> Any | None:
        is_array = isinstance(self.items, np.ndarray) or hasattr(self.items, "detach")
        return self.items[indices] if is_array else None


class Texts(Memory):
    """Texts in memory."""

    def read(self, index: int, *, size: int | None) -> str:
        return checked_text(self.items[index], name=self.key(index))
