"""What a visitor asks for: a page of results, the conditions, and the switches of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

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

    @property
    def reads_files(self) -> bool:
        """Whether the picture of an item is read; else its vector is enough."""
        return self.imagine or self.translate or self.region is not None
