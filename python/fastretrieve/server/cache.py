"""Small pictures that were made, until the gallery changes: items may have been forgotten."""

from __future__ import annotations

import threading
from collections import OrderedDict

from fastretrieve.gallery import Gallery


class PictureCache:
    """The pictures that were asked for last, up to a number of bytes."""

    def __init__(self, gallery: Gallery, *, limit: int) -> None:
        self._gallery = gallery
        self._limit = limit
        self.pictures: OrderedDict[str, bytes] = OrderedDict()  # by tag
        self.n_bytes = 0
        self._generation = -1  # of the gallery, when the pictures were made
        self._lock = threading.Lock()

    def get(self, tag: str) -> bytes | None:
        with self._lock:
            if tag in self.pictures:
                self.pictures.move_to_end(tag)
            return self.pictures.get(tag)

    def drop_stale(self) -> None:
        """Empty it after a change of the gallery."""
        generation = self._gallery.generation
        with self._lock:
            if generation > self._generation:
                self.pictures.clear()
                self.n_bytes = 0
                self._generation = generation

    def keep(self, tag: str, data: bytes, generation: int) -> None:
        """Keep a picture, unless the gallery changed while it was made."""
        self.drop_stale()
        with self._lock:
            if tag not in self.pictures and generation == self._generation:
                self.pictures[tag] = data
                self.n_bytes += len(data)
            while self.n_bytes > self._limit:
                self.n_bytes -= len(self.pictures.popitem(last=False)[1])
