"""``cnn``: a convolutional network whose vectors are trained by labels, or by views without labels.

Its code, a fully connected projection of the L2-normalised features, is what the losses see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from fastretrieve.encoders.base import UNSAVED_BYTES, arguments, batch_length, seeded
from fastretrieve.encoders.blocks.classifier import PrototypeClassifier
from fastretrieve.encoders.blocks.contrast import same_label_loss, two_views_loss
from fastretrieve.encoders.blocks.located import grid_of, located, no_parts
from fastretrieve.encoders.blocks.networks import (
    ConvPyramid,
    checked_size,
    grid_pool,
    initialise,
    unit_rows,
)
from fastretrieve.encoders.blocks.recipe import Recipe
from fastretrieve.encoders.blocks.views import STRONG
from fastretrieve.encoders.models.fused import Form, FusedEncoder
from fastretrieve.encoders.protocol import Batch

Objective = Literal["auto", "softmax", "metric", "contrastive"]
_OBJECTIVES = ("auto", "softmax", "metric", "contrastive")


class CnnEncoder(FusedEncoder, PrototypeClassifier):
    """Convolutions, pooling, and a fully connected layer; the vector fuses all of them.

    ``objective`` is what training minimises: "softmax" (cosines with one prototype a class),
    "metric" (supervised contrast: needs no prototypes, so also suits many small classes) or
    "contrastive" (two changed views of an image belong together: needs no labels). "auto" takes the
    softmax where classes are known, the metric loss where only labels are, else views.

    >>> encoder = CnnEncoder(dim=16, image_size=16, channels=1, width=8)
    >>> encoder.encode(encoder.preprocess([torch.rand(1, 20, 30)])).shape
    torch.Size([1, 16])
    """

    name = "cnn"
    capabilities = frozenset({"trainable", "classify", "layers", "parts"})
    unsaved_bytes = UNSAVED_BYTES
    recipe = Recipe(lr=3e-3, weight_decay=5e-3)

    def __init__(
        self,
        *,
        dim: int = 128,
        image_size: int | Sequence[int] = 64,
        channels: int = 3,
        objective: Objective = "auto",
        width: int = 24,
        form: Form = "fused",
        seed: int = 0,
    ) -> None:
        super().__init__(dim=dim, config=arguments(locals()))
        if objective not in _OBJECTIVES:
            raise ValueError(
                f"objective must be one of {', '.join(_OBJECTIVES)}, got {objective!r}"
            )
        self.objective = objective
        self.views = STRONG
        size = checked_size(self.image_size)
        with seeded(seed):
            self.body = ConvPyramid(self.channels, size, width=width, max_width=4 * width)
            n_features = self.body.last.width
            self.project = nn.Linear(n_features, dim)
            self.compare = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
            initialise(self)
            self.make_fusion(form, code_dim=dim)
        self.prototypes = None

    def code_of(self, maps: torch.Tensor) -> torch.Tensor:
        code: torch.Tensor = self.project(unit_rows(grid_pool(maps, 1)))
        return code

    def parts(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """What each position adds to a vector, and the rest: see ``protocol.Parted``."""
        if batch_length(batch) == 0:
            return no_parts(self.dim)
        with self.evaluating():
            maps = self.body.all_maps(self.on_device(batch))
            grid = grid_of(self.image_size)
            last = located(maps[-1], cells=1, grid=grid, edges=self.body.edges(len(maps)))
            code = last.unit().mapped(self.project)
            return self.located_vector(maps, code, grid).as_float32()

    def loss(self, batch: Batch, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """The loss of the objective; unlabelled items teach nothing where labels are used."""
        images = self.on_device(batch)
        known = None if labels is None else labels.to(self.device)
        objective = self.labelled_objective(known)
        if objective is None or known is None:
            views = torch.cat([self.views(images), self.views(images)])
            return {"loss": two_views_loss(self.compare(self.code(views)))}
        vectors = self.code(images)
        if objective == "metric":
            return {"loss": same_label_loss(vectors, known)}
        return self.softmax_loss(vectors, known)
