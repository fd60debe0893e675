"""``adapter``: a small map on top of a frozen encoder, learned from labels or pairs.

The map starts as the identity, so an untrained adapter has the frozen encoder's neighbours, and
weight decay pulls it back there. ``fr.train`` encodes each item once and trains on the vectors.
The frozen encoder is saved in the folder ``frozen`` inside the adapter's own; its class is looked
up among the installed plugins, as for every saved encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve.encoders.base import (
    UNSAVED_BYTES,
    TorchEncoder,
    arguments,
    batch_length,
    restored,
    seeded,
)
from fastretrieve.encoders.blocks.contrast import same_label_loss
from fastretrieve.encoders.blocks.networks import unit_rows
from fastretrieve.encoders.blocks.recipe import Recipe
from fastretrieve.encoders.defaults import FITTED_PRETRAINED
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import Batch, Encoder, Figure, Items, Modality
from fastretrieve.encoders.saved import files
from fastretrieve.encoders.saved.nested import (
    frozen_encoder,
    load_nested,
    no_digest,
    refuse_another,
    save_nested,
)

FROZEN = "frozen"  # the folder of the frozen encoder, inside the adapter's
MAX_DIM = 4096  # the map has the square of it
_RECIPE = Recipe(lr=1e-3, weight_decay=0.1, batch_size=256, steps=600, half=False)
_LR_BY_DIM = 0.6  # the learning rate of a linear map, times its dim


class AdapterHead(TorchEncoder):
    """The part that learns: an encoder of the frozen encoder's vectors.

    >>> head = AdapterHead(dim=3, modality="image")
    >>> head.encode(head.preprocess(np.array([[0.0, 3.0, 4.0]]))).tolist()
    [[0.0, 0.6000000238418579, 0.800000011920929]]
    """

    name = "adapter"
    recipe = _RECIPE
    augmentable = False
    needs_labels = True
    needs_class_mates = True
    useful_at_start = True
    judge = "ndcg@10"  # pairs have one mate each: precision@10 would be 0.1 at most

    def __init__(
        self,
        *,
        dim: int,
        modality: Modality,
        hidden: int = 0,
        temperature: float = 0.07,
        seed: int = 0,
    ) -> None:
        super().__init__(dim=dim, config=arguments(locals()))
        self.modality = modality
        self.temperature = temperature
        if not hidden:
            # A step moves a vector by the entries of a row together: fewer entries, larger steps.
            self.recipe = _RECIPE._replace(lr=min(max(_LR_BY_DIM / dim, 5e-4), 1e-2))
        with seeded(seed):
            width = hidden or dim
            self.up = nn.Linear(dim, hidden) if hidden else None
            # Zeros: what is added to a vector is nothing at first.
            self.down = nn.Linear(width, dim, bias=False)
            nn.init.zeros_(self.down.weight)
            if self.up is not None:
                nn.init.orthogonal_(self.up.weight)
                nn.init.zeros_(self.up.bias)

    def preprocess(self, items: Items) -> torch.Tensor:
        return torch.tensor(np.stack([np.asarray(item, np.float32) for item in items]))

    def embed(self, batch: Batch) -> torch.Tensor:
        vectors = unit_rows(batch)
        if self.up is None:
            added = self.down(vectors)
        else:
            # Scaled so that the hidden layer sees numbers of size one.
            seen = F.gelu(self.up(vectors * self.dim**0.5))
            added = self.down(seen) / self.up.out_features**0.5
        result: torch.Tensor = vectors + added
        return result

    def loss(self, batch: Batch, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Supervised contrast: items of one label, or the two of a pair, attract each other."""
        if labels is None:
            raise ValueError("an adapter learns from labels or pairs, but no item here has a label")
        vectors = self.embed(self.on_device(batch))
        mates = labels.to(self.device)
        return {"loss": same_label_loss(vectors, mates, temperature=self.temperature)}


