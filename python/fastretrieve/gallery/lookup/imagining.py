"""Imagined queries: pictures like the query that a generator draws, to be searched beside it.

A generator is an encoder with the capability "invert". It finds the code of the query, takes codes
near to it, and draws their pictures. What it cannot redraw of the query itself is laid over each
of them, so that they differ from the query by what was imagined, not by what the generator lacks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fastretrieve._common.arguments import one_of, shown, whole
from fastretrieve._common.locks import ForkSafeLock
from fastretrieve.data import longest_side
from fastretrieve.data.images import to_image
from fastretrieve.data.modalities import kind_of
from fastretrieve.encoders import as_encoder
from fastretrieve.encoders.encoding import refuse_untrained
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.encoders.saved import files
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup.opened import Opened
from fastretrieve.gallery.lookup.ranking import FUSIONS, Fusion

MAX_PICTURES = 256
_KEPT = 4  # generators that were read from directories
_TOLERANCE = 1e-3  # by which pixels may leave [0, 1]: rounding
_drawing = ForkSafeLock()  # a plugin need not be safe to call from several threads


@dataclass(frozen=True)
class Imagine:
    """Search with ``n`` pictures that a generator draws near to the query, too.

    ``generator`` is the directory of a saved encoder that can draw (``gan``, ``vae``,
    ``autoencoder``, a plugin with the capability "invert"), such an encoder, or several, which
    draw in turn. ``spread`` is the share of noise in the codes: with 0.1 the pictures hardly
    differ from the query, with 1 they have nothing to do with it. Another ``seed`` draws others.
    ``fusion`` orders the answers by the sum of reciprocal ranks ("ranks"), where one picture that
    went astray counts little, or by the best score with any picture ("best").

    >>> import tempfile
    >>> vae = fr.create_encoder("vae", dim=4, image_size=16, channels=3, width=4)
    >>> vae.is_trained = True  # it is not: a real one comes from fr.train or a directory
    >>> gallery = fr.Gallery.create(tempfile.mkdtemp() + "/g", encoder="pixels")
    >>> pictures = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)
    >>> added = gallery.add(pictures)
    >>> matches = gallery.search(pictures[3], imagine=fr.Imagine(vae, n=4), k=2)
    >>> len(matches.imagined), matches[0].item.id, matches[0].found_by  # 0: the query itself
    (4, 4, 0)
    """

    generator: Any
    n: int = 16
    spread: float = 0.3
    seed: int = 0
    fusion: Fusion = "ranks"

    def __post_init__(self) -> None:
        whole(self.n, "n", most=MAX_PICTURES)
        whole(self.seed, "seed", least=0)
        one_of(self.fusion, FUSIONS, "fusion")
        is_number = isinstance(self.spread, (int, float)) and not isinstance(self.spread, bool)
        if not is_number or not 0 < self.spread <= 1:
            raise ValueError(
                "spread is the share of noise in the codes of imagined pictures, above 0 and at "
                f"most 1, got {shown(self.spread)}"
            )


class Drawn(NamedTuple):
    """What was imagined for one query."""

    pictures: list[Image.Image]
    fusion: Fusion = "best"


def artists_for(opened: Opened, imagine: Any) -> Artists | None:
    """The generators that draw for a gallery; None without ``imagine``."""
    if imagine is None:
        return None
    return Artists(
        imagine if isinstance(imagine, Imagine) else Imagine(imagine),
        modality=opened.storage.manifest.modality,
        device=device_of(opened.queries.encoder),
    )


def with_query(opened: Opened, vector: NDArray[Any], drawn: Drawn) -> NDArray[Any]:
    """The vectors [1 + n, dim] of the query and of what was imagined."""
    own = np.asarray(vector)[None]
    if not drawn.pictures:
        return own
    return np.concatenate([np.asarray(own, np.float32), opened.queries.encode(drawn.pictures)])


def device_of(encoder: Encoder) -> str:
    """Where an encoder works, and so where a generator that is read beside it does."""
    return str(getattr(encoder, "device", "cpu"))


class Artists:
    """The generators of an ``Imagine``, read and checked."""

    def __init__(self, imagine: Imagine, *, modality: str, device: str = "cpu") -> None:
        """``modality`` is that of the gallery."""
        if not kind_of(modality).is_picture:
            raise GalleryError(
                f"imagined queries are pictures, and this gallery holds {kind_of(modality).items}; "
                "leave imagine out"
            )
        given = imagine.generator
        several = list(given) if isinstance(given, (list, tuple)) else [given]
        if not several:
            raise GalleryError("imagine names no generator; give one that can draw, or several")
        self.generators = [_checked(_read(each, device)) for each in several]
        self.imagine = replace(imagine, generator=self.generators)

    @property
    def side(self) -> int:
        """The longest side at which one of them looks at a picture; 0 where none says it."""
        return max(longest_side(each) or 0 for each in self.generators)

    def drawn(self, content: Any) -> Drawn:
        """What is imagined for a picture, the same for the same one."""
        n, n_generators = self.imagine.n, len(self.generators)
        with _drawing:
            drawn = [
                _drawn_near(generator, content, len(range(i, n, n_generators)), self.imagine)
                for i, generator in enumerate(self.generators)
                if i < n
            ]
        pictures = [drawn[i % n_generators][i // n_generators] for i in range(n)]
        return Drawn(pictures, self.imagine.fusion)


def neighbours(codes: torch.Tensor, n: int, *, spread: float, seed: int = 0) -> torch.Tensor:
    """Codes [m, n, code_dim] near to each of ``codes`` [m, code_dim].

    A code is mixed with standard normal noise in such shares that codes of variance one keep it.

    >>> neighbours(torch.zeros(1, 2), 1000, spread=0.5).std().round(decimals=1)
    tensor(0.5000)
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((n, codes.shape[1]), generator=generator).to(codes)
    return math.sqrt(1 - spread**2) * codes[:, None] + spread * noise


