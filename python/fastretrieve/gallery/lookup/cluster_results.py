"""``Clustering``: the clusters of a gallery, or those nearest to a query, and their pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastretrieve.gallery.lookup import pictures
from fastretrieve.gallery.lookup.pictures import Captioned
from fastretrieve.gallery.store.items import Item


@dataclass(frozen=True)
class Cluster:
    """Items that lie close together. It can be searched with, which asks for its centre."""

    number: int  # what ``within`` takes
    name: str
    size: int
    share: float | None  # of the members whose label is the name; None if no label names it
    item: Item  # the member nearest to the centre
    path: Path  # where its picture is
    score: float | None = None  # of the centre with the query, where one was asked with
    centre: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros(0, np.float32), repr=False, compare=False
    )  # [dim]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        about = {name: getattr(self, name) for name in ("number", "name", "size", "share", "score")}
        return {**about, "item": self.item.id, "path": str(self.path)}

    @property
    def note(self) -> str:
        """Its size, and the share of its members that have its label."""
        share = "" if self.share is None else f", {self.share:.0%} with this label"
        return f"{self.size:,} item{'' if self.size == 1 else 's'}{share}"


class Clustering(Sequence[Cluster]):
    """The clusters of a gallery in order of their numbers, or those nearest to a query.

    ``print`` shows a table, ``show`` opens a picture, ``save`` and ``to_html`` write one.
    """

    def __init__(
        self,
        found: Sequence[Cluster],
        *,
        modality: str = "image",
        query: Callable[[], Image.Image | None] = lambda: None,
        title: str = "",
    ) -> None:
        self._found = list(found)
        self._query = query
        self.modality = modality
        self.title = title

    @overload
    def __getitem__(self, index: int) -> Cluster: ...
    @overload
    def __getitem__(self, index: slice) -> list[Cluster]: ...
    def __getitem__(self, index: int | slice) -> Cluster | list[Cluster]:
        return self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Cluster]:
        return iter(self._found)

    @property
    def numbers(self) -> list[int]:
        return [each.number for each in self._found]

    @property
    def names(self) -> list[str]:
        return [each.name for each in self._found]

    @property
    def sizes(self) -> list[int]:
        return [each.size for each in self._found]

    def __repr__(self) -> str:
        head = f"{len(self)} clusters" + (f" nearest to {self.title}" if self.title else "")
        lines = [
            ("" if each.score is None else f"{each.score:9.4f}  ")
            + f"{each.number:4}  {each.name:<24}  {each.note}"
            for each in self._found
        ]
        return "\n".join([head, *lines])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        asked = {"query": self.title} if self.title else {}
        return {**asked, "clusters": [each.to_dict() for each in self._found]}

    def image(self) -> Image.Image:
        """The clusters on one sheet: of each the member nearest to its centre."""
        return pictures.sheet(self._asked(), self._tiles())

    def show(self) -> None:
        """Open the sheet in the system's picture viewer."""
        self.image().show(title=self.title)

    def save(self, path: str | Path) -> None:
        """Write the sheet as .png, .jpg or .webp."""
        pictures.save_image(self.image(), Path(path))

    def to_html(self, path: str | Path) -> None:
        """Write a page that holds the pictures themselves, so that it can be sent around."""
        note = f"{len(self)} clusters; the picture is the member nearest to the centre"
        page = pictures.page(self.title or "Clusters", note, self._asked(), self._tiles())
        pictures.save_page(page, Path(path))

    def _asked(self) -> Captioned | None:
        query = self._query()
        return None if query is None else Captioned(query, "query", self.title)

    def _tiles(self) -> list[Captioned]:
        with ThreadPoolExecutor(4) as pool:  # decoding frees the interpreter
            return list(pool.map(self._tile, self._found))

    def _tile(self, each: Cluster) -> Captioned:
        image = pictures.picture_of_item(each.item, each.path, modality=self.modality)
        score = "" if each.score is None else f"{each.score:.4f}  "
        return Captioned(image, f"{score}{each.number}: {each.name}", each.note)
