"""The part of ``words`` that learns: a map for either tower, from pairs of their vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from fastretrieve.encoders.base import TorchEncoder, arguments, seeded
from fastretrieve.encoders.blocks.networks import unit_rows
from fastretrieve.encoders.blocks.recipe import Recipe
from fastretrieve.encoders.blocks.rivals import Rivals
from fastretrieve.encoders.blocks.towers import (
    aligned,
    first_rows,
    pair_loss,
    project,
    ranked,
    same_rows,
)
from fastretrieve.encoders.protocol import Batch, Items, Modality

RECIPE = Recipe(lr=1e-2, weight_decay=0.1, batch_size=256, steps=400, half=False)
_RIVAL_PAIRS = 5000  # among which rivals are searched
_SCALE = math.log(20.0)  # of cosines at first, as a logarithm
_MOST_SCALE = 100.0  # of cosines, in the loss


class WordsHead(TorchEncoder):
    """The part that learns: its items are rows [image_dim + text_dim], a picture and a caption.

    A map is an anchor and a change. The change learns; after each epoch it goes into the anchor,
    by which the rivals of the next epoch are searched.
    """

    name = "words"
    recipe = RECIPE
    augmentable = False
    useful_at_start = True
    judge = "mrr"
    sees_items = 50_000

    image_mean: torch.Tensor
    image_anchor: torch.Tensor
    text_mean: torch.Tensor
    text_anchor: torch.Tensor

    def __init__(
        self,
        *,
        image_dim: int,
        text_dim: int,
        dim: int,
        modality: Modality = "image",
        rivals: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(dim=dim, config=arguments(locals()))
        self.modality = modality
        self.n_rivals = rivals
        self._rivals: Rivals | None = None
        sides = {"image": image_dim, "text": text_dim}
        with seeded(seed):
            for side, width in sides.items():
                self.register_buffer(f"{side}_mean", torch.zeros(width))
                self.register_buffer(f"{side}_anchor", torch.randn(width, dim) / dim**0.5)
        self.image_change = nn.Parameter(torch.zeros(image_dim, dim))
        self.text_change = nn.Parameter(torch.zeros(text_dim, dim))
        self.scale = nn.Parameter(torch.tensor(_SCALE))  # of cosines, as a logarithm

    def preprocess(self, items: Items) -> torch.Tensor:
        return torch.tensor(np.stack([np.asarray(item, np.float32) for item in items]))

    def embed(self, batch: Batch) -> torch.Tensor:
        """The pictures of pairs."""
        return self.embed_images(self._sides(batch)[0])

    def embed_images(self, vectors: torch.Tensor) -> torch.Tensor:
        return project(unit_rows(vectors), self.image_mean, self.image_map)

    def embed_texts(self, vectors: torch.Tensor) -> torch.Tensor:
        return project(unit_rows(vectors), self.text_mean, self.text_map)

    @property
    def image_map(self) -> torch.Tensor:
        return _changed(self.image_anchor, self.image_change)

    @property
    def text_map(self) -> torch.Tensor:
        return _changed(self.text_anchor, self.text_change)

    def loss(self, batch: Batch, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """InfoNCE in both directions. Pairs of one picture (one label) or one caption are not told
        apart.
        """
        images, texts = (unit_rows(side) for side in self._sides(self.on_device(batch)))
        friends = same_rows(texts, texts) | same_rows(images, images)
        if labels is not None:
            marks = labels.to(self.device)
            friends |= (marks[:, None] == marks) & (marks >= 0)
        friends.fill_diagonal_(False)
        sides = self.embed_images(images), self.embed_texts(texts)
        scale = self.scale.clamp(0.0, math.log(_MOST_SCALE)).exp()
        return {"loss": pair_loss(sides, friends, scale, self._found_rivals(images, texts))}

    def before_training(self, batches: Iterable[Batch]) -> None:
        """Start in closed form, and keep a sample of pairs to search for rivals in."""
        with torch.no_grad():
            rows = torch.cat([self.on_device(batch) for batch in batches])
            images, texts = (unit_rows(side) for side in self._sides(rows))
            maps = aligned(images.cpu(), texts.cpu(), self.dim)
            self.image_mean.copy_(maps.image_mean)
            self.image_anchor.copy_(maps.image_map)
            self.text_mean.copy_(maps.text_mean)
            self.text_anchor.copy_(maps.text_map)
            self.image_change.zero_()
            self.text_change.zero_()
            self.scale.fill_(_SCALE)
        step = -(-len(images) // _RIVAL_PAIRS)
        self._rivals = Rivals(images[::step], texts[::step]) if self.n_rivals else None

    @torch.no_grad()
    def after_training(self, batches: Iterable[Batch]) -> None:
        """The end of an epoch: what was learned goes into the anchors."""
        for anchor, change in (
            (self.image_anchor, self.image_change),
            (self.text_anchor, self.text_change),
        ):
            anchor.copy_(_changed(anchor, change))
            change.zero_()
        if self._rivals is not None:
            self._rivals.forget()

    @torch.no_grad()
    def measure(self, batches: Iterable[tuple[Batch, torch.Tensor]]) -> dict[str, float]:
        """How well held-out captions find their pictures among all held-out ones."""
        pairs = [(self.on_device(batch), labels) for batch, labels in batches]
        images, texts = self._sides(torch.cat([rows for rows, _ in pairs]))
        firsts, of_text = first_rows(torch.cat([labels for _, labels in pairs]))
        found = ranked(
            self.embed_texts(texts),
            self.embed_images(images[firsts.to(self.device)]),
            of_text.to(self.device),
        )
        return {"recall@1": found.recall_1, "recall@10": found.recall_10, "mrr": found.mrr}

    def _sides(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        width = len(self.image_mean)
        return batch[:, :width], batch[:, width:]

    def _found_rivals(
        self, images: torch.Tensor, texts: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For pictures and for texts: the rivals as the maps are now, and which are friends."""
        if self._rivals is None or not self.training:
            return []
        anchors = (
            lambda rows: project(rows, self.image_mean, self.image_anchor),
            lambda rows: project(rows, self.text_mean, self.text_anchor),
        )
        found = self._rivals.of(images, texts, anchors, k=self.n_rivals)
        return [
            (embed(pairs[side]), same_rows(images, pairs[0]) | same_rows(texts, pairs[1]))
            for side, embed, pairs in (
                (1, self.embed_texts, found.texts),
                (0, self.embed_images, found.images),
            )
        ]


def _changed(anchor: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """The map: a change of 1 is the usual entry of the anchor."""
    return anchor + change * anchor.square().mean().sqrt()
