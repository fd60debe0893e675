"""What the page asks, answered without HTTP: uploads, searches, pictures."""

from __future__ import annotations

import io
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from fastretrieve.data import DataError, longest_side
from fastretrieve.gallery import Gallery, GalleryError, Item, Matches
from fastretrieve.gallery.conditions import Filter
from fastretrieve.gallery.pictures import jpeg, picture_in
from fastretrieve.gallery.queries import decode

Image.init()
_KNOWN = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
FORMATS = tuple(name for name in _KNOWN if name in Image.OPEN)  # as Pillow was built


@dataclass(frozen=True)
class Limits:
    """What one server takes on."""

    upload_bytes: int = 20_000_000
    pixels: int = 64_000_000  # of an uploaded image, counted before it is decoded
    in_flight: int = 32  # requests being answered or waiting for their turn; more get 503
    at_once: int = 4  # uploads being decoded and encoded at the same time
    results: int = 200  # of one search
    depth: int = 10_000  # how far one can page
    cache_bytes: int = 64_000_000  # of small pictures


class Refused(Exception):
    """A request that cannot be answered, with its HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Service:
    """One gallery on a page."""

    def __init__(self, gallery: Gallery, limits: Limits) -> None:
        self.gallery = gallery
        self.limits = limits
        self._cache: OrderedDict[Any, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(limits.at_once)

    def warm_up(self) -> None:
        """Load encoder and index before the first visitor has to wait for them."""
        len(self.gallery)
        _ = self.gallery.encoder

    def search_upload(
        self, data: bytes, *, k: int, offset: int, filters: Sequence[Filter]
    ) -> dict[str, Any]:
        started = time.perf_counter()
        with self._turns:
            turn = time.perf_counter()
            kind = self._check_image(data)
            if self.gallery.manifest.modality == "image":
                query = decode(data, size=longest_side(self.gallery.encoder))
                decoded = time.perf_counter()
                matches = self.gallery.search(query, k=k + 1, offset=offset, where=filters)
            else:
                decoded = time.perf_counter()
                matches = self._search_sequence(data, kind, k=k + 1, offset=offset, where=filters)
        timing = {"wait_ms": turn - started, "decode_ms": decoded - turn}
        return self._answer(matches, k=k, offset=offset, started=started, timing=timing)

    def _search_sequence(self, data: bytes, kind: str, **options: Any) -> Matches:
        with tempfile.NamedTemporaryFile(suffix=f".{kind.lower()}") as file:
            file.write(data)
            file.flush()
            return self.gallery.search(file.name, **options)

    def search_item(
        self, item_id: int, *, k: int, offset: int, filters: Sequence[Filter]
    ) -> dict[str, Any]:
        started = time.perf_counter()
        item = self.item(item_id)
        matches = self.gallery.search(item, k=k + 1, offset=offset, where=filters)
        return self._answer(matches, k=k, offset=offset, started=started, timing={})

    def browse(self, *, k: int, offset: int, filters: Sequence[Filter]) -> dict[str, Any]:
        items = self.gallery.items(filters, offset=offset, limit=k + 1)
        return {
            "matches": [self.shown(item) for item in items[:k]],
            "offset": offset,
            "more": len(items) > k,
        }

    def item(self, item_id: int) -> Item:
        try:
            return self.gallery.item(item_id)
        except GalleryError:
            raise Refused(404, f"there is no item {item_id}") from None

    def picture(self, item_id: int, *, size: int) -> tuple[bytes, str]:
        """A picture of an item as a new JPEG, and what it is known by.

        The file itself never leaves the machine: not its metadata, nor what else it may hold.
        """
        item = self.item(item_id)
        tag = f"{item.hash or ''}-{item.id}-{size}"
        with self._lock:
            if tag in self._cache:
                self._cache.move_to_end(tag)
                return self._cache[tag], tag
        try:
            image = picture_in(
                self.gallery.file_of(item),
                modality=self.gallery.manifest.modality,
                box=item.box,
                size=size,
            )
        except (DataError, GalleryError, ValueError, OSError):
            raise Refused(404, f"the file of item {item_id} is gone or damaged") from None
        if max(image.size) <= size // 4:  # a small picture keeps its sharp pixels
            factor = size // 2 // max(image.size)
            image = image.resize(
                (image.width * factor, image.height * factor), Image.Resampling.NEAREST
            )
        image.thumbnail((size, size))
        data = jpeg(image)
        self._remember(tag, data)
        return data, tag

    def _remember(self, tag: str, data: bytes) -> None:
        with self._lock:
            if tag not in self._cache:
                self._cache[tag] = data
                self._cached_bytes += len(data)
            while self._cached_bytes > self.limits.cache_bytes:
                self._cached_bytes -= len(self._cache.popitem(last=False)[1])

    def facts(self) -> dict[str, Any]:
        """What the page has to know about the gallery."""
        info = self.gallery.info()
        chosen = ("items", "encoder", "dim", "metric", "modality", "labels", "columns")
        return {"name": Path(info["path"]).name, **{name: info[name] for name in chosen}}

    def _check_image(self, data: bytes) -> str:
        """The format, found by content, of bytes that are safe to decode."""
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                kind = image.format or ""
        except Image.DecompressionBombError as error:
            raise Refused(413, f"the image is too large: {error}") from None
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
            raise Refused(415, f"this is no image; known are {', '.join(FORMATS)}") from None
        if width * height > self.limits.pixels:
            raise Refused(
                413, f"the image has {width} x {height} pixels, at most {self.limits.pixels} go"
            )
        return kind

    def _answer(
        self, matches: Matches, *, k: int, offset: int, started: float, timing: dict[str, float]
    ) -> dict[str, Any]:
        seconds = {
            **timing,
            "encode_ms": matches.seconds.encode,
            "search_ms": matches.seconds.search,
        }
        shown = [{**self.shown(m.item), "score": m.score} for m in matches[:k]]
        seconds["total_ms"] = time.perf_counter() - started
        return {
            "matches": shown,
            "offset": offset,
            "more": len(matches) > k,
            "timing": {name: round(value * 1e3, 3) for name, value in seconds.items()},
        }

    def shown(self, item: Item) -> dict[str, Any]:
        """What the page may know about an item: not where on the machine it lies."""
        return {
            "id": item.id,
            "name": item.name,
            "label": item.label,
            "caption": item.caption,
            "width": item.width,
            "height": item.height,
            "metadata": item.metadata,
            "picture": f"api/items/{item.id}/picture",
        }
