"""The blocks that the convolutional encoders are built of, for any image of 8 to 512 pixels.

A network adapts by its *plan*: the sizes of the maps from the image down to a few pixels a side.
Big images are first halved by cheap narrow steps until a side is at most ``FULL_WIDTH_SIDE``;
from there the width doubles at each halving. So the cost grows with the area of the image, and the
number of weights hardly at all.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve.data.images import Size

MIN_SIDE, MAX_SIDE = 8, 512
FULL_WIDTH_SIDE = 32  # the largest side at which dense convolutions of full width are affordable
SMALLEST_SIDE = 4  # where halving stops


class Stage(NamedTuple):
    """One step of a plan: the maps that it makes."""

    size: Size  # height, width
    width: int  # channels


def checked_size(size: Size) -> Size:
    """The size, if the networks can be built for it."""
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise ValueError(
            f"image_size must lie between {MIN_SIDE} and {MAX_SIDE} pixels a side, got "
            f"{size[0]} x {size[1]}; images are resized to it, so choose one in that range"
        )
    return size


def halved(size: Size) -> Size:
    """The size after a convolution of stride 2 with padding: halves, rounded up."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def plan_stages(
    size: Size, *, width: int, max_width: int, smallest: int = SMALLEST_SIDE
) -> list[Stage]:
    """The maps below an image of ``size``, each half the one before, down to ``smallest`` pixels.

    >>> [(*stage.size, stage.width) for stage in plan_stages((28, 28), width=32, max_width=128)]
    [(14, 14, 64), (7, 7, 128), (4, 4, 128)]
    >>> [(*stage.size, stage.width) for stage in plan_stages((96, 64), width=32, max_width=128)]
    [(48, 32, 32), (24, 16, 32), (12, 8, 64), (6, 4, 128), (3, 2, 128)]
    """
    stages, current, channels = [], size, width
    while max(current) > smallest:
        current = halved(current)
        if max(current) <= FULL_WIDTH_SIDE // 2:
            channels = min(2 * channels, max_width)
        stages.append(Stage(current, channels))
    return stages


def conv_block(n_in: int, n_out: int, *, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """The input plus a convolution of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = conv_block(width, width)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps + self.block(maps)  # type: ignore[no-any-return]


class ConvPyramid(nn.Module):
    """Image to maps: a first convolution, then one strided and one residual block a stage."""

    def __init__(self, channels: int, size: Size, *, width: int, max_width: int) -> None:
        super().__init__()
        self.size = size
        self.stages = plan_stages(size, width=width, max_width=max_width)
        # On a big image the first convolution would cost more than all others together.
        first = width if max(size) <= FULL_WIDTH_SIDE else min(width, 16)
        self.first = conv_block(channels, first)
        widths = [first, *(stage.width for stage in self.stages)]
        self.blocks = nn.ModuleList(
            nn.Sequential(conv_block(n_in, n_out, stride=2), Residual(n_out))
            for n_in, n_out in pairwise(widths)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.all_maps(images)[-1]

    def all_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The maps after each stage, largest first."""
        maps = [self.first(centred(images))]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps[1:]

    def edges(self, stage: int) -> list[torch.Tensor]:
        """The edges of the places of a stage's maps, as shares of height and width."""
        step = 2**stage  # kernels of 3, padded by 1: a place is centred on every second below
        return [
            place_edges(n, side, first=0.5, step=step)
            for n, side in zip(self.stages[stage - 1].size, self.size, strict=True)
        ]

    @property
    def last(self) -> Stage:
        """The last maps."""
        return self.stages[-1]


def centred(images: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1] as the networks take them: in [-1, 1], channels last in memory."""
    return (images * 2 - 1).contiguous(memory_format=torch.channels_last)


def place_edges(n: int, side: int, *, first: float, step: float) -> torch.Tensor:
    """The edges of ``n`` places of a map, as shares of an image's side: half way between their
    centres, which lie ``step`` pixels apart, and the ends of the image.

    >>> (28 * place_edges(4, 28, first=0.5, step=8)).tolist()
    [0.0, 4.5, 12.5, 20.5, 28.0]
    """
    inner = first + step * (torch.arange(1, n, dtype=torch.float64) - 0.5)
    ends = torch.tensor([0.0, side], dtype=torch.float64)
    return torch.cat([ends[:1], inner.clamp(0, side), ends[1:]]) / side


def unit_rows(vectors: torch.Tensor) -> torch.Tensor:
    """Each row divided by its length; a zero row stays zero."""
    return F.normalize(vectors, dim=1)


def grid_pool(maps: torch.Tensor, grid: int) -> torch.Tensor:
    """The mean of each cell of a ``grid`` x ``grid`` division, flattened: [n, width * grid^2]."""
    return F.adaptive_avg_pool2d(maps, grid).flatten(1)


def initialise(module: nn.Module) -> None:
    """He initialisation for everything that a ReLU follows, orthogonal for what is linear."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.orthogonal_(part.weight)
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and part.bias is not None:
            nn.init.zeros_(part.bias)
