"""Bring pictures and texts into one space: the start in closed form, and the loss that refines it.

The start is a regularised canonical correlation: both sides are whitened, and the directions along
which they agree best are kept, each as strong as it agrees. How strongly the whitening is held back
is what finds most captions of pictures that were left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from fastretrieve.encoders.blocks.networks import unit_rows

SHRINKS = (0.1, 0.3, 1.0, 3.0, 10.0)  # of the mean variance of a side, added to each
_USUAL = 1.0  # where too few pictures are there to choose
_FEWEST = 50  # pictures
_AT_ONCE = 1024  # texts that ask
# Among more pictures finer directions count, and more pairs determine them: on symbols a third of
# what was best among a fifth of the known pictures was best among five times as many unseen ones.
_FINER = 3.0
_MOST_HELD = 1000  # pictures that the choice is made by
_POWER = 0.5  # of the correlation of a direction: its strength on either side
_SAME = 0.99999  # the cosine of equal texts
_NEVER = -1e9  # a logit that a softmax ignores; finite, so that half precision gives no NaN


class Maps(NamedTuple):
    """``(rows - mean) @ map`` brings either side into the common space."""

    image_mean: torch.Tensor  # [image_dim]
    image_map: torch.Tensor  # [image_dim, dim]
    text_mean: torch.Tensor  # [text_dim]
    text_map: torch.Tensor  # [text_dim, dim]


class Found(NamedTuple):
    """How well texts find their pictures."""

    recall_1: float
    recall_10: float
    mrr: float


@torch.no_grad()
def aligned(images: torch.Tensor, texts: torch.Tensor, dim: int) -> Maps:
    """Maps from pairs of unit vectors: images [n, image_dim] and texts [n, text_dim]."""
    shrinks = _chosen_shrinks(images, texts, dim)
    return _Spectra(images, texts).maps(dim, *shrinks)


def _chosen_shrinks(images: torch.Tensor, texts: torch.Tensor, dim: int) -> tuple[float, float]:
    """For pictures and texts, what finds most captions of pictures that are left out."""
    pictures = torch.unique(images, dim=0, return_inverse=True)[1]
    n = int(pictures.max()) + 1
    if n < _FEWEST:
        return _USUAL, _USUAL
    held = pictures % max(5, n // _MOST_HELD) == 0
    spectra = _Spectra(images[~held], texts[~held])
    rows, of_text = first_rows(pictures[held])

    def score(shrinks: tuple[float, float]) -> float:
        maps = spectra.maps(dim, *shrinks)
        asked = project(texts[held], maps.text_mean, maps.text_map)
        shown = project(images[held][rows], maps.image_mean, maps.image_map)
        return ranked(asked, shown, of_text).mrr

    # One side after the other: ten combinations of twenty-five.
    image = max(SHRINKS, key=lambda shrink: score((shrink, _USUAL)))
    text = max(SHRINKS, key=lambda shrink: score((image, shrink)))
    return image / _FINER, text / _FINER


class _Spectra:
    """The principal axes of both sides and what they have in common, in float64."""

    def __init__(self, images: torch.Tensor, texts: torch.Tensor) -> None:
        a, b = images.double(), texts.double()
        self.means = a.mean(0), b.mean(0)
        a, b = a - self.means[0], b - self.means[1]
        n = max(len(a), 1)
        self.image, self.text = (torch.linalg.eigh(x.T @ x / n) for x in (a, b))
        self.common = self.image[1].T @ (a.T @ b / n) @ self.text[1]
        self.rows = a, b

    def maps(self, dim: int, image_shrink: float, text_shrink: float) -> Maps:
        scales = [
            (w.clamp(min=0) + shrink * w.clamp(min=0).mean() + 1e-12).rsqrt()
            for (w, _), shrink in ((self.image, image_shrink), (self.text, text_shrink))
        ]
        left, agreed, right = torch.linalg.svd(
            scales[0][:, None] * self.common * scales[1], full_matrices=False
        )
        strength = agreed**_POWER
        made = []
        for axes, scale, sides, rows in zip(
            (self.image[1], self.text[1]), scales, (left, right.T), self.rows, strict=True
        ):
            found = (axes * scale) @ (sides * strength)[:, :dim]
            found = F.pad(found, (0, dim - found.shape[1]))
            # Unit length on average, so that one learning rate fits all data.
            made.append(found / (rows @ found).norm(dim=1).mean().clamp(min=1e-12))
        return Maps(self.means[0].float(), made[0].float(), self.means[1].float(), made[1].float())


def project(rows: torch.Tensor, mean: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    """Rows of unit length in the common space."""
    return unit_rows((rows - mean) @ to)


def ranked(texts: torch.Tensor, images: torch.Tensor, of_text: torch.Tensor) -> Found:
    """How well texts [m, dim] find, among images [n, dim], the one whose number they have."""
    if not len(texts):
        return Found(0.0, 0.0, 0.0)
    ranks = []
    for start in range(0, len(texts), _AT_ONCE):
        asked, own = (each[start : start + _AT_ONCE] for each in (texts, of_text))
        scores = asked @ images.T
        # Of equals its own picture is last: maps that make all alike find nothing.
        ranks.append((scores >= scores.gather(1, own[:, None]) - 1e-6).sum(1).clamp(min=1))
    rank = torch.cat(ranks).double()
    return Found(
        *(
            float(x)
            for x in ((rank <= 1).double().mean(), (rank <= 10).double().mean(), (1 / rank).mean())
        )
    )


def pair_loss(
    sides: tuple[torch.Tensor, torch.Tensor],
    friends: torch.Tensor,
    scale: torch.Tensor,
    rivals: Sequence[tuple[torch.Tensor, torch.Tensor]] = (),
) -> torch.Tensor:
    """Each text should find its picture among those of the batch, and each picture its text.

    ``sides`` are pictures and texts [n, dim] of unit length, row by row pairs. ``friends`` [n, n]
    are the pairs of rows that are not to be told apart. ``rivals`` are, for pictures and for texts,
    further rows of the other side [m, dim], and which of them are friends [n, m].
    """
    images, texts = sides
    logits = (images @ texts.T * scale).masked_fill(friends, _NEVER)
    target = torch.arange(len(images), device=images.device)
    total = logits.new_zeros(())
    for number, (own, seen) in enumerate(((images, logits), (texts, logits.T))):
        if rivals:
            others, known = rivals[number]
            more = (own @ others.T * scale).masked_fill(known, _NEVER)
            seen = torch.cat([seen, more], dim=1)
        total = total + F.cross_entropy(seen, target) / 2
    return total


def same_rows(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Which rows of unit length are equal: [len(a), len(b)]."""
    return a @ b.T > _SAME


def first_rows(numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first row of each number, and for every row the position of its number among them."""
    values, positions = torch.unique(numbers, return_inverse=True)
    rows = torch.full((len(values),), len(numbers), dtype=torch.int64)
    rows.scatter_reduce_(0, positions, torch.arange(len(numbers)), reduce="amin")
    return rows, positions
