"""``Explanation``: two heat maps that say why a match matched, as arrays and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastretrieve.data.pictures import enlarged
from fastretrieve.gallery.lookup import pictures
from fastretrieve.gallery.lookup.evidence import Evidence
from fastretrieve.gallery.lookup.pictures import Captioned
from fastretrieve.gallery.lookup.regions import Pictured
from fastretrieve.gallery.lookup.words import Words

TILE = 320  # pixels of a picture on the sheet, a side
_PALE = 0.75  # how far cold places fade into grey
_GLOW = 0.55  # how strongly the hottest are coloured
_GREY, _HOT = (128.0, 128.0, 128.0), (255.0, 70.0, 0.0)


class HeatMap(NamedTuple):
    """What the positions of one picture add to a score. Positions divide it evenly, in rows from
    its top left.
    """

    parts: NDArray[np.float64]  # [positions_y, positions_x]; with the constant they are the score
    constant: float
    effects: NDArray[np.float64]  # how much better each position makes the match
    image: Image.Image  # upright, or its region
    title: str
    region: tuple[int, int, int, int] | None = None  # in pixels of the whole picture

    @classmethod
    def of(cls, one: Pictured, found: Evidence) -> HeatMap:
        return cls(*found, one.image, one.title, one.box)

    @classmethod
    def of_words(cls, words: Words, score: float) -> HeatMap:
        """Words have one position, and it adds nothing: the score is the constant."""
        nothing = np.zeros((1, 1))
        return cls(nothing, score, nothing, words.picture(), str(words))

    @property
    def heat(self) -> NDArray[np.float64]:
        """The effects of what speaks for the match, as shares that sum to 1; zeros if nothing
        does.
        """
        helps = np.clip(self.effects, 0, None)
        total = float(helps.sum())
        heat: NDArray[np.float64] = helps / total if total > 0 else helps
        return heat

    def drawn(self, size: int = TILE) -> Image.Image:
        """The picture in colour where it is hot, and pale elsewhere."""
        shown = enlarged(self.image, size)
        heat = self.heat
        if heat.max() > 0:
            heat = heat / heat.max()
        field = Image.fromarray(heat.astype(np.float32))
        smooth = np.asarray(field.resize(shown.size, Image.Resampling.BICUBIC))
        smooth = smooth.clip(0, 1)[..., None]
        pixels = np.asarray(shown, np.float64)
        pixels += (1 - smooth) * _PALE * (np.array(_GREY) - pixels)
        pixels += smooth * _GLOW * (np.array(_HOT) - pixels)
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "title": self.title,
            "region": self.region,
            "constant": self.constant,
            "parts": self.parts.tolist(),
            "heat": self.heat.tolist(),
        }


class Explanation:
    """Why a match matched: a heat map on the query and one on the item.

    ``save`` writes and ``show`` opens a picture of both; ``query`` and ``item`` hold the numbers.
    With ``method`` "parts" they are exact: of each map the parts and the constant sum to the score.
    With "occlusion" a part is how far the score falls when that position is covered.
    """

    def __init__(
        self,
        query: HeatMap,
        item: HeatMap,
        *,
        score: float,
        metric: str,
        method: str,
        words: Words | None = None,
    ) -> None:
        self.query = query
        self.item = item
        self.score = score
        self.metric = metric
        self.method = method
        self.words = words  # what was asked in words

    @property
    def is_exact(self) -> bool:
        """Whether the parts are those of the score, not falls of it."""
        return self.method == "parts"

    def __repr__(self) -> str:
        with_words = f" with {self.words}" if self.words else ""
        head = f"{self.metric} {self.score:.4f}{with_words}"
        asked = [] if self.is_words_alone else [self.query]
        return "\n".join(f"{head}: {self._line(one)}" for one in (*asked, self.item))

    @property
    def is_words_alone(self) -> bool:
        """Whether ``query`` is words that are drawn, which no heat can lie on."""
        return self.words is not None and self.words.weight is None

    def _line(self, one: HeatMap) -> str:
        parts = f"{float(one.parts.sum()):+.4f} by positions of {one.title}, "
        if self.is_exact:
            return f"{parts}{one.constant:+.4f} constant"
        return f"{parts}{one.constant:+.4f} remains; by occlusion"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "score": self.score,
            "metric": self.metric,
            "method": self.method,
            **(self.words.to_dict() if self.words else {}),
            "query": self.query.to_dict(),
            "item": self.item.to_dict(),
        }

    def image(self) -> Image.Image:
        """Both pictures and both maps on one sheet."""
        tiles = []
        how = "by parts" if self.is_exact else "by occlusion"
        note = f"{self.metric} {self.score:.4f}, {how}"
        for name, one in (("query", self.query), ("item", self.item)):
            tiles.append(Captioned(enlarged(one.image, TILE), name, one.title))
            if one is self.item or not self.is_words_alone:
                tiles.append(Captioned(one.drawn(), "what matched", note))
        if self.words and not self.is_words_alone:
            tiles.insert(1, self.words.captioned())
        return pictures.sheet(None, tiles, side=TILE)

    def show(self) -> None:
        """Open the picture in the system's picture viewer."""
        self.image().show(title=self.query.title)

    def save(self, path: str | Path) -> None:
        """Write the picture as .png, .jpg or .webp."""
        pictures.save_image(self.image(), Path(path))
