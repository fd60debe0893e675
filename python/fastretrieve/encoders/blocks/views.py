"""Changed views of a batch of images: random crops, mirror images, brightness, contrast, colour.

``fr.train`` shows a network mildly changed images, so that it does not learn them by heart; the
contrastive losses compare two strongly changed views of each image. Random numbers come from
torch's global state, which ``fr.train`` seeds at every step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F


class Views(NamedTuple):
    """What may change, and how far."""

    crop: float = 0.0  # the smallest share of each side that stays; 1 only shifts nothing, 0 is off
    shift: float = 0.0  # the largest shift, as a share of the side
    flip: bool = False  # mirror half of the images left to right
    colour: float = 0.0  # strength of brightness, contrast and, for RGB, saturation
    hue: float = 0.0  # the largest turn of the hues of RGB, as a share of half the circle
    grey: float = 0.0  # share of RGB images that lose their colours

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return changed images, each another way; the batch stays as it is."""
        if self.crop or self.shift or self.flip:
            images = _moved(images, self)
        if images.shape[1] == 3 and (self.hue or self.grey):
            images = _turned(images, self)
        return _recoloured(images, self.colour) if self.colour else images


MILD = Views(shift=0.08, flip=True, colour=0.1)
# If views kept their colours, a network would match them by colour and learn no shapes.
STRONG = Views(crop=0.5, flip=True, colour=0.4, hue=0.4, grey=0.2)


def whole_shifts(images: torch.Tensor, views: Views) -> torch.Tensor:
    """Images shifted by whole pixels, the border repeated, then recoloured.

    Nothing is interpolated: a fraction of a pixel would blur away what a discriminator must see.
    """
    n, device = len(images), images.device
    height, width = images.shape[2:]

    def places(side: int) -> torch.Tensor:
        most = int(views.shift * side)
        shifts = torch.randint(-most, most + 1, (n, 1), device=device)
        return (torch.arange(side, device=device) + shifts).clamp(0, side - 1)

    rows, columns = places(height), places(width)
    if views.flip:
        mirrored = torch.rand(n, 1, device=device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    each = torch.arange(n, device=device)[:, None, None]
    # Indices on both sides of a slice put the slice last: [n, h, w, c].
    moved = images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return _recoloured(moved, views.colour) if views.colour else moved


def _moved(images: torch.Tensor, views: Views) -> torch.Tensor:
    n, device = len(images), images.device
    smallest = views.crop or 1.0
    scale = smallest + (1 - smallest) * torch.rand(n, 2, device=device)  # of width and height
    room = (1 - scale) + 2 * views.shift
    mirrored = torch.rand(n, device=device) < 0.5 * views.flip
    affine = torch.zeros(n, 2, 3, device=device)
    affine[:, 0, 0] = torch.where(mirrored, -scale[:, 0], scale[:, 0])
    affine[:, 1, 1] = scale[:, 1]
    affine[:, :, 2] = (2 * torch.rand(n, 2, device=device) - 1) * room
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def _turned(images: torch.Tensor, views: Views) -> torch.Tensor:
    """Hues turned about the axis of greys; some images are left with their greys alone."""
    n, device = len(images), images.device
    angle = math.pi * views.hue * (2 * torch.rand(n, device=device) - 1)
    keep = (torch.rand(n, device=device) >= views.grey).to(images.dtype)
    # A turn about (1, 1, 1): each channel is a mixture of all three, the same after each shift.
    shifts = torch.tensor([0.0, 2.0, 4.0], device=device) * math.pi / 3
    mixture = 2 / 3 * torch.cos(angle[:, None] + shifts) * keep[:, None] + 1 / 3
    a, b, c = mixture.unbind(1)
    turn = torch.stack([a, b, c, c, a, b, b, c, a], 1).view(n, 3, 3).to(images.dtype)
    return torch.einsum("nij,njhw->nihw", turn, images).clamp(0, 1)


def _recoloured(images: torch.Tensor, strength: float) -> torch.Tensor:
    def factor() -> torch.Tensor:
        return 1 + strength * (2 * torch.rand(len(images), 1, 1, 1, device=images.device) - 1)

    if images.shape[1] == 3:
        grey = images.mean(1, keepdim=True)
        images = grey + (images - grey) * factor()
    middle = images.mean((1, 2, 3), keepdim=True)
    images = middle + (images - middle) * factor()
    return (images * factor()).clamp(0, 1)
