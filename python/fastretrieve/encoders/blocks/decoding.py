"""Vector to image, in three forms: by upsampling, smoothed or not, or by transposed convolutions.

A transposed convolution may give even and odd pixels different kernels, and drawn images then show
checkerboards. So new encoders double a map by repeating its pixels and convolve the larger map.
Repeated pixels leave fine stripes where few steps have trained a generator against a
discriminator, so ``gan`` also smooths each doubled map. Saved encoders name their form; files
without a name are of the old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve.data.images import Size
from fastretrieve.encoders.blocks.networks import FULL_WIDTH_SIDE, Stage

DecoderForm = Literal["smoothed", "upsampled", "transposed"]
OF_OLD_FILES: dict[str, DecoderForm] = {"decoder": "transposed"}
_LAST_WIDTH = 16  # of the maps at full size; half of it for big images


class UpConv(nn.Conv2d):
    """Double a map by repeating its pixels, then convolve by 3 x 3; a step of ``size`` pixels.

    Both are one transposed convolution, whose 4 x 4 kernel is the sum of four shifted 3 x 3 ones:
    the same numbers for less than half of the multiplications. ``smooths`` blurs the result, as if
    the map had been doubled by interpolation.
    """

    def __init__(self, n_in: int, n_out: int, size: Size, *, smooths: bool = False) -> None:
        super().__init__(n_in, n_out, 3, padding=1, bias=False)
        self.size, self.smooths = size, smooths

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        # Turned by half, since a transposed convolution runs its kernel backwards.
        kernel = self.weight.flip(2, 3).transpose(0, 1)
        grown = sum(F.pad(kernel, (i, 1 - i, j, 1 - j)) for i in (0, 1) for j in (0, 1))
        height, width = self.size
        doubled = F.conv_transpose2d(maps, grown, stride=2, padding=1)  # type: ignore[arg-type]
        if self.smooths:
            # By 1 2 1 each way, after the convolution, where there are fewer maps: the same but for
            # the border.
            padded = F.pad(doubled, (1, 1, 1, 1), mode="replicate")
            doubled = F.avg_pool2d(F.avg_pool2d(padded, 2, stride=1), 2, stride=1)
        return doubled[:, :, :height, :width]


class Excitation(nn.Module):
    """Weigh the channels of a large map by what a small map of the same image holds (FastGAN)."""

    def __init__(self, n_small: int, n_large: int) -> None:
        super().__init__()
        self.read = nn.Linear(n_small * 4, n_large)
        self.weigh = nn.Linear(n_large, n_large)

    def forward(self, small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
        summary = F.adaptive_avg_pool2d(small, 2).flatten(1)
        weights = torch.sigmoid(self.weigh(F.silu(self.read(summary))))
        return large * (2 * weights[:, :, None, None])


class UpsampledDecoder(nn.Module):
    """Vector to image: a linear layer to the smallest maps, then the way of ``plan_stages`` back.

    The last step keeps some channels at full size, which a plain convolution makes the image of.
    ``smooths`` is that of each ``UpConv``.
    """

    def __init__(
        self, dim: int, channels: int, size: Size, stages: Sequence[Stage], *, smooths: bool = False
    ) -> None:
        super().__init__()
        (self.height, self.width), self.maps = stages[-1]
        self.spread = nn.Linear(dim, self.maps * self.height * self.width, bias=False)
        self.norm = nn.BatchNorm2d(self.maps)
        big = max(size) > 2 * FULL_WIDTH_SIDE
        last = min(stages[0].width, _LAST_WIDTH // 2 if big else _LAST_WIDTH)
        widths = [*(stage.width for stage in reversed(stages)), last]
        sizes = [*(stage.size for stage in reversed(stages[:-1])), size]
        self.steps = nn.ModuleList(
            nn.Sequential(UpConv(n_in, n_out, step, smooths=smooths), nn.BatchNorm2d(n_out))
            for (n_in, n_out), step in zip(pairwise(widths), sizes, strict=True)
        )
        self.excitations = nn.ModuleList(Excitation(self.maps, width) for width in widths[1:])
        self.last = nn.Conv2d(last, channels, 3, padding=1)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the image before its sigmoid: logits, [n, channels, height, width]."""
        small = self.spread(vectors).view(-1, self.maps, self.height, self.width)
        small = torch.relu(self.norm(small.contiguous(memory_format=torch.channels_last)))
        maps = small
        for step, excitation in zip(self.steps, self.excitations, strict=True):
            maps = excitation(small, torch.relu(step(maps)))
        return self.last(maps)  # type: ignore[no-any-return]


class UpPyramid(nn.Module):
    """Maps to image: the way of ``plan_stages`` backwards, by transposed convolutions.

    A transposed convolution doubles a map; where a size is odd, its last row or column is cut.
    """

    def __init__(self, channels: int, size: Size, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.sizes = [stage.size for stage in reversed(stages[:-1])] + [size]
        widths = [stage.width for stage in reversed(stages)]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(inplace=True),
            )
            for n_in, n_out in pairwise(widths)
        )
        self.last = nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the image before its sigmoid: logits, [n, channels, height, width]."""
        for block, (height, width) in zip((*self.blocks, self.last), self.sizes, strict=True):
            maps = block(maps)[:, :, :height, :width]
        return maps


class TransposedDecoder(nn.Module):
    """Vector to image: a linear layer to the smallest maps, then an ``UpPyramid``."""

    def __init__(self, dim: int, channels: int, size: Size, stages: Sequence[Stage]) -> None:
        super().__init__()
        (self.height, self.width), self.maps = stages[-1]
        self.spread = nn.Linear(dim, self.maps * self.height * self.width, bias=False)
        self.norm = nn.BatchNorm2d(self.maps)
        self.up = UpPyramid(channels, size, stages)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        maps = self.spread(vectors).view(-1, self.maps, self.height, self.width)
        return self.up(torch.relu(self.norm(maps)))  # type: ignore[no-any-return]


def make_decoder(
    form: DecoderForm, dim: int, channels: int, size: Size, stages: Sequence[Stage]
) -> UpsampledDecoder | TransposedDecoder:
    """A decoder of vectors of ``dim`` to images of ``size``, in one of the three forms."""
    if form not in get_args(DecoderForm):
        raise ValueError(f'decoder must be "smoothed", "upsampled" or "transposed", got {form!r}')
    if form == "transposed":
        return TransposedDecoder(dim, channels, size, stages)
    return UpsampledDecoder(dim, channels, size, stages, smooths=form == "smoothed")
