"""``autoencoder``: the vector is the bottleneck through which an image is rebuilt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve.encoders.base import UNSAVED_BYTES, arguments, seeded
from fastretrieve.encoders.blocks.decoding import OF_OLD_FILES, DecoderForm, make_decoder
from fastretrieve.encoders.blocks.networks import ConvPyramid, checked_size, initialise
from fastretrieve.encoders.blocks.recipe import Recipe
from fastretrieve.encoders.blocks.reduction import Reduction
from fastretrieve.encoders.models.fused import Form, FusedEncoder
from fastretrieve.encoders.protocol import Batch, Figure


class AutoencoderEncoder(FusedEncoder):
    """A convolutional encoder and decoder with ``dim`` numbers between them.

    ``reconstruction`` is "bce" (which minds faint detail, too) or "mse". ``noise`` is the standard
    deviation of what is added to the pixels that the encoder sees while training; the decoder
    must rebuild the clean image.

    What a decoder can use says nothing about how the coordinates of the bottleneck compare, and a
    search by cosine needs that. So ``after_training`` lays the vector along principal axes, half
    whitened: those of the network's stages and of the bottleneck, fused.

    >>> encoder = AutoencoderEncoder(dim=8, image_size=16, channels=1, width=8)
    >>> batch = encoder.preprocess([torch.rand(1, 16, 16)])
    >>> encoder.reconstruct(batch).shape
    torch.Size([1, 1, 16, 16])
    """

    name = "autoencoder"
    capabilities = frozenset({"trainable", "reconstruct", "invert", "layers"})
    unsaved_bytes = UNSAVED_BYTES
    unnamed_options: ClassVar[Mapping[str, Any]] = {
        **FusedEncoder.unnamed_options,
        **OF_OLD_FILES,
    }
    progress_figure = Figure("loss", "lower")
    recipe = Recipe(lr=3e-3)
    augmentable = False  # it would learn to rebuild the changes

    def __init__(
        self,
        *,
        dim: int = 64,
        image_size: int | Sequence[int] = 64,
        channels: int = 3,
        reconstruction: Literal["mse", "bce"] = "bce",
        noise: float = 0.1,
        width: int = 16,
        seed: int = 0,
        decoder: DecoderForm = "upsampled",
        form: Form = "fused",
    ) -> None:
        super().__init__(dim=dim, config=arguments(locals()))
        if reconstruction not in ("mse", "bce"):
            raise ValueError(f'reconstruction must be "mse" or "bce", got {reconstruction!r}')
        if not noise >= 0:
            raise ValueError(f"noise is a standard deviation, at least 0, got {noise}")
        self.reconstruction, self.noise = reconstruction, noise
        size = checked_size(self.image_size)
        with seeded(seed):
            self.body = ConvPyramid(self.channels, size, width=width, max_width=4 * width)
            (height, width_), maps = self.body.last
            self.narrow = nn.Linear(maps * height * width_, dim)
            self.standardise = nn.BatchNorm1d(dim, affine=False)
            self.decoder = make_decoder(decoder, dim, self.channels, size, self.body.stages)
            initialise(self)
            self.make_fusion(form, code_dim=dim)
            self.reduction = Reduction(dim, dim, whiten=0.5) if form == "code" else None

    def code_of(self, maps: torch.Tensor) -> torch.Tensor:
        """What the decoder rebuilds images from."""
        code: torch.Tensor = self.standardise(self.narrow(maps.flatten(1)))
        return code

    def embed(self, batch: Batch) -> torch.Tensor:
        vectors = super().embed(batch)
        if self.reduction is not None:
            vectors = self.reduction(vectors)
        return vectors

    def loss(self, batch: Batch, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """The mean error of a rebuilt pixel."""
        images = self.on_device(batch)
        seen = images + self.noise * torch.randn_like(images) if self.noise else images
        logits = self.decoder(self.code(seen)).float()
        if self.reconstruction == "bce":
            return {"loss": F.binary_cross_entropy_with_logits(logits, images)}
        return {"loss": F.mse_loss(logits.sigmoid(), images)}

    def reconstruct(self, batch: Batch) -> torch.Tensor:
        """The images as they come back through the bottleneck, in [0, 1]."""
        return self.draw(self.invert(batch))

    def invert(self, batch: Batch) -> torch.Tensor:
        """The bottleneck [n, dim], whose columns are standardised."""
        with self.evaluating():
            return self.code(self.on_device(batch)).float()

    def draw(self, codes: torch.Tensor) -> torch.Tensor:
        """The images that the decoder makes of a bottleneck [n, dim], in [0, 1]."""
        with self.evaluating():
            drawn: torch.Tensor = self.decoder(codes.to(self.device)).float().sigmoid()
            return drawn

    def after_training(self, batches: Iterable[Batch]) -> None:
        """Fit the vector to a sample of the training data."""
        if self.reduction is None:
            super().after_training(batches)
            return
        with self.evaluating():
            codes = [self.code(self.on_device(batch)).float().cpu() for batch in batches]
            self.reduction.fit(torch.cat(codes))
