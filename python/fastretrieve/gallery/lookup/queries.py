"""From a query to a vector: a path, a picture, bytes, an array, an item."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastretrieve._common.locks import ForkSafeLock
from fastretrieve.data import DataError, longest_side, read_item
from fastretrieve.data.modalities import kind_of
from fastretrieve.data.pictures import picture_of
from fastretrieve.data.readers import decode_image
from fastretrieve.data.texts import fault_of, read_text
from fastretrieve.encoders.encoding import as_array, encode_texts
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup.cluster_results import Cluster
from fastretrieve.gallery.lookup.pictures import picture_of_item
from fastretrieve.gallery.lookup.styles import Translation
from fastretrieve.gallery.lookup.words import Words
from fastretrieve.gallery.store.fitting import is_fitted
from fastretrieve.gallery.store.items import Item, one_line


class Query(NamedTuple):
    """A question, ready to be searched."""

    vector: NDArray[Any]  # [dim]
    title: str
    picture: Callable[[], Image.Image | None]  # made when it is looked at
    item_id: int | None  # of an item in the gallery: it is not its own neighbour
    translation: Translation | None = None  # where it was carried into the gallery's style
    words: Words | None = None  # what was asked in words


class QueryEncoder:
    """Encodes queries with the gallery's encoder, which is loaded when it is first needed.

    One query at a time: a plugin need not be safe to call from several threads.
    """

    def __init__(self, load: Callable[[], Encoder], *, kept: Callable[[], str]) -> None:
        self._load = load
        self._kept = kept  # names the weights that the gallery keeps now
        self._encoder: Encoder | None = None
        self._loaded = ""  # the name of its weights
        self.load_seconds = 0.0  # 0 until it is loaded
        self._lock = ForkSafeLock()

    @property
    def encoder(self) -> Encoder:
        with self._lock:
            encoder = self._encoder
            if encoder is None or (not is_fitted(encoder) and self._kept() != self._loaded):
                started = time.perf_counter()
                self._loaded = self._kept()
                encoder = self._encoder = self._load()
                self.load_seconds = time.perf_counter() - started
            return encoder

    def query(self, asked: Any) -> Query:
        """Encode a path, a PIL image, an array or tensor, the bytes of a file, or a sequence."""
        return self.of_content(*self.content(asked))

    def of_content(self, content: Any, title: str, *, instead: Any = None) -> Query:
        """Encode an item that is decoded already, or ``instead`` what was made of it."""
        picture = partial(_picture, content, self.encoder.modality)
        vector = self.encode([content if instead is None else instead])[0]
        return Query(vector, title, picture, None)

    def encode(self, contents: list[Any]) -> NDArray[np.float32]:
        """Vectors [n, dim] of decoded items."""
        encoder = self.encoder
        batch = encoder.preprocess(contents)
        with self._lock:
            return as_array(encoder.encode(batch))

    def encode_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors [n, dim] of texts, from an encoder that knows words."""
        encoder = self.encoder
        with self._lock:
            return encode_texts(encoder, texts)

    def parts(self, contents: list[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The parts [n, positions_y, positions_x, dim] and constants [n, dim] of the vectors of
        decoded items, from an encoder that has them.
        """
        encoder: Any = self.encoder
        batch = encoder.preprocess(contents)
        with self._lock:
            parts, constants = encoder.parts(batch)
        return as_array(parts).astype(np.float64), as_array(constants).astype(np.float64)

    @property
    def has_head(self) -> bool:
        """Whether the encoder has a head that names classes."""
        encoder: Any = self.encoder
        return "classify" in encoder.capabilities and bool(encoder.classes)

    def probabilities(self, content: Any) -> dict[str, float]:
        """The probabilities of the encoder's own head for a decoded item."""
        encoder: Any = self.encoder
        batch = encoder.preprocess([content])
        with self._lock:
            shares = as_array(encoder.probabilities(batch))[0]
        return dict(zip(encoder.classes, map(float, shares), strict=True))

    def side(self, least: int | None = 0) -> int | None:
        """To how many pixels a side files are decoded, where ``least`` are needed; None: whole."""
        own = longest_side(self.encoder)
        return None if own is None or least is None else max(own, least)

    def content(self, asked: Any, *, least: int | None = 0) -> tuple[Any, str]:
        """The decoded item, and what to call it. Files are decoded for the encoder's size, or
        for ``least`` pixels a side where that is more; None: whole.
        """
        modality, size = self.encoder.modality, self.side(least)
        if kind_of(modality).is_words:
            return _text(asked)
        if isinstance(asked, (str, os.PathLike)):
            path = Path(asked)
            if not path.exists():
                raise GalleryError(f"{path} does not exist; give an image to search with")
            if path.is_dir() and kind_of(modality).is_one_file:
                raise GalleryError(f"{path} is a folder; give one {modality} to search with")
            return read_item(path, modality=modality, size=size), str(path)
        if isinstance(asked, (bytes, bytearray, memoryview)):
            return decode(bytes(asked), size=size), "an image"
        if isinstance(asked, Image.Image) or hasattr(asked, "shape") or isinstance(asked, list):
            return asked, kind_of(modality).item
        raise GalleryError(
            "search with a path, a PIL image, an array, the bytes of an image file, or an item of "
            f"the gallery or its id; got {type(asked).__name__}"
        )


def decode(data: bytes, *, size: int | None = None) -> Image.Image:
    """An image from the bytes of its file; ``size`` permits decoding it smaller, as for files."""
    try:
        return decode_image(io.BytesIO(data), name=f"these {len(data)} bytes", size=size)[0]
    except DataError as error:
        raise GalleryError(str(error)) from error


def _text(asked: Any) -> tuple[str, str]:
    """The words of a query of a gallery of texts, and what to call them."""
    if isinstance(asked, os.PathLike):
        return read_text(Path(asked), name=str(asked))[0], str(asked)
    if isinstance(asked, (bytes, bytearray, memoryview)):
        data = bytes(asked)
        return read_text(io.BytesIO(data), name=f"these {len(data)} bytes")[0], "a text"
    if not isinstance(asked, str):
        raise GalleryError(
            "search a gallery of texts with words (a str), a file of one text (a Path), or an item "
            f"of the gallery or its id; got {type(asked).__name__}"
        )
    if fault := fault_of(asked):
        raise GalleryError(f"the words to search with: {fault}")
    return asked, one_line(asked)


def _picture(content: Any, modality: str) -> Image.Image | None:
    try:
        return picture_of(content, modality=modality)
    except (ValueError, TypeError):
        return None


def cluster_query(cluster: Cluster, modality: str) -> Query:
    """A cluster of the gallery: its centre, which the member nearest to it stands for."""
    picture = partial(picture_of_item, cluster.item, cluster.path, modality=modality)
    return Query(cluster.centre, cluster.name, picture, None)


def item_query(item: Item, vector: NDArray[Any], path: Path, modality: str) -> Query:
    """An item of the gallery: its vector is there already."""
    picture = partial(picture_of_item, item, path, modality=modality)
    return Query(vector, item.origin, picture, item.id)


def worded_query(words: Words, vector: NDArray[Any]) -> Query:
    """Words alone."""
    return Query(vector, str(words), words.picture, None, words=words)
