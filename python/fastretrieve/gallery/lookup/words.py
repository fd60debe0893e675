"""What is asked in words, checked; ``wording.py`` makes vectors of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from PIL import Image

from fastretrieve._common.arguments import shown
from fastretrieve.data.pictures import picture_of
from fastretrieve.data.texts import fault_of
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup.pictures import Captioned

MAX_CHARACTERS = 2000  # of a text: encoders of sentences read the first few hundred at most
WEIGHT = 0.5  # the words' share beside a query: both count alike


class WordsError(GalleryError):
    """Words cannot be asked with as they are; the text names no file, so visitors may read it."""


class NoWords(WordsError):
    """A text has no word: signs alone, say."""


class Words(NamedTuple):
    """What was asked in words."""

    text: str
    weight: float | None  # their share beside a query; None where there is no query

    def __str__(self) -> str:
        return f'"{self.text}"'

    def picture(self) -> Image.Image:
        """The words, drawn."""
        return picture_of(self.text, modality="text")

    def captioned(self) -> Captioned:
        """The words as a picture beside that of the query."""
        return Captioned(self.picture(), "words", f"{self}, weight {self.weight:g}")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"text": self.text, **({} if self.weight is None else {"weight": self.weight})}


def asked_words(text: Any, *, weight: Any, query: Any) -> Words | None:
    """The words of a question, checked; None where a query alone asks."""
    if text is None:
        if query is None:
            raise WordsError(
                "ask with a query (an image, or an item of the gallery), with words "
                '(text="a red boot"), or with both; got neither'
            )
        return None
    is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not is_number or not 0 <= weight <= 1:  # NaN is neither
        raise WordsError(
            "weight is the words' share beside the query, from 0 (the query alone) to 1 (the words "
            f"alone); got {shown(weight)}"
        )
    return Words(checked_words(text), None if query is None else float(weight))


def checked_words(text: Any) -> str:
    """The text, if it is one that can be asked with."""
    if not isinstance(text, str):
        raise WordsError(
            f'text is the words to search with, a str such as "a red boot"; got {shown(text)}'
        )
    if len(text) > MAX_CHARACTERS:
        raise WordsError(
            f"text has {len(text):,} characters; at most {MAX_CHARACTERS:,} can be searched with: "
            "shorten it to what matters"
        )
    if fault := fault_of(text):
        raise WordsError(f'text is {shown(text)}, and {fault}; give words, such as "a red boot"')
    return text
