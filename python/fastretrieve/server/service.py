"""Answers to the page without HTTP: uploads, searches, pictures."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fastretrieve.data import DataError, longest_side
from fastretrieve.data.modalities import kind_of
from fastretrieve.data.pictures import picture_of
from fastretrieve.gallery import Cluster, Gallery, GalleryError, Item, Matches
from fastretrieve.gallery.lookup.conditions import Filter
from fastretrieve.gallery.lookup.pictures import jpeg
from fastretrieve.gallery.lookup.queries import decode
from fastretrieve.gallery.lookup.words import NoWords, WordsError
from fastretrieve.server import explaining
from fastretrieve.server.asking import Asked, Why
from fastretrieve.server.cache import PictureCache
from fastretrieve.server.filters import FilterColumns, plain, shown, shown_cluster
from fastretrieve.server.imagining import Imagining
from fastretrieve.server.limits import Limits, Refused
from fastretrieve.server.pictures import as_text, check_upload, small_picture

log = logging.getLogger("fastretrieve.server")


class Service:
    """One gallery on a page."""

    def __init__(
        self, gallery: Gallery, limits: Limits, *, imagine: Any = None, translate: Any = None
    ) -> None:
        self.gallery = gallery
        self.imagining = Imagining(gallery, limits, imagine)
        self.style = None if translate is None else gallery.open_style(translate)
        self.limits = limits
        self.columns = FilterColumns(gallery)
        self.cache = PictureCache(gallery, limit=limits.cache_bytes)
        self._secret = secrets.token_bytes(16)

    def warm_up(self) -> None:
        """Load encoder and index before the first visitor has to wait for them."""
        len(self.gallery)
        _ = self.gallery.encoder

    def search_upload(self, data: bytes, asked: Asked, *, started: float) -> dict[str, Any]:
        """``started`` is when the upload had arrived; it has waited for its turn since then."""
        turn = time.perf_counter()
        modality = self.gallery.manifest.modality
        kind = check_upload(data, limit=self.limits.pixels, modality=modality)
        options = self._options(asked)
        if asked.region is not None:
            explaining.refuse_sequences(self.gallery)
        query = None
        if kind_of(modality).is_picture:
            query = self._decoded(data, is_reduced=asked.region is None)
        if query is not None and asked.region is not None:
            options["region"] = explaining.region_of(query, asked.region)
        decoded = time.perf_counter()
        with _without_paths():
            if query is not None:
                matches = self.gallery.search(query, **options)
            else:
                matches = self._search_sequence(data, kind, options)
        timing = {"wait_ms": turn - started, "decode_ms": decoded - turn}
        return self._answer(matches, asked, started=started, timing=timing)

    def search_words(self, asked: Asked, *, started: float) -> dict[str, Any]:
        """``started`` is when the words had arrived."""
        timing = {"wait_ms": time.perf_counter() - started}
        with _without_paths():
            matches = self.gallery.search(**self._options(asked))
        return self._answer(matches, asked, started=started, timing=timing)

    def find(self, asked: Asked, *, started: float) -> dict[str, Any]:
        """The items about which words are written; ``started`` is when the words had arrived."""
        self._refuse_unindexed()
        timing = {"wait_ms": time.perf_counter() - started}
        where = self.columns.filters(asked.filters)
        with _without_paths():
            try:
                matches = self.gallery.find(
                    asked.text, k=asked.k + 1, offset=asked.offset, where=where
                )
            except NoWords:  # signs alone are written nowhere
                matches = Matches([])
        return self._answer(matches, asked, started=started, timing=timing)

    def _refuse_unindexed(self) -> None:
        if not self.gallery.indexes_words:
            raise Refused(422, "the words written about the items of this gallery are not indexed")

    def _words(self, text: str) -> str | None:
        if text and not self.gallery.knows_words:
            raise Refused(422, "text: the encoder of this gallery knows no words")
        return text or None

    def _options(self, asked: Asked) -> dict[str, Any]:
        """What ``Gallery.search`` is told, without the region; one more item shows a next page."""
        if asked.translate and self.style is None:
            raise Refused(422, "translate: this server has no style")
        if asked.hybrid:
            self._refuse_unindexed()
        return {
            "k": asked.k + 1,
            "where": self.columns.filters(asked.filters),
            "offset": asked.offset,
            "imagine": self.imagining.asked(asked.imagine),
            "translate": self.style if asked.translate else None,
            "within": self._within(asked.within),
            "text": self._words(asked.text),
            "weight": asked.weight,
            "hybrid": asked.hybrid and bool(asked.text),
        }

    def _decoded(self, data: bytes, *, is_reduced: bool) -> Image.Image:
        """A picture; reduced, as small as all that look at it permit."""
        own = longest_side(self.gallery.encoder) if is_reduced else None
        least = max(self.imagining.side, self.style.side if self.style else 0)
        try:
            return decode(data, size=own and max(own, least))
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

    def search_item(self, item_id: int, asked: Asked) -> dict[str, Any]:
        started = time.perf_counter()
        item = self.item(item_id)
        options = self._options(asked)
        guard: Any = contextlib.nullcontext()
        if asked.reads_files:
            explaining.refuse_unseen(self.gallery, item, limit=self.limits.pixels)
        if asked.region is not None:
            options["region"] = explaining.region_of(item, asked.region)
            guard = explaining.refusing_changed()
        with guard, _without_paths():
            matches = self.gallery.search(item, **options)
        return self._answer(matches, asked, started=started, timing={})

    def explain(self, item_id: int, query: int | None, asked: Why) -> dict[str, Any]:
        """Why an item matches another one, or a part of it, or words."""
        return self._explained(None if query is None else self.item(query), item_id, asked)

    def explain_upload(self, item_id: int, data: bytes, asked: Why) -> dict[str, Any]:
        """Why an item matches an upload, or a part of it, and words."""
        explaining.refuse_sequences(self.gallery)
        check_upload(data, limit=self.limits.pixels, modality=self.gallery.manifest.modality)
        return self._explained(self._decoded(data, is_reduced=asked.region is None), item_id, asked)

    def _explained(
        self, query: Item | Image.Image | None, item_id: int, asked: Why
    ) -> dict[str, Any]:
        self._words(asked.text)
        item, limit = self.item(item_id), self.limits.pixels
        with _without_paths():
            return explaining.explanation(self.gallery, query, item, asked, limit=limit)

    def clusters(self, asked: Asked) -> dict[str, Any]:
        """A part of the clusters; none where the gallery keeps none."""
        found, end = self._clusters(), asked.offset + asked.k
        return {
            "clusters": [shown_cluster(each) for each in found[asked.offset : end]],
            "offset": asked.offset,
            "more": len(found) > end,
        }

    def members(self, number: int, asked: Asked) -> dict[str, Any]:
        """The members of a cluster, those nearest to its centre first."""
        started = time.perf_counter()
        chosen = self.cluster(number)
        options = self._options(asked) | {"within": chosen}
        with _without_paths():
            matches = self.gallery.search(chosen, **options)
        return self._answer(matches, asked, started=started, timing={})

    def cluster(self, number: int) -> Cluster:
        chosen = next((each for each in self._clusters() if each.number == number), None)
        if chosen is None:
            raise Refused(404, f"there is no cluster {number}")
        return chosen

    def _clusters(self) -> Sequence[Cluster]:
        return self.gallery.clusters() if self.gallery.has_clusters else ()

    def _within(self, within: str) -> str | None:
        if within == "all":
            return None
        if not self.gallery.has_clusters:
            raise Refused(422, "this gallery has no clusters")
        return within

    def browse(self, asked: Asked) -> dict[str, Any]:
        where: list[Filter] = self.columns.filters(asked.filters)
        with _without_paths():
            items = self.gallery.items(where, offset=asked.offset, limit=asked.k + 1)
        return {
            "matches": [shown(item) for item in items[: asked.k]],
            "offset": asked.offset,
            "more": len(items) > asked.k,
        }

    def item(self, item_id: int) -> Item:
        try:
            return self.gallery.item(item_id)
        except GalleryError:
            raise Refused(404, f"there is no item {item_id}") from None

    def tag(self, item_id: int, *, size: int) -> tuple[str, bytes | None]:
        """The tag of a picture, and the picture if it is in the cache."""
        self.cache.drop_stale()
        item = self.item(item_id)
        about = f"{item.hash or ''}-{item.id}-{size}".encode()
        # Not the hash itself: it would tell whether a file that one has is the one that is here.
        tag = hashlib.blake2b(about, key=self._secret, digest_size=16).hexdigest()
        return tag, self.cache.get(tag)

    def picture(self, item_id: int, *, size: int) -> bytes:
        """A picture of an item as a new JPEG.

        The file itself never leaves the machine: not its metadata, nor what else it may hold.
        """
        tag, made = self.tag(item_id, size=size)  # others may have made it in the meantime
        if made is not None:
            return made
        generation = self.gallery.generation
        item = self.item(item_id)
        data = self._small_picture(item, size)
        self.cache.keep(tag, data, generation)
        return data

    def _small_picture(self, item: Item, size: int) -> bytes:
        """The picture of a file, or of words."""
        if item.text is not None:
            image = picture_of(item.text, modality="text")
            image.thumbnail((size, size))
            return jpeg(image)
        try:
            path = self.gallery.file_of(item)
        except GalleryError:
            raise Refused(404, "its file is gone") from None
        modality, limit = self.gallery.manifest.modality, self.limits.pixels
        return small_picture(path, modality=modality, box=item.box, size=size, limit=limit)

    def facts(self) -> dict[str, Any]:
        """The facts that the page shows about the gallery."""
        info = self.gallery.info()
        chosen = ("items", "encoder", "dim", "metric", "modality", "labels", "clusters", "columns")
        known = {"name": Path(info["path"]).name, **{name: info[name] for name in chosen}}
        known["encoder"] = known["encoder"].rpartition("/")[2]  # of one in a file, not where it is
        own = {
            "kinds": self.columns.kinds(),
            "upload_bytes": self.limits.upload_bytes,
            "imagines": self.imagining.n,
            "translates": self.style is not None,
            "words": self.gallery.knows_words,
            "finds": self.gallery.indexes_words,
        }
        return {**plain(known), **own}

    def _answer(
        self, matches: Matches, asked: Asked, *, started: float, timing: dict[str, float]
    ) -> dict[str, Any]:
        seconds = {
            **timing,
            "encode_ms": matches.seconds.encode,
            "search_ms": matches.seconds.search,
        }
        how = matches.translation
        found = [
            {**shown(m.item), "score": m.score, "found_by": m.found_by, "found_in": m.found_in}
            for m in matches[: asked.k]
        ]
        seconds["total_ms"] = time.perf_counter() - started
        return {
            "matches": found,
            "offset": asked.offset,
            "more": len(matches) > asked.k,
            "cluster": matches.cluster,
            "imagined": [as_text(picture) for picture in matches.imagined],
            "translated": as_text(how.picture) if how and how.picture else None,
            "timing": {name: round(value * 1e3, 3) for name, value in seconds.items()},
        }


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """Errors of a gallery name files and columns, for those who own it. Visitors get less."""
    try:
        yield
    except WordsError as error:
        raise Refused(422, str(error)) from None
    except GalleryError as error:
        if "was stopped" in str(error):
            raise Refused(422, "the conditions took too long and were stopped") from None
        raise
