"""The discriminator of ``gan``, how it rebuilds an image from its last maps, and how far the
features of drawn images are from those of real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve.data.images import Size
from fastretrieve.encoders.blocks.decoding import UpConv
from fastretrieve.encoders.blocks.networks import (
    Stage,
    centred,
    initialise,
    place_edges,
    plan_stages,
)
from fastretrieve.encoders.blocks.spectral import SpectralConv2d, SpectralLinear

_SHARPNESS = 5.0  # of the score, which spectral norms keep below the hinge's margin of 1
_REBUILDING = 10.0  # weight of the error of a rebuilt pixel


class Discriminator(nn.Module):
    """Strided convolutions, a score, and a projection in which views are compared."""

    def __init__(self, channels: int, size: Size, *, width: int, rebuilds: bool) -> None:
        super().__init__()
        self.size = size
        stages = plan_stages(size, width=max(width // 2, 1), max_width=4 * width)
        widths = [channels, *(stage.width for stage in stages)]
        self.widths = widths[1:]
        self.blocks = nn.ModuleList(
            SpectralConv2d(n_in, n_out, 4, stride=2, padding=1) for n_in, n_out in pairwise(widths)
        )
        height, width_ = stages[-1].size
        self.n_features = widths[-1] * height * width_
        self.score = SpectralLinear(self.n_features, 1)
        self.compare = nn.Sequential(nn.Linear(self.n_features, 128), nn.ReLU(), nn.Linear(128, 64))
        self.rebuild = Rebuilder(channels, stages) if rebuilds else None
        initialise(self)
        for layer in (*self.blocks, self.score):
            cast(SpectralConv2d | SpectralLinear, layer).start()

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The maps after each convolution, largest first."""
        found = [centred(images)]
        for block in self.blocks:
            height, width = found[-1].shape[2:]
            even = F.pad(found[-1], (0, width % 2, 0, height % 2))
            found.append(F.leaky_relu(block(even), 0.2))
        return found[1:]

    def edges(self, maps: torch.Tensor) -> list[torch.Tensor]:
        """The edges of the places of some of the maps, as shares of height and width."""
        edges = []
        for n, side in zip(maps.shape[2:], self.size, strict=True):
            step, below = 1, side
            while below > n:
                step, below = 2 * step, -(-below // 2)
            edges.append(place_edges(n, side, first=step / 2, step=step))  # kernels of 4
        return edges

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.maps(images)[-1].flatten(1)

    def rebuilding_error(self, maps: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """How far the images are from what the last maps tell of them."""
        if self.rebuild is None:
            return maps.new_zeros(())
        return _REBUILDING * self.rebuild(maps, images)  # type: ignore[no-any-return]

    def judge(self, features: torch.Tensor) -> torch.Tensor:
        """How real each image looks."""
        return _SHARPNESS * self.score(features).float()  # type: ignore[no-any-return]


class Rebuilder(nn.Module):
    """The image at half its size from the last maps, which must therefore describe all of it."""

    def __init__(self, channels: int, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.sizes = [stage.size for stage in reversed(stages)]
        widths = [stages[-1].width, *(max(32 >> i, 8) for i in range(len(stages) - 1))]
        self.steps = nn.ModuleList(
            UpConv(n_in, n_out, size)
            for (n_in, n_out), size in zip(pairwise(widths), self.sizes[1:], strict=True)
        )
        self.last = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, maps: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """The mean squared error of a pixel."""
        for step in self.steps:
            maps = F.leaky_relu(step(maps), 0.2)
        wanted = F.adaptive_avg_pool2d(images, self.sizes[-1])
        return F.mse_loss(self.last(maps).float().sigmoid(), wanted)


def matching_error(drawn: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """How far the mean and spread of drawn images' features are from those of real ones.

    It tells the generator where to go before the score does, and that one image is not enough.
    """
    drawn, real = drawn.float(), real.detach().float()
    wanted = spread_of(real)
    means = (drawn.mean(0) - real.mean(0)).square().mean()
    spreads = (spread_of(drawn) - wanted).square().mean()
    return (means + spreads) / wanted.square().mean()


def spread_of(features: torch.Tensor) -> torch.Tensor:
    """The standard deviation of each column; its gradient is finite where all rows are equal."""
    return (features.var(0, correction=0) + 1e-6).sqrt()
