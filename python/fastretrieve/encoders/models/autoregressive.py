"""``autoregressive``: a PixelCNN; the vector is made of its middle features.

Each pixel is predicted from those above it and to its left, so the network is a density: it has
an exact log-likelihood, and draws images pixel by pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve.data.images import Size
from fastretrieve.encoders.base import UNSAVED_BYTES, TorchEncoder, arguments, seeded
from fastretrieve.encoders.blocks.mixture import LogisticMixture, to_levels
from fastretrieve.encoders.blocks.networks import checked_size, grid_pool, initialise
from fastretrieve.encoders.blocks.recipe import Recipe
from fastretrieve.encoders.blocks.reduction import Reduction
from fastretrieve.encoders.protocol import Batch, Figure

LARGEST_SIDE = 32  # drawing takes one pass a pixel, so a density of bigger images is out of reach
GRID = 4  # cells a side over which features are averaged
WHITEN = 1.0  # most of their spread is brightness, which tells little of what is shown
_FIRST_KERNEL = 7


class MaskedConv2d(nn.Conv2d):
    """A convolution that sees what comes before its pixel in reading order, itself if asked."""

    mask: torch.Tensor

    def __init__(self, n_in: int, n_out: int, kernel: int, *, sees_itself: bool) -> None:
        super().__init__(n_in, n_out, kernel, padding=kernel // 2)
        mask = torch.ones(kernel, kernel)
        mask[kernel // 2, kernel // 2 + sees_itself :] = 0
        mask[kernel // 2 + 1 :] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return F.conv2d(maps, self.weight * self.mask, self.bias, padding=self.padding)


class CausalBlock(nn.Module):
    """PixelCNN's residual block: narrow, look around, widen, add."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(width, width // 2, 1)
        self.look = MaskedConv2d(width // 2, width // 2, 3, sees_itself=True)
        self.widen = nn.Conv2d(width // 2, width, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        inner = self.look(F.relu(self.narrow(F.relu(maps))))
        return maps + self.widen(F.relu(inner))  # type: ignore[no-any-return]


class AutoregressiveEncoder(TorchEncoder):
    """Masked convolutions and a mixture of discretised logistics over 256 levels.

    Images with a side over 32 are averaged down to that: the density is of the smaller image, and
    ``generate`` enlarges what it draws. The vector: features after the middle block and how much
    they change from pixel to pixel, averaged over a 4 x 4 grid, reduced by whitened principal
    components that ``after_training`` fits.

    >>> model = AutoregressiveEncoder(dim=8, image_size=8, channels=1, width=8, blocks=2)
    >>> model.generate(2, seed=1).shape
    torch.Size([2, 1, 8, 8])
    """

    name = "autoregressive"
    capabilities = frozenset({"trainable", "generate", "layers"})
    unsaved_bytes = UNSAVED_BYTES
    progress_figure = Figure("bits_per_dim", "lower")
    recipe = Recipe(lr=3e-3, batch_size=64)
    augmentable = False  # the density of changed images is another one

    def __init__(
        self,
        *,
        dim: int = 64,
        image_size: int | Sequence[int] = 32,
        channels: int = 3,
        blocks: int = 6,
        mixture: int = 5,
        width: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(dim=dim, config=arguments(locals()))
        if blocks < 2 or width < 2 or mixture < 1:
            raise ValueError(
                "blocks and width must be at least 2 and mixture at least 1, got "
                f"blocks={blocks}, width={width}, mixture={mixture}"
            )
        self.components = mixture
        self.inner_size = _inner_size(checked_size(self.image_size))
        with seeded(seed):
            self.first = MaskedConv2d(self.channels, width, _FIRST_KERNEL, sees_itself=False)
            self.blocks = nn.ModuleList(CausalBlock(width) for _ in range(blocks))
            n_out = LogisticMixture.n_outputs(channels=self.channels, components=mixture)
            self.out = nn.Sequential(
                nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, n_out, 1)
            )
            initialise(self)
            self._start_quietly()
            self.reduction = Reduction(2 * width * GRID**2, dim, whiten=WHITEN)

    def embed(self, batch: Batch) -> torch.Tensor:
        reduced: torch.Tensor = self.reduction(self._pooled(batch))
        return reduced

    def loss(self, batch: Batch, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Nats an image to minimise, and the same as bits a pixel value."""
        nats = -self._log_likelihood(self.on_device(batch)).mean()
        return {"loss": nats / self._n_values, "bits_per_dim": nats / self._n_values / math.log(2)}

    def log_likelihood(self, batch: Batch) -> torch.Tensor:
        """The exact log-likelihood of each image (at its inner size), in nats: [n]."""
        with self.evaluating():
            return self._log_likelihood(self.on_device(batch))

    def bits_per_dim(self, batch: Batch) -> torch.Tensor:
        """Bits needed for each pixel value of each image: [n]; 8 needs no model."""
        return -self.log_likelihood(batch) / self._n_values / math.log(2)

    def layers(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The features after each block, averaged over the grid."""
        with self.evaluating():
            maps = self._maps(self._levels(self.on_device(batch)))
            return {f"block{i}": grid_pool(m, GRID).float() for i, m in enumerate(maps[1:], 1)}

    def after_training(self, batches: Iterable[Batch]) -> None:
        """Fit the reduction to the features of a sample of the training data."""
        with self.evaluating():
            self.reduction.fit(torch.cat([self._pooled(self.on_device(b)).cpu() for b in batches]))

    def generate(self, n: int, seed: int = 0) -> torch.Tensor:
        """Draw ``n`` images pixel by pixel."""
        generator = torch.Generator().manual_seed(seed)
        height, width = self.inner_size
        images = torch.zeros(n, self.channels, height, width, device=self.device)
        with self.evaluating():
            for y in range(height):
                for x in range(width):
                    images[:, :, y, x] = self._draw_pixel(images, y, x, generator)
            drawn = (images + 1) / 2
            if self.inner_size != self.image_size:
                drawn = F.interpolate(drawn, self.image_size, mode="bilinear", antialias=True)
            return drawn

    def _draw_pixel(
        self, images: torch.Tensor, y: int, x: int, generator: torch.Generator
    ) -> torch.Tensor:
        """One pixel of every image, from the part that it can see: [n, channels]."""
        reach = _FIRST_KERNEL // 2 + len(self.blocks)
        top, left = max(0, y - reach), max(0, x - reach)
        seen = images[:, :, top : y + 1, left : x + reach + 1]
        outputs = self.out(self._maps(seen)[-1])[:, :, y - top, x - left]
        return self._mixture(outputs[:, :, None, None]).sample(generator)[:, :, 0, 0]

    def _log_likelihood(self, images: torch.Tensor) -> torch.Tensor:
        levels = self._levels(images)
        outputs = self.out(self._maps(levels)[-1])
        return self._mixture(outputs).log_likelihood(levels).flatten(1).sum(1)

    def _maps(self, levels: torch.Tensor) -> list[torch.Tensor]:
        maps = [self.first(levels.contiguous(memory_format=torch.channels_last))]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps

    def _pooled(self, images: torch.Tensor) -> torch.Tensor:
        middle = self._maps(self._levels(images))[len(self.blocks) // 2]
        return torch.cat([grid_pool(middle, GRID), grid_pool(_changes(middle), GRID)], 1)

    def _levels(self, images: torch.Tensor) -> torch.Tensor:
        if self.inner_size != self.image_size:
            images = F.adaptive_avg_pool2d(images, self.inner_size)
        return to_levels(images)

    def _mixture(self, outputs: torch.Tensor) -> LogisticMixture:
        return LogisticMixture(outputs, channels=self.channels, components=self.components)

    @property
    def _n_values(self) -> int:
        return self.channels * self.inner_size[0] * self.inner_size[1]

    def _start_quietly(self) -> None:
        """Blocks begin near the identity and the mixture spread over the grey levels."""
        for block in self.blocks:
            assert isinstance(block, CausalBlock)
            block.widen.weight.data.mul_(0.3)
        last = self.out[-1]
        assert isinstance(last, nn.Conv2d)
        last.weight.data.mul_(0.1)
        parts = last.bias.data[self.components :].view(self.components, -1)  # type: ignore[union-attr]
        parts[:, : self.channels] = torch.linspace(-0.9, 0.9, self.components)[:, None]
        parts[:, self.channels : 2 * self.channels] = -2.0


def _changes(maps: torch.Tensor) -> torch.Tensor:
    """How much each value differs from the ones to the right and below."""
    across = F.pad(maps.diff(dim=3).abs(), (0, 1))
    down = F.pad(maps.diff(dim=2).abs(), (0, 0, 0, 1))
    return across + down


def _inner_size(size: Size) -> Size:
    """The size of which the density is: no side over ``LARGEST_SIDE``, the shape kept."""
    shrink = min(1.0, LARGEST_SIDE / max(size))
    return max(round(size[0] * shrink), 8), max(round(size[1] * shrink), 8)
