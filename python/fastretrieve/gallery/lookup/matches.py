"""``Matches``: the items that a search found, best first, and their pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, overload

from PIL import Image

from fastretrieve.gallery.lookup import pictures
from fastretrieve.gallery.lookup.pictures import Captioned
from fastretrieve.gallery.lookup.styles import Translation
from fastretrieve.gallery.lookup.words import Words
from fastretrieve.gallery.store.items import Item

FoundIn: TypeAlias = Literal["vectors", "words", "both"]


class Match(NamedTuple):
    """An item and its score."""

    item: Item
    score: float
    path: Path  # where its picture is
    found_by: int = 0  # the picture that the score is with: 0 the query, i the i-th imagined one
    found_in: FoundIn = "vectors"  # what found it: its vector, the words written about it, or both

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        own = {"score": self.score, "found_by": self.found_by, "found_in": self.found_in}
        return {**own, **self.item.to_dict(), "path": str(self.path)}


class Seconds(NamedTuple):
    """Where the time of a search went."""

    encode: float = 0.0  # reading the query, and the encoder's work
    search: float = 0.0  # everything else
    load: float = 0.0  # loading the encoder, in the first search that needs it


class Matches(Sequence[Match]):
    """The items that a search found, best first.

    ``print`` shows a table, ``show`` opens a picture, ``save`` and ``to_html`` write one.
    """

    def __init__(
        self,
        found: Sequence[Match],
        *,
        query: Callable[[], Image.Image | None] | None = None,
        title: str = "",
        modality: str = "image",
        seconds: Seconds = Seconds(),  # noqa: B008  (never changed)
        cluster: int | None = None,
        imagined: Sequence[Image.Image] = (),
        translation: Translation | None = None,
        words: Words | None = None,
        hybrid: bool = False,
    ) -> None:
        self._found = list(found)
        self._picture = query
        self._query: Image.Image | None = None  # once it was asked for
        self.title = title
        self.modality = modality
        self.seconds = seconds
        self.cluster = cluster  # the number of the one that the search stayed within
        self.imagined = list(imagined)  # the pictures that were searched with, too
        self.translation = translation  # how the query was carried into another style, if it was
        self.words = words  # what was asked in words, and their share
        self.is_hybrid = hybrid  # whether written words were searched for beside the vectors

    @property
    def query(self) -> Image.Image | None:
        """A picture of what was asked, where there is one."""
        make = self._picture
        if make is not None:  # without a lock, which a fork might leave held
            self._query = make()
            self._picture = None
        return self._query

    @overload
    def __getitem__(self, index: int) -> Match: ...
    @overload
    def __getitem__(self, index: slice) -> list[Match]: ...
    def __getitem__(self, index: int | slice) -> Match | list[Match]:
        return self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Match]:
        return iter(self._found)

    @property
    def items(self) -> list[Item]:
        return [match.item for match in self._found]

    @property
    def ids(self) -> list[int]:
        return [match.item.id for match in self._found]

    @property
    def paths(self) -> list[Path]:
        return [match.path for match in self._found]

    @property
    def scores(self) -> list[float]:
        return [match.score for match in self._found]

    def __repr__(self) -> str:
        lines = [f"{m.score:9.4f}  {m.item.label or '':<16}  {m.item.origin}" for m in self._found]
        head = f"{len(self._found)} matches" + (f" for {self.title}" if self.title else "")
        head += f", translated by {self.translation}" if self.translation else ""
        return "\n".join([head, *lines])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        how = self.translation
        return {
            "query": self.title,
            **(self.words.to_dict() if self.words else {}),
            **({"translated": {"style": how.style, "how": how.how}} if how else {}),
            "imagined": len(self.imagined),
            "matches": [match.to_dict() for match in self._found],
            **({} if self.cluster is None else {"cluster": self.cluster}),
            **{f"{what}_ms": round(s * 1e3, 3) for what, s in self.seconds._asdict().items()},
        }

    def image(self) -> Image.Image:
        """The query and what was found, on one sheet."""
        return pictures.sheet(
            self._asked(), self._tiles(), beside=self._beside(), imagined=self.imagined
        )

    def show(self) -> None:
        """Open the sheet in the system's picture viewer."""
        self.image().show(title=self.title)

    def save(self, path: str | Path) -> None:
        """Write the sheet as .png, .jpg or .webp."""
        pictures.save_image(self.image(), Path(path))

    def to_html(self, path: str | Path) -> None:
        """Write a page that holds the pictures themselves, so that it can be sent around."""
        note = f"{len(self)} items, the nearest first"
        note += f"; the query was translated by {self.translation}" if self.translation else ""
        page = pictures.page(
            self.title or "Matches",
            note,
            self._asked(),
            self._tiles(),
            beside=self._beside(),
            imagined=self.imagined,
        )
        pictures.save_page(page, Path(path))

    def _asked(self) -> Captioned | None:
        return None if self.query is None else Captioned(self.query, "query", self.title)

    def _beside(self) -> list[Captioned]:
        """What was made of the query, and the words that go with it."""
        how, words = self.translation, self.words
        made = []
        if how is not None and how.picture is not None:
            made.append(Captioned(how.picture, "translated query", f"by {how}"))
        if words is not None and words.weight is not None:
            made.append(words.captioned())
        return made

    def _tiles(self) -> list[Captioned]:
        with ThreadPoolExecutor(4) as pool:  # decoding frees the interpreter
            return list(pool.map(self._tile, self._found))

    def _tile(self, match: Match) -> Captioned:
        image = pictures.picture_of_item(match.item, match.path, modality=self.modality)
        title = f"{match.score:.4f}" + (f"  {match.item.label}" if match.item.label else "")
        finder = f" by {imagined_name(match.found_by)}" if match.found_by else ""
        return Captioned(image, title, f"{match.item.name}{finder}")


def imagined_name(number: int) -> str:
    """What the i-th imagined picture is called; 0 is the query.

    >>> imagined_name(0), imagined_name(3)
    ('query', 'imagined 3')
    """
    return f"imagined {number}" if number else "query"
