"""An encoder that knows a few words, so that "red" finds red pictures and a test can say why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastretrieve.encoders import image_batch, read_encoder, write_encoder

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}
GRID = 4


class ColourWords:
    """The mean colour of a picture; of words, the sum of the colours that they name."""

    name = "colour-words"
    modality = "image"
    api_version = 1
    capabilities = frozenset({"text"})
    dim = 4  # the last one is the same for all, so that no vector is zero

    def __init__(self, *, size: int = 16) -> None:
        self.size = size

    def preprocess(self, items: Any) -> Any:
        return image_batch(items, size=self.size, channels=3)

    def encode(self, batch: Any) -> Any:
        means = np.asarray(batch).mean((2, 3))
        return np.concatenate([means, np.full((len(means), 1), 0.1)], 1).astype(np.float32)

    def encode_text(self, texts: Any) -> Any:
        found = np.zeros((len(texts), 4), np.float32)
        for row, text in zip(found, texts, strict=True):
            row[:3] = sum((np.array(COLOURS.get(word, (0, 0, 0))) for word in text.split()), 0)
            row[3] = not row.any()  # words that it does not know are near to everything dark
            row *= 7  # a length that means nothing
        return found

    def to(self, device: Any) -> Any:
        return self

    def save(self, directory: str | Path) -> None:
        write_encoder(directory, encoder=self.name, config={"size": self.size}, weights={})

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> Any:
        return cls(**read_encoder(directory).config)


class ColourWordsInParts(ColourWords):
    """The same vectors, which say what each place of a picture adds."""

    name = "colour-words-in-parts"
    capabilities = frozenset({"text", "parts"})

    def parts(self, batch: Any) -> Any:
        pixels = np.asarray(batch, np.float32)
        n, side = len(pixels), self.size // GRID
        cells = pixels.reshape(n, 3, GRID, side, GRID, side).mean((3, 5)) / GRID**2
        parts = np.concatenate([cells, np.zeros((n, 1, GRID, GRID))], 1)
        constant = np.tile([0, 0, 0, 0.1], (n, 1))
        return parts.transpose(0, 2, 3, 1).astype(np.float32), constant.astype(np.float32)


def shade(colour: str, *, light: int = 200, size: int = 16) -> Image.Image:
    """A picture in one colour."""
    return Image.new("RGB", (size, size), tuple(light * c + 20 for c in COLOURS[colour]))


LIGHTS = {"dark": 90, "middle": 150, "light": 210}


def painted(folder: Path, lights: dict[str, int] = LIGHTS) -> Path:
    """Shades of each colour, in class folders by light, not by colour."""
    for name, light in lights.items():
        (folder / name).mkdir(parents=True)
        for colour in COLOURS:
            shade(colour, light=light).save(folder / name / f"{colour}.png")
    return folder