class AdapterEncoder(TorchEncoder):
    """A linear map, or one hidden layer, added to the vectors of any trained encoder.

    ``frozen`` is an encoder, a name, or the directory of a saved one. ``options`` are those of an
    encoder that is made here by its name; without any, ``pretrained`` is the one that is fitted.
    ``hidden`` is the width of a hidden layer, 0 for none. The vectors have the frozen encoder's
    ``dim``, and unit length before training.

    >>> adapter = AdapterEncoder(frozen="pixels", options={"image_size": 4, "channels": 1})
    >>> adapter.encode(adapter.preprocess([torch.ones(1, 8, 8)])).shape
    torch.Size([1, 16])
    """

    name = "adapter"
    capabilities = frozenset({"trainable"})
    unsaved_bytes = UNSAVED_BYTES
    progress_figure = Figure("loss", "lower")
    recipe = _RECIPE
    augmentable = False
    needs_labels = True
    needs_class_mates = True

    frozen_sha256: torch.Tensor

    def __init__(
        self,
        *,
        frozen: Any = "pretrained",
        options: dict[str, Any] | None = None,
        hidden: int = 0,
        temperature: float = 0.07,
        seed: int = 0,
    ) -> None:
        if hidden < 0:
            raise ValueError(f"hidden is the width of a hidden layer, or 0 for none, got {hidden}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        config: dict[str, Any] = {"hidden": hidden, "temperature": temperature, "seed": seed}
        made = _frozen(frozen, options)
        super().__init__(dim=made.dim, config=config)
        # In a list, so that its weights are none of this module's: it saves and trains its own.
        self._kept: list[Encoder] = [made]
        self.modality = made.modality
        for name in ("image_size", "channels"):
            if hasattr(made, name):
                setattr(self, name, getattr(made, name))
        self.head = AdapterHead(dim=made.dim, modality=made.modality, **config)
        # With it the checksum of the adapter's weights covers the frozen encoder.
        self.register_buffer("frozen_sha256", no_digest())

    @property
    def frozen(self) -> Encoder:
        """The encoder below, which training leaves as it is."""
        return self._kept[0]

    def preprocess(self, items: Items) -> Batch:
        return self.frozen.preprocess(items)

    def encode(self, batch: Batch) -> torch.Tensor:
        if batch_length(batch) == 0:
            return torch.zeros(0, self.dim, device=self.device)
        with self.evaluating():
            return self.embed(batch).float()

    def embed(self, batch: Batch) -> torch.Tensor:
        return self.head.embed(self._vectors(batch))

    def loss(self, batch: Batch, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """The head's loss; ``fr.train`` asks the head itself, on vectors that it has kept."""
        return self.head.loss(self._vectors(batch), labels)

    def to(self, *args: Any, **kwargs: Any) -> AdapterEncoder:
        super().to(*args, **kwargs)
        self._kept[0] = self.frozen.to(self.device)
        return self

    def save(self, directory: str | Path) -> None:
        """Write the frozen encoder into the folder ``frozen``, then the adapter."""
        self.frozen_sha256.copy_(save_nested(self.frozen, Path(directory) / FROZEN))
        super().save(directory)

    @classmethod
    def load(
        cls, directory: str | Path, *, device: str = "cpu", frozen: Any = None
    ) -> AdapterEncoder:
        """Read back what ``save`` wrote. ``frozen`` is the frozen encoder where its class is no
        installed plugin's: from a file, or a wrapped module.
        """
        saved = files.read_encoder(directory)
        below = saved.directory / FROZEN
        frozen = load_nested(below, frozen)
        found = restored(saved, lambda: cls(frozen=frozen, **saved.config), cls)
        refuse_another(below, found.frozen_sha256, cls.name)
        return found.to(device)

    def _vectors(self, batch: Batch) -> torch.Tensor:
        found = self.frozen.encode(batch)
        rows = found if isinstance(found, torch.Tensor) else torch.tensor(found)
        return rows.to(self.device)


def _frozen(frozen: Any, options: dict[str, Any] | None) -> Encoder:
    """The encoder below an adapter: trained, and not too wide."""
    made = frozen_encoder(frozen, options, defaults={"pretrained": FITTED_PRETRAINED})
    if made.dim > MAX_DIM:
        raise EncoderError(
            f"an adapter learns a map of vectors of up to {MAX_DIM} numbers, and those of "
            f"{made.name!r} have {made.dim}; give it a smaller dim"
        )
    return made
