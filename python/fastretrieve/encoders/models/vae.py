"""``vae``: a variational autoencoder, whose code is the mean of the posterior."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve.encoders.base import UNSAVED_BYTES, arguments, normal_noise, seeded
from fastretrieve.encoders.blocks.decoding import OF_OLD_FILES, DecoderForm, make_decoder
from fastretrieve.encoders.blocks.networks import ConvPyramid, checked_size, initialise
from fastretrieve.encoders.blocks.perception import Perception, find_perception
from fastretrieve.encoders.blocks.prior import PARTS, PARTS_OF_OLD_FILES, Prior
from fastretrieve.encoders.blocks.recipe import Recipe
from fastretrieve.encoders.blocks.shares import together
from fastretrieve.encoders.models.fused import CODE, Form, FusedEncoder
from fastretrieve.encoders.protocol import Batch, Figure

LOG_VARIANCE = "log variance"  # of the posterior, beside its mean, the code


class VaeEncoder(FusedEncoder):
    """A normal posterior over ``dim`` latents, a standard normal prior, Bernoulli pixels.

    The loss is the negative evidence lower bound (ELBO) in nats an image: reconstruction plus
    ``beta`` times the divergence of the posterior from the prior. ``beta`` of 1 is the bound
    itself; less keeps more detail in the vector, more gives smoother samples.

    >>> vae = VaeEncoder(dim=8, image_size=16, channels=1, width=8)
    >>> vae.generate(3, seed=1).shape
    torch.Size([3, 1, 16, 16])
    """

    name = "vae"
    capabilities = frozenset({"trainable", "reconstruct", "generate", "invert", "layers"})
    unsaved_bytes = UNSAVED_BYTES
    unnamed_options: ClassVar[Mapping[str, Any]] = {
        **FusedEncoder.unnamed_options,
        **OF_OLD_FILES,
        "perceptual": 0.0,
        "parts": PARTS_OF_OLD_FILES,
    }
    progress_figure = Figure("loss", "lower")
    recipe = Recipe(lr=2e-3, batch_size=64, steps=8000)
    augmentable = False  # the density of changed images is another one

    def __init__(
        self,
        *,
        dim: int = 64,
        image_size: int | Sequence[int] = 64,
        channels: int = 3,
        beta: float = 1.0,
        width: int = 16,
        seed: int = 0,
        decoder: DecoderForm = "upsampled",
        perceptual: float = 1.0,
        parts: int = PARTS,
        form: Form = "fused",
    ) -> None:
        super().__init__(dim=dim, config=arguments(locals()))
        if not beta > 0:
            raise ValueError(f"beta must be positive, got {beta}; 1 is the plain ELBO")
        if not perceptual >= 0:
            raise ValueError(f"perceptual is the weight of a loss, at least 0, got {perceptual}")
        self.beta, self.perceptual = beta, perceptual
        size = checked_size(self.image_size)
        with seeded(seed):
            self.body = ConvPyramid(self.channels, size, width=width, max_width=4 * width)
            (height, width_), maps = self.body.last
            self.posterior = nn.Linear(maps * height * width_, 2 * dim)
            self.decoder = make_decoder(decoder, dim, self.channels, size, self.body.stages)
            initialise(self)
            self.make_fusion(form, code_dim=dim)
        self.prior = Prior(dim, parts=parts) if decoder != "transposed" else None
        self._perception: Perception | None = None

    def code_of(self, maps: torch.Tensor) -> torch.Tensor:
        """The mean of the posterior."""
        return self._posterior_of(maps)[0]

    def codes_of(self, maps: torch.Tensor) -> dict[str, torch.Tensor]:
        mean, log_var = self._posterior_of(maps)
        return {CODE: mean, LOG_VARIANCE: log_var}

    def loss(self, batch: Batch, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Means over the batch, in nats an image."""
        images = self.on_device(batch)
        mean, log_var = self._posterior(images)
        latents = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        logits = self.decoder(latents)
        reconstruction = _negative_log_likelihood(logits, images).mean()
        divergence = _divergence(mean, log_var).mean()
        figures = {
            "loss": reconstruction + self.beta * divergence,
            "reconstruction": reconstruction,
            "divergence": divergence,
        }
        if self._perception is not None:
            some = max(len(images) // 2, 1)  # half of the batch, to save time
            seen = self._perception(logits[:some].float().sigmoid(), images[:some])
            figures["perceptual"] = seen
            figures["loss"] = figures["loss"] + self.perceptual * seen
        return figures

    def elbo(self, batch: Batch, *, samples: int = 1, seed: int = 0) -> torch.Tensor:
        """The bound on the log-likelihood of each image, in nats: [n]. ``beta`` does not enter."""
        images = self.on_device(batch)
        with self.evaluating():
            mean, log_var = self._posterior(images)
            noise = normal_noise((samples, *mean.shape), seed=seed).to(mean.device)
            errors = torch.stack(
                [
                    _negative_log_likelihood(self.decoder(mean + (0.5 * log_var).exp() * e), images)
                    for e in noise
                ]
            )
            return -errors.mean(0) - _divergence(mean, log_var)

    def reconstruct(self, batch: Batch) -> torch.Tensor:
        """The images decoded from their posterior means, in [0, 1]."""
        return self.draw(self.invert(batch))

    def generate(self, n: int, seed: int = 0) -> torch.Tensor:
        """Decode ``n`` draws from the latents' distribution, as fitted to the training data."""
        noise = normal_noise((n, self.dim), seed=seed)
        latents = noise if self.prior is None else self.prior.draw(noise, seed=seed)
        return self.draw(latents)

    def invert(self, batch: Batch) -> torch.Tensor:
        """The means of the posteriors: [n, dim]."""
        with self.evaluating():
            return self.code(self.on_device(batch))

    def draw(self, codes: torch.Tensor) -> torch.Tensor:
        """The images of these latents [n, dim], in [0, 1]."""
        with self.evaluating():
            return self._decode(codes.to(self.device))

    def before_training(self, batches: Iterable[Batch]) -> None:
        """Read ``pretrained``, which compares images in the loss, where its extra is installed."""
        self._perception = find_perception() if self.perceptual else None

    def after_training(self, batches: Iterable[Batch]) -> None:
        """Fit the vector, and the distribution that ``generate`` draws latents from."""
        seen = list(batches)
        super().after_training(seen)
        if self.prior is not None:
            self._fit_prior(together([self.parts_of(batch) for batch in seen]))

    def fit_parts(self, parts: Mapping[str, torch.Tensor]) -> None:
        super().fit_parts(parts)
        self._fit_prior(parts)

    def _fit_prior(self, parts: Mapping[str, torch.Tensor]) -> None:
        if self.prior is not None:
            self.prior.fit(parts[CODE], parts[LOG_VARIANCE])

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(latents).float().sigmoid()  # type: ignore[no-any-return]

    def _posterior(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._posterior_of(self.body(images))

    def _posterior_of(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_var = self.posterior(maps.flatten(1)).float().chunk(2, dim=1)
        return mean, log_var.clamp(-12, 8)  # exp stays finite while an untrained net still jumps


def _negative_log_likelihood(logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    errors = F.binary_cross_entropy_with_logits(logits.float(), images, reduction="none")
    return errors.flatten(1).sum(1)


def _divergence(mean: torch.Tensor, log_var: torch.Tensor) -> torch.Tensor:
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)