def imagined(generator: Any, batch: Any, n: int, *, spread: float, seed: int = 0) -> torch.Tensor:
    """The pictures [m, n, channels, height, width] that a generator imagines near to each of a
    batch, in [0, 1].
    """
    codes = generator.invert(batch)
    near = neighbours(codes, n, spread=spread, seed=seed)
    drawn, redrawn = generator.draw(near.flatten(0, 1)), generator.draw(codes)
    pixels = torch.as_tensor(batch).to(redrawn)
    for what, made in (("draws", drawn), ("redraws", redrawn), ("preprocess makes", pixels)):
        _check_pictures(generator, what, made)
    return laid_over(drawn.view(*near.shape[:2], *drawn.shape[1:]), pixels, redrawn)


def laid_over(drawn: torch.Tensor, pixels: torch.Tensor, redrawn: torch.Tensor) -> torch.Tensor:
    """Drawings [m, n, ...] with what the redrawn pictures [m, ...] lack of their originals."""
    return (drawn + (pixels - redrawn)[:, None]).clamp(0, 1)


def _drawn_near(generator: Any, content: Any, n: int, imagine: Imagine) -> list[Image.Image]:
    batch = generator.preprocess([content])
    found = imagined(generator, batch, n, spread=imagine.spread, seed=imagine.seed)
    return [to_image(picture) for picture in found[0].cpu()]


def _check_pictures(generator: Any, what: str, made: torch.Tensor) -> None:
    shape = tuple(made.shape)
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise GalleryError(
            f"generator {generator.name!r}: {what} {list(shape)}, but pictures are [n, channels, "
            "height, width] with 1 channel or 3; take another generator"
        )
    low, high = (float(made.min()), float(made.max())) if made.numel() else (0.0, 1.0)
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise GalleryError(
            f"generator {generator.name!r}: {what} values from {low:.3g} to {high:.3g}, but "
            "pictures have values in [0, 1]; take another generator"
        )


def _read(generator: Any, device: str) -> Encoder:
    """An encoder from a directory, or as it is given."""
    if not isinstance(generator, (str, Path)):
        return as_encoder(generator)
    folder = Path(generator)
    if not files.is_saved_encoder(folder):
        raise GalleryError(
            f"imagine: {folder} is no saved encoder; give the directory that `fastretrieve train` "
            "or encoder.save() wrote"
        )
    written = (folder / files.CONFIG).stat().st_mtime_ns
    return _load(folder.absolute(), written, device)


@lru_cache(maxsize=_KEPT)
def _load(folder: Path, written: int, device: str) -> Encoder:
    """``written`` is when the config was: a newer one is read anew."""
    return as_encoder(folder, device=device)


def _checked(generator: Encoder) -> Encoder:
    """The generator, if it can draw pictures."""
    name = generator.name
    if not kind_of(generator.modality).is_picture:
        raise GalleryError(
            f"generator {name!r} draws {kind_of(generator.modality).items}, and the gallery holds "
            "images; take a generator of images"
        )
    if "invert" not in generator.capabilities:
        raise GalleryError(
            f"encoder {name!r} cannot draw what is like a picture: it lacks the capability "
            f"'invert' (it has {sorted(generator.capabilities)}); take a trained gan, vae or "
            "autoencoder, or a plugin with that capability"
        )
    refuse_untrained(generator)
    return generator
