"""Add generated images to the training items, and compare the results with and without them.

A drawing takes the label of its nearest real images, by the generator's own vectors; one whose
neighbours disagree is dropped. Every class gets as many drawings as any other, as far as the
generator draws it at all. Both encoders take equally many steps, so that the drawings alone make
the difference.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data import Dataset
from fastretrieve.data.dataset import ItemSource
from fastretrieve.encoders.encoding import as_array, encode_dataset, refuse_untrained
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.registry import as_encoder
from fastretrieve.training.validation import GALLERY_ITEMS, sampled

_VOTERS, _AGREEING = 5, 4
_CHUNK = 500
_MOST_TRIES = 8  # drawings made for each one that is wanted
_JUDGES = ("precision@10", "recall@1", "view recall@1")  # the first that both runs have


@dataclass
class Synthesis:
    """How many drawings were added, and the figures without and with them."""

    n_drawn: int
    n_kept: int
    per_class: dict[str, int]
    without: dict[str, float] = field(default_factory=dict)
    with_them: dict[str, float] = field(default_factory=dict)
    n_held_out: int = 0  # items that the figures are means of

    @property
    def verdict(self) -> str:
        """Whether the drawings helped, by more than chance: "" where nothing was held out."""
        name = next((n for n in _JUDGES if n in self.without and n in self.with_them), None)
        if name is None or self.n_held_out == 0:
            return ""
        a, b = self.without[name], self.with_them[name]
        # Of a mean of shares this is the largest standard error that there can be.
        error = math.sqrt((a * (1 - a) + b * (1 - b)) / self.n_held_out)
        if abs(b - a) <= error:
            return f"no clear difference ({name} is known to {error:.4f}), so train without them"
        return "they help" if b > a else "they do harm, so train without them"

    def __str__(self) -> str:
        kept = f"{self.n_kept} of {self.n_drawn} drawings were added"
        changes = [
            f"{name} {self.without[name]:.4f} -> {value:.4f}"
            for name, value in self.with_them.items()
            if "recall" in name or "precision" in name
        ]
        told = f"{kept}: {', '.join(changes)}" if changes else kept
        return f"{told}; {self.verdict}" if self.verdict else told


def add_synthetic(
    dataset: Dataset, generator: Any, *, share: float, seed: int
) -> tuple[Dataset, Synthesis]:
    """The data set with drawings, so that they are ``share`` of it."""
    if not 0 < share < 1:
        raise ValueError(
            f"share is the generated part of the training items, between 0 and 1, got {share}"
        )
    artist = as_encoder(generator)
    if "generate" not in artist.capabilities:
        raise EncoderError(
            f"synthetic must be an encoder that can generate (gan, vae, autoregressive), "
            f"{artist.name!r} cannot"
        )
    refuse_untrained(artist)
    n_wanted = round(len(dataset) * share / (1 - share))
    images, labels, n_drawn = _draw(artist, dataset, n_wanted, seed=seed)
    names = [dataset.classes[label] for label in labels.tolist() if label >= 0]
    joined = Dataset(
        _Joined(dataset, images),
        labels=np.concatenate([dataset.labels, labels]),
        classes=dataset.classes,
        modality=dataset.modality,
    )
    return joined, Synthesis(n_drawn, len(images), dict(sorted(Counter(names).items())))


def compare(
    synthesis: Synthesis,
    without: Mapping[str, Any],
    with_them: Mapping[str, Any],
    *,
    n_held_out: int,
) -> Synthesis:
    """Add the figures that both runs measured on held-out items."""
    synthesis.n_held_out = n_held_out
    shared = [
        n for n in without if n in with_them and ("recall" in n or n.startswith(("val", "prec")))
    ]
    synthesis.without = {name: float(without[name]) for name in shared}
    synthesis.with_them = {name: float(with_them[name]) for name in shared}
    return synthesis


class _Joined:
    """A source: the items of a data set, then drawings [n, h, w] or [n, h, w, 3]."""

    def __init__(self, dataset: Dataset, images: NDArray[np.uint8]) -> None:
        self.dataset, self.images = dataset, images

    def __len__(self) -> int:
        return len(self.dataset) + len(self.images)

    def key(self, index: int) -> str:
        real = len(self.dataset)
        return self.dataset.key(index) if index < real else f"drawing #{index - real}"

    def read(self, index: int, *, size: int | None) -> Any:
        real = len(self.dataset)
        return self.dataset.read(index, size=size) if index < real else self.images[index - real]

    def read_many(self, indices: NDArray[np.int64]) -> Any | None:
        """Together only where the real items are arrays like the drawings."""
        real = len(self.dataset)
        is_drawn = indices >= real
        drawings = self.images[indices[is_drawn] - real]
        if is_drawn.all():
            return drawings
        found = self.dataset.read_many(indices[~is_drawn])
        if not isinstance(found, np.ndarray) or found.dtype != np.uint8:
            return None
        if found.shape[1:] != self.images.shape[1:]:
            return None
        together = np.empty((len(indices), *found.shape[1:]), np.uint8)
        together[~is_drawn], together[is_drawn] = found, drawings
        return together


_: type[ItemSource] = _Joined  # it keeps the protocol


def _draw(
    artist: Any, dataset: Dataset, n_wanted: int, *, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """Drawings as bytes, with labels (-1 where the data have none), and how many were made."""
    electorate = _electorate(artist, dataset, seed=seed) if dataset.is_labelled else None
    room = _room(dataset, n_wanted)
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    n_drawn = n_kept = 0
    while n_kept < n_wanted and n_drawn < _MOST_TRIES * n_wanted:
        n = min(_CHUNK, n_wanted)
        drawn = artist.generate(n, seed=seed + n_drawn)
        chosen = _vote(as_array(artist.encode(drawn)), electorate)
        keep = np.arange(n) if electorate is None else _seats(chosen, room)
        images.append(_to_bytes(as_array(drawn)[keep]))
        labels.append(chosen[keep])
        n_drawn, n_kept = n_drawn + n, n_kept + len(keep)
    if n_kept == 0:
        raise EncoderError(
            f"none of {n_drawn} drawings of {artist.name!r} looks like any class; train it longer"
        )
    return np.concatenate(images)[:n_wanted], np.concatenate(labels)[:n_wanted], n_drawn


def _room(dataset: Dataset, n_wanted: int) -> NDArray[np.int64]:
    """How many drawings each class takes: equally many, none where no real item has the label."""
    is_real = np.bincount(dataset.labels[dataset.labels >= 0], minlength=len(dataset.classes)) > 0
    return is_real * -(-n_wanted // max(int(is_real.sum()), 1))


def _seats(chosen: NDArray[np.int64], room: NDArray[np.int64]) -> NDArray[np.int64]:
    """The drawings whose class has room, the first ones first; ``room`` shrinks by them.

    >>> room = np.array([1, 5])
    >>> _seats(np.array([0, -1, 0, 1]), room), room
    (array([0, 3]), array([0, 4]))
    """
    kept = []
    for label in np.unique(chosen[chosen >= 0]):
        mine = np.flatnonzero(chosen == label)[: room[label]]
        room[label] -= len(mine)
        kept.append(mine)
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64)


def _electorate(
    artist: Any, dataset: Dataset, *, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors and labels of real images, which label the drawings."""
    labelled = dataset.subset(np.flatnonzero(dataset.labels >= 0))
    voters = sampled(labelled, GALLERY_ITEMS, seed=seed)
    encoded = encode_dataset(artist, voters)
    return encoded.vectors, voters.labels[encoded.rows]


def _vote(
    vectors: NDArray[np.float32],
    electorate: tuple[NDArray[np.float32], NDArray[np.int64]] | None,
) -> NDArray[np.int64]:
    """The label on which the neighbours agree, else -1."""
    if electorate is None:
        return np.full(len(vectors), -1, np.int64)
    from fastretrieve import topk

    rows, labels = electorate
    votes = labels[topk(vectors, rows, k=min(_VOTERS, len(rows)), metric="cosine").ids]
    winners = np.array([np.bincount(vote).argmax() for vote in votes], np.int64)
    agree = (votes == winners[:, None]).sum(axis=1) >= min(_AGREEING, votes.shape[1])
    return np.where(agree, winners, -1)


def _to_bytes(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[n, c, h, w] in [0, 1] to [n, h, w] or [n, h, w, 3], as images come from files."""
    pixels = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return pixels[:, 0] if pixels.shape[1] == 1 else pixels.transpose(0, 2, 3, 1)
