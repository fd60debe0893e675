"""The networks of ``translator``: one repaints pictures, the other tells them from real ones."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve.data.images import Size
from fastretrieve.encoders.blocks.decoding import UpConv
from fastretrieve.encoders.blocks.networks import centred, halved, initialise
from fastretrieve.encoders.blocks.spectral import SpectralConv2d

_GROUP = 8  # channels whose mean and spread are taken together, in one picture
_GLANCE = 16  # pixels a side at which a picture is looked at to frame it
_ZOOM, _SHIFT = 0.7, 0.5  # at most: twice as large or half, by a quarter of the side
_SHARPNESS = 5.0  # of a score, which spectral norms keep below the hinge's margin of 1


class Painting(NamedTuple):
    """What a ``Repainter`` makes of pictures."""

    images: torch.Tensor  # [n, channels, height, width] in [0, 1]
    middle: torch.Tensor  # its innermost maps


class Framing(nn.Module):
    """Zooms and moves a picture, by as much as the picture itself says; at first not at all.

    Styles often differ in how much of the frame a thing fills. Paint alone would have to blow
    it up stroke by stroke.
    """

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        widths = (channels, width, 2 * width)
        self.look = nn.Sequential(
            *(
                _normed(nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False))
                for n_in, n_out in pairwise(widths)
            )
        )
        self.place = nn.Linear(2 * width * (_GLANCE // 4) ** 2, 4)

    def start(self) -> None:
        """Begin with the picture as it is; call it once the weights are initialised."""
        nn.init.zeros_(self.place.weight)
        nn.init.zeros_(self.place.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Where the new frames lie: affine maps [n, 2, 3]."""
        seen = self.look(F.adaptive_avg_pool2d(centred(images), _GLANCE))
        zoom, shift = self.place(seen.flatten(1)).float().tanh().split(2, dim=1)
        return torch.cat([torch.diag_embed((_ZOOM * zoom).exp()), _SHIFT * shift[:, :, None]], 2)


def framed(images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Pictures of any size in new frames; what lies beyond an old one repeats its border."""
    grid = F.affine_grid(places, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


class Repainter(nn.Module):
    """Picture to picture: a new frame, new colours, and how much of them each pixel takes.

    The rest of a pixel stays. So a picture that needs no change passes whole, lines and all.
    Norms are over a picture alone: what becomes of one does not depend on its batch.
    """

    def __init__(self, channels: int, size: Size, *, width: int, n_residual: int = 3) -> None:
        super().__init__()
        widths = (channels, width, 2 * width, 4 * width)
        self.down = nn.ModuleList(
            _normed(nn.Conv2d(n_in, n_out, 3, stride=1 + (i > 0), padding=1, bias=False))
            for i, (n_in, n_out) in enumerate(pairwise(widths))
        )
        self.middle = nn.Sequential(*(_Residual(4 * width) for _ in range(n_residual)))
        self.up = nn.ModuleList(
            _normed(UpConv(2 * n_out, n_out, step))
            for n_out, step in ((2 * width, halved(size)), (width, size))
        )
        self.last = nn.Conv2d(width, channels + 1, 3, padding=1)
        self.framing = Framing(channels, width=width)
        initialise(self)
        self.framing.start()

    def paint(self, images: torch.Tensor) -> Painting:
        """The repainted pictures, and the maps in the middle."""
        return self._painted(framed(images, self.framing(images)))

    def paint_whole(self, images: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """``whole``, the same pictures larger, repainted at their size: in the frames of the small
        ones and changed as these, which leaves fine lines where little changes.
        """
        places = self.framing(images)
        small = framed(images, places)
        change = self._painted(small).images - small
        grown = F.interpolate(change, size=whole.shape[2:], mode="bilinear", align_corners=False)
        return (framed(whole, places) + grown).clamp(0, 1)

    def _painted(self, images: torch.Tensor) -> Painting:
        maps = [centred(images)]
        for block in self.down:
            maps.append(block(maps[-1]))
        grown = inner = self.middle(maps[3])
        for block, beside in zip(self.up, (maps[2], maps[1]), strict=True):
            grown = block(grown) + beside
        drawn = self.last(grown).float().sigmoid()
        colours, share = drawn[:, :-1], drawn[:, -1:]
        return Painting(images + share * (colours - images), inner)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.paint(images).images


class _Residual(nn.Module):
    """The input plus what two convolutions make of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _normed(nn.Conv2d(width, width, 3, padding=1, bias=False))
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = _norm(width)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps + self.norm(self.second(self.first(maps)))  # type: ignore[no-any-return]


class PatchCritic(nn.Module):
    """How real each patch of a picture looks; spectral norms bound its slope."""

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        widths = (channels, width, 2 * width, 4 * width)
        self.blocks = nn.ModuleList(
            SpectralConv2d(n_in, n_out, 4, stride=2, padding=1) for n_in, n_out in pairwise(widths)
        )
        self.score = SpectralConv2d(4 * width, 1, 3, padding=1)
        initialise(self)
        for layer in (*self.blocks, self.score):
            cast(SpectralConv2d, layer).start()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores [n, 1, ...] of patches, and the maps that they come from."""
        maps = centred(images)
        for block in self.blocks:
            height, width = maps.shape[2:]
            maps = F.leaky_relu(block(F.pad(maps, (0, width % 2, 0, height % 2))), 0.2)
        return _SHARPNESS * self.score(maps).float(), maps


def _norm(width: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(width, max(width // _GROUP, 1)), width)


def _normed(layer: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(layer, _norm(layer.out_channels), nn.ReLU(inplace=True))
