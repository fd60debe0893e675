"""A head over named classes, shared by the encoders that learn from labels.

Each class has a prototype; the logits are cosines between a vector and the prototypes, so
training pulls together what a search by cosine finds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve.encoders.base import TorchEncoder, seeded
from fastretrieve.encoders.blocks.networks import unit_rows
from fastretrieve.encoders.protocol import Batch

_SHARPNESS = 16.0  # scales cosines, so that a softmax can become certain
_SMOOTHING = 0.05  # some labels of real folders are wrong


class PrototypeClassifier(TorchEncoder):
    """A ``TorchEncoder`` with the capability "classify"."""

    prototypes: nn.Linear | None
    objective: str

    @property
    def needs_class_mates(self) -> bool:
        """Whether a batch should hold several items of each of its classes."""
        return self.objective == "metric"

    def set_classes(self, names: Sequence[str]) -> None:
        """Make a prototype for each class; those of the same names stay as they are."""
        if tuple(names) == self.classes:
            return
        super().set_classes(names)
        with seeded(int(self.config["seed"])):
            made = nn.Linear(self.dim, max(len(self.classes), 1), bias=False)
            nn.init.orthogonal_(made.weight)
        self.prototypes = made.to(self.device) if self.classes else None

    def probabilities(self, batch: Batch) -> torch.Tensor:
        """Return the head's probabilities [n, n_classes]."""
        if self.prototypes is None:
            raise ValueError(
                f"this {self.name} has no classes: train it with labels, or use fr.classify, which "
                "lets the neighbours vote"
            )
        with self.evaluating():
            return self.logits(self.code(self.on_device(batch))).softmax(1)

    def code(self, images: Batch) -> torch.Tensor:
        """What the prototypes are compared with: the vector, where it is not fused with more."""
        return self.embed(images)

    def logits(self, vectors: torch.Tensor) -> torch.Tensor:
        """Scaled cosines with the prototypes, [n, n_classes].

        Vectors of fewer dimensions are the last part of a fused vector.
        """
        if self.prototypes is None:
            raise ValueError('objective "softmax" needs classes: call set_classes(names) first')
        prototypes = self.prototypes.weight[:, -vectors.shape[1] :]
        cosines = unit_rows(vectors.float()) @ unit_rows(prototypes.float()).T
        return _SHARPNESS * cosines

    def softmax_loss(self, vectors: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cross entropy and accuracy over the items that have a label."""
        logits, n_known = self.logits(vectors), (labels >= 0).sum().clamp(min=1)
        summed = F.cross_entropy(
            logits, labels, ignore_index=-1, label_smoothing=_SMOOTHING, reduction="sum"
        )
        return {"loss": summed / n_known, "accuracy": (logits.argmax(1) == labels).sum() / n_known}

    def labelled_objective(self, labels: torch.Tensor | None) -> str | None:
        """ "softmax" or "metric" for these labels, or None where the labels are not to be used.

        "auto" takes the softmax where classes were set, the metric loss where only labels came.
        """
        has_labels = labels is not None and bool((labels >= 0).any())
        asked = self.objective
        if asked == "auto":
            return ("metric" if self.prototypes is None else "softmax") if has_labels else None
        if asked not in ("softmax", "metric"):
            return None
        if not has_labels:
            raise ValueError(f"objective {asked!r} learns from labels, but no item here has one")
        return asked
