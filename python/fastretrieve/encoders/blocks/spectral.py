"""Layers with a spectral norm: the weight is divided by its largest singular value.

Torch has this as a parametrization, but a module with one can be neither pickled nor copied, and
an encoder must be able to travel to a worker process.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class _PowerIteration(nn.Module):
    """Estimates the largest singular value, one step better at each training pass."""

    direction: torch.Tensor

    def __init__(self, weight: torch.Tensor, *, steps: int = 15) -> None:
        super().__init__()
        self.register_buffer("direction", F.normalize(torch.randn(len(weight)), dim=0))
        for _ in range(steps):
            self._improve(weight.detach().flatten(1))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight over its largest singular value."""
        matrix = weight.flatten(1)
        if self.training:
            self._improve(matrix.detach())
        with torch.no_grad():
            other = F.normalize(matrix.T @ self.direction, dim=0)
        # A clone: backward needs this direction, and the next pass writes a better one.
        largest = self.direction.clone() @ matrix @ other
        return weight / largest.clamp(min=1e-6)

    @torch.no_grad()
    def _improve(self, matrix: torch.Tensor) -> None:
        other = F.normalize(matrix.T @ self.direction, dim=0)
        self.direction.copy_(F.normalize(matrix @ other, dim=0))


class SpectralConv2d(nn.Conv2d):
    """A convolution with a spectral norm; call ``start`` once its weights are initialised."""

    def start(self) -> None:
        self.norm = _PowerIteration(self.weight)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return F.conv2d(maps, self.norm(self.weight), self.bias, self.stride, self.padding)


class SpectralLinear(nn.Linear):
    """A linear layer with a spectral norm; call ``start`` once its weights are initialised."""

    def start(self) -> None:
        self.norm = _PowerIteration(self.weight)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return F.linear(vectors, self.norm(self.weight), self.bias)
