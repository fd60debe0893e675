"""How alike two images look to the first layers of ``pretrained``.

The network is no part of the encoder that learns from it: it is neither saved nor needed to load.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

N_BLOCKS = 5  # of pretrained that are looked at, after its stem: edges, patterns, small shapes
LEAST_SIDE, MOST_SIDE = 32, 64
_NATS = 0.5  # of a squared difference of normalised features: that of a normal density


class Perception:
    """Early layers of ``pretrained``; not a torch module, so that no encoder saves it."""

    def __init__(self, network: Any) -> None:
        """``network`` is a ``PretrainedEncoder``."""
        self.network = network.requires_grad_(False)
        self.device = torch.device("cpu")

    def __call__(self, drawn: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """The mean distance of a drawn image to its original, as a sum over pixels."""
        with torch.no_grad():
            wanted = self.maps(real)
        # A pixel of a small map counts as much as the pixels of the image that it stands for.
        return map_distance(self.maps(drawn), wanted) * real[0].numel()

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return find_perception, ()  # an encoder travels without these weights

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The maps after the stem and each block, with gradients."""
        if images.device != self.device:
            self.network.to(images.device)
            self.device = images.device
        network = self.network
        images = _fitting(images).expand(-1, 3, -1, -1)
        maps = [F.relu6(network.stem(images * (255 / 128) - 127 / 128))]
        for block in list(network.blocks)[:N_BLOCKS]:
            maps.append(block(maps[-1]))
        return maps


def map_distance(drawn: Sequence[torch.Tensor], real: Sequence[torch.Tensor]) -> torch.Tensor:
    """How far maps of images are from those of their originals: a mean, summed over the maps."""
    total = torch.zeros((), device=drawn[0].device)
    for mine, theirs in zip(drawn, real, strict=True):
        mine, theirs = mine.float(), theirs.float()  # in bfloat16 small differences would be lost
        spread = theirs.var((0, 2, 3), keepdim=True) + 1e-4
        total = total + _NATS * ((mine - theirs).square() / spread).mean()
    return total


def find_perception() -> Perception | None:
    """The layers, or None where the package with the weights is not installed."""
    from fastretrieve.encoders.models.pretrained import PACKAGE, PretrainedEncoder

    if importlib.util.find_spec(PACKAGE) is None:
        return None
    return Perception(PretrainedEncoder())


def _fitting(images: torch.Tensor) -> torch.Tensor:
    """The images at a size that early layers can look at and that costs little."""
    side = max(images.shape[2:])
    scale = LEAST_SIDE / side if side < LEAST_SIDE else min(MOST_SIDE / side, 1.0)
    if scale == 1.0:
        return images
    size = [max(round(n * scale), 1) for n in images.shape[2:]]
    return F.interpolate(images, size=size, mode="bilinear", antialias=scale < 1)
