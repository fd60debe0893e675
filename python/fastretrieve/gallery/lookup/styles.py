"""Styles: what turns a query of another style into one of the gallery's own.

A ``PictureStyle`` is a trained translator, which repaints the query. A ``VectorStyle`` moves the
query's vector by what is known of vectors of both styles: their means and spreads. It is fitted in
seconds, and saved as encoders are: numbers and their names, of which nothing is run.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fastretrieve._common.locks import ForkSafeLock
from fastretrieve._common.metric import is_distance
from fastretrieve.data import longest_side
from fastretrieve.data.images import as_size, image_batch, to_image
from fastretrieve.data.pictures import picture_of
from fastretrieve.encoders.encoding import as_array, refuse_untrained
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.encoders.saved import files
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup.moments import MAX_AXES, Moments, moments_of
from fastretrieve.gallery.store.manifest import Manifest

How = Literal["mean", "coral", "whiten"]
HOWS: tuple[How, ...] = get_args(How)
_SIDES = ("queries", "items")
NAME = "moments"  # of a saved VectorStyle, where that of an encoder stands
MOST_TIMES = 8  # as large as a translator's pictures a translated one may be
KEPT = 4  # styles of an open gallery, the last ones used
_HALF_WHITE = -0.25  # of each spread: a score is a product, so together they are half whitened


class Translation(NamedTuple):
    """How a query was translated."""

    style: str  # the name of its style
    how: str  # "translator", or one of HOWS
    picture: Image.Image | None  # the translated query, where there is a picture of it

    def __str__(self) -> str:
        return f"{self.style} ({self.how})"


class PictureStyle:
    """An encoder that can translate."""

    how = "translator"

    def __init__(self, translator: Encoder, *, name: str) -> None:
        capabilities = getattr(translator, "capabilities", ())
        if "translate" not in capabilities:
            raise GalleryError(
                f"{name} is an encoder ({translator.name!r}) that cannot translate; train one: "
                "fastretrieve train --encoder translator --from A/ --to B/ --out my-style/"
            )
        refuse_untrained(translator)
        self.translator, self.name = translator, name
        self._lock = ForkSafeLock()  # a plugin need not be safe to call from several threads

    @property
    def side(self) -> int:
        """The longest side at which it looks at a picture; 0 where it does not say it."""
        return longest_side(self.translator) or 0

    def refuse_others(self, manifest: Manifest, encoder: Encoder) -> None:
        """Raise where queries for this gallery are nothing that it can translate."""
        if self.translator.modality != manifest.modality:
            raise GalleryError(
                f"style {self.name} translates each {self.translator.modality}, and the gallery "
                f"holds each {manifest.modality} as an item; take a style of such items"
            )
        kinds = [getattr(each, "channels", None) for each in (self.translator, encoder)]
        if None not in kinds and kinds[0] != kinds[1]:
            of: dict[Any, str] = {1: "grey", 3: "colour"}
            raise GalleryError(
                f"style {self.name} was trained for {of.get(kinds[0])} pictures (channels="
                f"{kinds[0]}), and the gallery's encoder {encoder.name!r} takes "
                f"{of.get(kinds[1])} ones (channels={kinds[1]}); train it with --channels "
                f"{kinds[1]}"
            )

    def picture(self, content: Any) -> Image.Image:
        """A decoded item in the other style, as a picture: what is shown is what is searched."""
        translator: Any = self.translator
        batch, whole = translator.preprocess([content]), self._whole(content)
        with self._lock:
            made = (
                translator.translate(batch)
                if whole is None
                else translator.translate_whole(batch, whole)
            )
        pixels = as_array(made)[0]
        channels_last = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
        return picture_of(channels_last[:, :, 0] if len(pixels) == 1 else channels_last)

    def _whole(self, content: Any) -> Any:
        """The picture as a larger batch, where it is larger than what the translator looks at, and
        the translator can use that: a whole number of times.
        """
        translator: Any = self.translator
        if not hasattr(translator, "translate_whole"):
            return None
        height, width = as_size(translator.image_size)
        times = min(max(to_image(content).size) // max(height, width), MOST_TIMES)
        if times < 2:
            return None
        size = (times * height, times * width)
        return torch.from_numpy(image_batch([content], size=size, channels=translator.channels))


class VectorStyle:
    """Means and spreads of two sets of vectors: of queries, and of the gallery."""

    side = 0  # it looks at no picture

    def __init__(
        self,
        how: How,
        queries: Moments,
        items: Moments,
        *,
        metric: str,
        made_for: str,
        name: str,
    ) -> None:
        self.how, self.queries, self.items, self.metric = how, queries, items, metric
        self.made_for = made_for  # the hash of the weights of the encoder of these vectors
        self.name = name

    @classmethod
    def fit(
        cls,
        how: How,
        queries: NDArray[Any],
        items: NDArray[Any],
        *,
        metric: str,
        made_for: str,
        name: str,
    ) -> VectorStyle:
        """A style from vectors of pictures like the queries, and of items."""
        sides = [moments_of(comparable(rows, metric)) for rows in (queries, items)]
        return cls(how, sides[0], sides[1], metric=metric, made_for=made_for, name=name)

    def refuse_others(self, manifest: Manifest, encoder: Encoder) -> None:
        """Raise where it was fitted to vectors of another kind than the gallery's."""
        fits = self.made_for == manifest.weights_sha256 and len(self.items.mean) == manifest.dim
        if not fits or self.metric != manifest.metric:
            raise GalleryError(
                f"style {self.name} was fitted to vectors of another encoder or metric than this "
                f"gallery's ({manifest.encoder!r}, {manifest.metric}); fit one to this gallery: "
                "fastretrieve style GALLERY PICTURES/ --out my-style/"
            )

    def vectors(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Vectors [n, dim] of queries, moved to where those of the gallery's style would be."""
        rows = comparable(vectors, self.metric) - self.queries.mean
        if self.how == "whiten":
            # Every direction counts by how far it tells pictures of one style apart. The gallery's
            # half of the weights goes to the query, since a score is a product of both.
            moved = self.items.powered(self.queries.powered(rows, _HALF_WHITE), _HALF_WHITE)
        else:
            if self.how == "coral":
                rows = self.items.powered(self.queries.powered(rows, -0.5), 0.5)
            moved = rows + self.items.mean
        found: NDArray[np.float32] = moved.astype(np.float32)
        return found

    def save(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``weights.safetensors``, as encoders are saved."""
        weights = {
            f"{side}.{name}": np.atleast_1d(np.asarray(value, np.float32))
            for side, found in zip(_SIDES, (self.queries, self.items), strict=True)
            for name, value in found._asdict().items()
        }
        files.write_encoder(
            directory,
            encoder=NAME,
            config={"how": self.how, "metric": self.metric},
            weights=weights,
            extra={"made_for": self.made_for},
        )

    @classmethod
    def load(cls, saved: files.SavedEncoder, *, name: str) -> VectorStyle:
        """Read back what ``save`` wrote; shapes are checked before anything is read."""
        how, metric = saved.config.get("how"), saved.config.get("metric")
        made_for = saved.extra.get("made_for")
        if how not in HOWS or not isinstance(metric, str) or not isinstance(made_for, str):
            raise GalleryError(f"{saved.directory} is damaged: its config is none of a style")
        queries, items = _moments_in(saved)
        return cls(how, queries, items, metric=metric, made_for=made_for, name=name)


def _moments_in(saved: files.SavedEncoder) -> list[Moments]:
    """The moments of both sides; their shapes are checked before anything is read."""
    shapes = {key: entry.shape for key, entry in saved.entries().items()}
    dim = shapes.get("items.mean", ())
    wanted: dict[str, tuple[int, ...]] = {}
    for side in _SIDES:
        n_axes = shapes.get(f"{side}.variances", ())
        if len(dim) != 1 or dim[0] < 1 or len(n_axes) != 1 or n_axes[0] > MAX_AXES:
            raise GalleryError(f"{saved.directory} is damaged: its tensors are none of a style")
        parts = {"mean": dim, "axes": (*n_axes, *dim), "variances": n_axes, "rest": (1,)}
        wanted |= {f"{side}.{part}": shape for part, shape in parts.items()}
    if shapes != wanted:
        raise GalleryError(f"{saved.directory} is damaged: its tensors are none of a style")
    arrays = {key: np.asarray(values, np.float64) for key, values in saved.arrays().items()}
    found = []
    for side in _SIDES:
        mean, axes, variances = (arrays[f"{side}.{part}"] for part in ("mean", "axes", "variances"))
        numbers = np.append(variances, arrays[f"{side}.rest"])
        is_finite = all(np.isfinite(a).all() for a in (mean, axes, numbers))
        if not is_finite or numbers.min() <= 0:
            raise GalleryError(f"{saved.directory} is damaged: its numbers are none of a style")
        found.append(Moments(mean, axes, variances, float(numbers[-1])))
    return found


Style = PictureStyle | VectorStyle


class Styles:
    """The styles that an open gallery has used: read or fitted once, not for each query."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, tuple[Style, Any]] = OrderedDict()
        self._lock = ForkSafeLock()

    def get(self, key: Any) -> Style | None:
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: Any, style: Style, *, source: Any) -> None:
        """Keep a style, and what it came from, so that the id of that stays its own."""
        with self._lock:
            self._kept[key] = style, source
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)


def comparable(vectors: NDArray[Any], metric: str) -> NDArray[np.float64]:
    """Vectors as the metric compares them: cosine knows no lengths."""
    rows = np.asarray(vectors, np.float64)
    if metric != "cosine":
        return rows
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    return unit


def checked_how(how: Any, metric: str) -> How:
    """The name of a fit, where the metric can bear it."""
    if how not in HOWS:
        raise GalleryError(f"how is one of {', '.join(HOWS)}, got {how!r}")
    if how == "whiten" and is_distance(metric):
        raise GalleryError(
            "whitening weighs the directions of a product of vectors, and this gallery's metric is "
            f'the distance {metric}; take how="coral" or how="mean"'
        )
    chosen: How = how
    return chosen
