"""Answers to the page without HTTP: uploads, searches, pictures."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import secrets
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fastretrieve.data import DataError, longest_side
from fastretrieve.data.modalities import kind_of
from fastretrieve.gallery import Gallery, GalleryError, Item, Matches
from fastretrieve.gallery.lookup.conditions import Filter
from fastretrieve.gallery.lookup.pictures import jpeg
from fastretrieve.gallery.lookup.queries import decode
from fastretrieve.server.filters import Condition, FilterColumns, plain, shown
from fastretrieve.server.limits import Limits, Refused
from fastretrieve.server.pictures import check_upload, small_picture

log = logging.getLogger("fastretrieve.server")


class Service:
    """One gallery on a page."""

    def __init__(self, gallery: Gallery, limits: Limits, *, translate: Any = None) -> None:
        self.gallery = gallery
        self.style = None if translate is None else gallery.open_style(translate)
        self.limits = limits
        self.columns = FilterColumns(gallery)
        self._cache: OrderedDict[Any, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._generation = -1  # of the gallery, when the pictures in the cache were made
        self._lock = threading.Lock()
        self._secret = secrets.token_bytes(16)

    def warm_up(self) -> None:
        """Load encoder and index before the first visitor has to wait for them."""
        len(self.gallery)
        _ = self.gallery.encoder

    def search_upload(
        self,
        data: bytes,
        *,
        k: int,
        offset: int,
        filters: Sequence[Condition],
        started: float,
        translate: bool = False,
    ) -> dict[str, Any]:
        """``started`` is when the upload had arrived; it has waited for its turn since then."""
        if translate and self.style is None:
            raise Refused(422, "this server has no style to translate by")
        turn = time.perf_counter()
        modality = self.gallery.manifest.modality
        kind = check_upload(data, limit=self.limits.pixels, modality=modality)
        options: dict[str, Any] = {
            "k": k + 1,
            "offset": offset,
            "where": self.columns.filters(filters),
            "translate": self.style if translate else None,
        }
        query = self._decoded(data) if kind_of(modality).is_picture else None
        decoded = time.perf_counter()
        with _without_paths():
            if query is not None:
                matches = self.gallery.search(query, **options)
            else:
                matches = self._search_sequence(data, kind, options)
        timing = {"wait_ms": turn - started, "decode_ms": decoded - turn}
        return self._answer(matches, k=k, offset=offset, started=started, timing=timing)

    def _decoded(self, data: bytes) -> Any:
        size = longest_side(self.gallery.encoder)
        try:
            return decode(data, size=size)
        except Exception:  # a damaged file makes a decoder raise anything at all
            raise Refused(422, f"these {len(data)} bytes are a damaged image") from None

    def _search_sequence(self, data: bytes, kind: str, options: dict[str, Any]) -> Matches:
        with tempfile.NamedTemporaryFile(suffix=f".{kind.lower()}") as file:
            file.write(data)
            file.flush()
            try:
                return self.gallery.search(file.name, **options)
            except DataError:  # whose text names the file
                raise Refused(422, f"these {len(data)} bytes are a damaged animation") from None

    def search_item(
        self, item_id: int, *, k: int, offset: int, filters: Sequence[Condition]
    ) -> dict[str, Any]:
        started = time.perf_counter()
        item = self.item(item_id)
        where = self.columns.filters(filters)
        with _without_paths():
            matches = self.gallery.search(item, k=k + 1, offset=offset, where=where)
        return self._answer(matches, k=k, offset=offset, started=started, timing={})

    def browse(self, *, k: int, offset: int, filters: Sequence[Condition]) -> dict[str, Any]:
        where: list[Filter] = self.columns.filters(filters)
        with _without_paths():
            items = self.gallery.items(where, offset=offset, limit=k + 1)
        return {
            "matches": [shown(item) for item in items[:k]],
            "offset": offset,
            "more": len(items) > k,
        }

    def item(self, item_id: int) -> Item:
        try:
            return self.gallery.item(item_id)
        except GalleryError:
            raise Refused(404, f"there is no item {item_id}") from None

    def tag(self, item_id: int, *, size: int) -> tuple[str, bytes | None]:
        """The tag of a picture, and the picture if it is in the cache."""
        self._drop_stale()
        item = self.item(item_id)
        about = f"{item.hash or ''}-{item.id}-{size}".encode()
        # Not the hash itself: it would tell whether a file that one has is the one that is here.
        tag = hashlib.blake2b(about, key=self._secret, digest_size=16).hexdigest()
        with self._lock:
            if tag in self._cache:
                self._cache.move_to_end(tag)
            return tag, self._cache.get(tag)

    def picture(self, item_id: int, *, size: int) -> bytes:
        """A picture of an item as a new JPEG.

        The file itself never leaves the machine: not its metadata, nor what else it may hold.
        """
        tag, made = self.tag(item_id, size=size)  # others may have made it in the meantime
        if made is not None:
            return made
        generation = self.gallery.generation
        item = self.item(item_id)
        try:
            path = self.gallery.file_of(item)
        except GalleryError:
            raise Refused(404, "its file is gone") from None
        data = small_picture(
            path,
            modality=self.gallery.manifest.modality,
            box=item.box,
            size=size,
            limit=self.limits.pixels,
        )
        self._remember(tag, data, generation)
        return data

    def _drop_stale(self) -> None:
        """Empty the cache after a change of the gallery: items may have been forgotten."""
        generation = self.gallery.generation
        with self._lock:
            if generation > self._generation:
                self._cache.clear()
                self._cached_bytes = 0
                self._generation = generation

    def _remember(self, tag: str, data: bytes, generation: int) -> None:
        """Keep a picture, unless the gallery changed while it was made."""
        self._drop_stale()
        with self._lock:
            if tag not in self._cache and generation == self._generation:
                self._cache[tag] = data
                self._cached_bytes += len(data)
            while self._cached_bytes > self.limits.cache_bytes:
                self._cached_bytes -= len(self._cache.popitem(last=False)[1])

    def facts(self) -> dict[str, Any]:
        """The facts that the page shows about the gallery."""
        info = self.gallery.info()
        chosen = ("items", "encoder", "dim", "metric", "modality", "labels", "columns")
        known = {"name": Path(info["path"]).name, **{name: info[name] for name in chosen}}
        known["encoder"] = known["encoder"].rpartition("/")[2]  # of one in a file, not where it is
        own = {
            "kinds": self.columns.kinds(),
            "upload_bytes": self.limits.upload_bytes,
            "translates": self.style is not None,
        }
        return {**plain(known), **own}

    def _answer(
        self, matches: Matches, *, k: int, offset: int, started: float, timing: dict[str, float]
    ) -> dict[str, Any]:
        seconds = {
            **timing,
            "encode_ms": matches.seconds.encode,
            "search_ms": matches.seconds.search,
        }
        found = [{**shown(m.item), "score": m.score} for m in matches[:k]]
        seconds["total_ms"] = time.perf_counter() - started
        return {
            "matches": found,
            "offset": offset,
            "more": len(matches) > k,
            "translated": _as_text(matches.translation and matches.translation.picture),
            "timing": {name: round(value * 1e3, 3) for name, value in seconds.items()},
        }


def _as_text(picture: Image.Image | None) -> str | None:
    """A picture as JSON can hold it: a JPEG in base64."""
    return None if picture is None else base64.b64encode(jpeg(picture)).decode()


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """Errors of a gallery name files and columns, for those who own it. Visitors get less."""
    try:
        yield
    except GalleryError as error:
        if "was stopped" in str(error):
            raise Refused(422, "the conditions took too long and were stopped") from None
        raise
