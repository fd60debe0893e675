"""What a visitor asks for: a page of results, the conditions, and the switches of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from fastretrieve.gallery.lookup.words import WEIGHT
from fastretrieve.server.filters import Condition
from fastretrieve.server.regions import Shares

Stay: TypeAlias = Literal["all", "cluster"]


class Asked(NamedTuple):
    """A request, as far as it is the same for uploads, items and clusters."""

    k: int
    offset: int
    filters: Sequence[Condition]
    imagine: bool = False
    translate: bool = False
    region: Shares | None = None  # of the picture asked with; None: all of it
    within: Stay = "all"
    text: str = ""  # words to ask with, alone or beside the picture
    weight: float = WEIGHT  # the words' share beside the picture
    hybrid: bool = False  # whether words are looked for in what is written, too

    @property
    def reads_files(self) -> bool:
        """Whether the picture of an item is read; else its vector is enough."""
        return self.imagine or self.translate or self.region is not None

    @property
    def encodes(self) -> bool:
        """Whether the encoder has work: it costs as much as an upload, and waits for its turn."""
        return self.reads_files or bool(self.text)


class Why(NamedTuple):
    """What an explanation is of, beside the two pictures."""

    region: Shares | None = None
    text: str = ""
    weight: float = WEIGHT


def typed(text: str) -> str:
    r"""Words as a visitor typed them, without what no words have.

    >>> typed(" a red\n\x00boot "), typed(" ")
    ('a red boot', '')
    """
    return " ".join(text.replace("\0", " ").split())
