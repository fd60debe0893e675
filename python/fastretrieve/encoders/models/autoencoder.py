"""``autoencoder``: the vector is the bottleneck through which an image is rebuilt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve.encoders.base import UNSAVED_BYTES, TorchEncoder, arguments, seeded
from fastretrieve.encoders.blocks.decoding import OF_OLD_FILES, Form, make_decoder
from fastretrieve.encoders.blocks.networks import ConvPyramid, checked_size, initialise
from fastretrieve.encoders.blocks.recipe import Recipe
from fastretrieve.encoders.blocks.reduction import Reduction
from fastretrieve.encoders.protocol import Batch, Figure


class AutoencoderEncoder(TorchEncoder):
    """A convolutional encoder and decoder with ``dim`` numbers between them.

    ``reconstruction`` is "bce" (which minds faint detail, too) or "mse". ``noise`` is the standard
    deviation of what is added to the pixels that the encoder sees while training; the decoder
    must rebuild the clean image.

    The vector is the bottleneck seen from the middle of the data, turned to its principal axes and
    half whitened, which ``after_training`` fits: what a decoder can use says nothing about how the
    coordinates compare, and a search by cosine needs that.

    >>> encoder = AutoencoderEncoder(dim=8, image_size=16, channels=1, width=8)
    >>> batch = encoder.preprocess([torch.rand(1, 16, 16)])
    >>> encoder.reconstruct(batch).shape
    torch.Size([1, 1, 16, 16])
    """

    name = "autoencoder"
    capabilities = frozenset({"trainable", "reconstruct"})
    unsaved_bytes = UNSAVED_BYTES
    unnamed_options = OF_OLD_FILES
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
        decoder: Form = "upsampled",
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
            self.reduction = Reduction(dim, dim, whiten=0.5)

    def embed(self, batch: Batch) -> torch.Tensor:
        vectors: torch.Tensor = self.reduction(self._code(batch))
        return vectors

    def loss(self, batch: Batch, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """The mean error of a rebuilt pixel."""
        images = self.on_device(batch)
        seen = images + self.noise * torch.randn_like(images) if self.noise else images
        logits = self.decoder(self._code(seen)).float()
        if self.reconstruction == "bce":
            return {"loss": F.binary_cross_entropy_with_logits(logits, images)}
        return {"loss": F.mse_loss(logits.sigmoid(), images)}

    def reconstruct(self, batch: Batch) -> torch.Tensor:
        """The images as they come back through the bottleneck, in [0, 1]."""
        with self.evaluating():
            rebuilt: torch.Tensor = (
                self.decoder(self._code(self.on_device(batch))).float().sigmoid()
            )
            return rebuilt

    def after_training(self, batches: Iterable[Batch]) -> None:
        """Fit the axes of the vector to a sample of the training data."""
        with self.evaluating():
            codes = [self._code(self.on_device(batch)).float().cpu() for batch in batches]
            self.reduction.fit(torch.cat(codes))

    def _code(self, images: torch.Tensor) -> torch.Tensor:
        """The codes from which the decoder rebuilds the images."""
        code: torch.Tensor = self.standardise(self.narrow(self.body(images).flatten(1)))
        return code
