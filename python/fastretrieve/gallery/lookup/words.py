"""What is asked in words, checked; ``wording.py`` makes vectors of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastretrieve._common.arguments import shown
from fastretrieve.gallery.errors import GalleryError

MAX_CHARACTERS = 2000  # of a text: encoders of sentences read the first few hundred at most
WEIGHT = 0.5  # the words' share beside a query: both count alike


class Words(NamedTuple):
    """What was asked in words."""

    text: str
    weight: float | None  # their share beside a query; None where there is no query

    def __str__(self) -> str:
        return f'"{self.text}"'

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"text": self.text, **({} if self.weight is None else {"weight": self.weight})}


def asked_words(text: Any, *, weight: Any, beside_query: bool) -> Words:
    """The words of a question, checked."""
    is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not is_number or not 0 <= weight <= 1:  # NaN is neither
        raise GalleryError(
            "weight is the words' share beside the query, from 0 (the query alone) to 1 (the words "
            f"alone); got {shown(weight)}"
        )
    return Words(checked_text(text), float(weight) if beside_query else None)


def checked_text(text: Any) -> str:
    """The text, if it is one that can be asked with."""
    if not isinstance(text, str):
        raise GalleryError(
            f'text is the words to search with, a str such as "a red boot"; got {shown(text)}'
        )
    if not text.strip():
        raise GalleryError('text is empty; give words to search with, such as "a red boot"')
    if len(text) > MAX_CHARACTERS:
        raise GalleryError(
            f"text has {len(text):,} characters; at most {MAX_CHARACTERS:,} can be searched with: "
            "shorten it to what matters"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair: tokenizers raise anything on it
        raise GalleryError(f"text is no valid Unicode: {error.reason}; got {shown(text)}") from None
    return text
