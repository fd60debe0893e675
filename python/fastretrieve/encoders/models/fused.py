"""What the convolutional encoders share: a vector fused from the stages of a network and its code.

A code learns what its loss asks for. The stages know the rest: fused with them, vectors also find
pictures that the training has not met. The ``form`` "code", the code alone, is that of version 0.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from fastretrieve.encoders.base import Self, TorchEncoder, restored
from fastretrieve.encoders.blocks.layer_fusion import Layer, LayerFusion, fit_to
from fastretrieve.encoders.blocks.networks import ConvPyramid, grid_pool
from fastretrieve.encoders.protocol import Batch
from fastretrieve.encoders.saved.files import read_encoder

Form: TypeAlias = Literal["fused", "code"]
CODE = "code"


class FusedEncoder(TorchEncoder):
    """A ``TorchEncoder`` with a ``body`` and a code; ``make_fusion`` ends its constructor."""

    body: ConvPyramid
    fusion: LayerFusion | None

    def code_of(self, maps: torch.Tensor) -> torch.Tensor:
        """The code [n, code_dim] from the body's last maps, with gradients. To be written."""
        raise NotImplementedError

    @classmethod
    def load(cls: type[Self], directory: str | Path, *, device: str = "cpu") -> Self:
        """Read back what ``save`` wrote; a config that names no form is of the form "code"."""
        saved = read_encoder(directory)
        return restored(saved, lambda: cls(**{"form": "code", **saved.config}), cls).to(device)

    def make_fusion(self, form: Form, *, code_dim: int) -> None:
        """Make the fusion of a form."""
        if form not in ("fused", "code"):
            raise ValueError(f'form must be "fused" or "code", got {form!r}')
        last = len(self.body.stages)
        layers = {
            f"stage{i}": Layer(stage.width * _grid(i == last) ** 2)
            for i, stage in enumerate(self.body.stages, start=1)
        }
        self.fusion = None
        if form == "fused":
            self.fusion = LayerFusion({**layers, CODE: Layer(code_dim)}, self.dim)

    def code(self, images: Batch) -> torch.Tensor:
        """The code of images that are on the device, with gradients."""
        return self.code_of(self.body(images))

    def embed(self, batch: Batch) -> torch.Tensor:
        if self.fusion is None:
            return self.code(batch)
        vectors: torch.Tensor = self.fusion(self._layers(batch))
        return vectors

    def layers(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The maps after each halving, averaged over a 2 x 2 grid, the last one over all; the code
        beside them, where it is fused with them.
        """
        with self.evaluating():
            found = self._layers(self.on_device(batch))
        if self.fusion is None:
            del found[CODE]
        return {name: features.float() for name, features in found.items()}

    def after_training(self, batches: Iterable[Batch]) -> None:
        """Fit the fusion to a sample of the training data."""
        if self.fusion is not None:
            with self.evaluating():
                fit_to(self.fusion, (self.on_device(batch) for batch in batches), self._layers)

    def _layers(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.body.all_maps(images)
        pooled = [grid_pool(each, _grid(each is maps[-1])) for each in maps]
        named: Mapping[str, Any] = {f"stage{i}": each for i, each in enumerate(pooled, start=1)}
        return {**named, CODE: self.code_of(maps[-1])}


def _grid(is_last: bool) -> int:
    return 1 if is_last else 2
