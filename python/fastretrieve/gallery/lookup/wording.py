"""Words as a vector: the one door from a text to what the gallery's vectors are compared with.

Words have a direction and no length: an encoder promises only that their cosine with an item means
something. Where the metric sees lengths, words alone get the usual length of an item, and a query
that words are mixed into keeps its own.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arguments import shown
from fastretrieve.encoders.encoding import knows_words
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup import finding
from fastretrieve.gallery.lookup.opened import Opened
from fastretrieve.gallery.lookup.words import WordsError

Vector = TypeVar("Vector", NDArray[np.float32], NDArray[np.float64])
MEASURED_ITEMS = 1000  # whose median length words get
_SHORTEST = 1e-6  # of what is left of two unit vectors; below, rounding would choose the answer


def vector_of(opened: Opened, text: str) -> NDArray[np.float32]:
    """The vector [dim] of a text."""
    encoder = opened.queries.encoder
    if not knows_words(encoder):
        raise GalleryError(
            f"{opened.storage.folder}: its encoder {encoder.name!r} knows no words, so it cannot "
            "search with text. Train one on pairs of picture and caption (fastretrieve train "
            "--encoder words pairs.csv --out my-words/), or make a gallery with the encoder conse, "
            "which needs no pairs; gallery.find(...) finds words that are written in labels, "
            "captions and file names"
        )
    vector: NDArray[np.float32] = opened.queries.encode_texts([text])[0]
    if encoder.modality == "text":  # the words are an item, with the length of one
        return vector
    if not np.isfinite(vector).all() or not np.any(vector):
        raise WordsError(
            f"the encoder {encoder.name!r} sees nothing in {shown(text)}; say it in other words"
        )
    return _at_length(vector, _usual_length(opened))


def mixed(vectors: NDArray[Any], words: NDArray[Any], weight: float) -> NDArray[np.float32]:
    """Vectors [n, dim] of pictures, each with the words' vector [dim] mixed in: both at unit
    length, ``weight`` is the words' share, and the sum gets the picture's length.

    >>> mixed(np.array([[5.0, 0.0]]), np.array([0.0, 9.0]), 4 / 7).round(3).tolist()
    [[3.0, 4.0]]
    """
    rows = np.asarray(vectors, np.float64)
    factors, rests = mixing(rows, words, weight)
    found: NDArray[np.float32] = (rows * factors + rests).astype(np.float32)
    return found


def mixing(
    vectors: NDArray[np.float64], words: NDArray[Any], weight: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factors [n, 1] and rests [n, dim]: a vector times its factor, plus its rest, is the mix."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths[lengths == 0] = 1  # a vector of zeros says nothing
    said = _at_length(np.asarray(words, np.float64), 1.0)
    left = np.linalg.norm((1 - weight) * vectors / lengths + weight * said, axis=1, keepdims=True)
    if left.min() < _SHORTEST:
        raise WordsError(
            f"with weight={weight:g} the words and the query cancel each other; take another weight"
        )
    return (1 - weight) / left, weight * lengths / left * said


def _usual_length(opened: Opened) -> float | None:
    """The median length of the items' vectors; None where the metric sees no lengths, or the
    gallery is empty.
    """
    if opened.storage.manifest.metric == "cosine":
        return None
    rows = np.asarray(finding.sample(opened, MEASURED_ITEMS), np.float64)
    return float(np.median(np.linalg.norm(rows, axis=1))) if len(rows) else None


def _at_length(vector: Vector, length: float | None) -> Vector:
    own = float(np.linalg.norm(vector.astype(np.float64)))
    if length is None or own == 0:
        return vector
    scaled: Vector = (vector * (length / own)).astype(vector.dtype)
    return scaled
