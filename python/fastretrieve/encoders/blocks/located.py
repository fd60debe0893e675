"""Features of pictures as sums over positions, carried through everything that is linear.

A mean over positions is a sum of what each position adds. So are linear layers of it, and a row
divided by its length, once the length is known. ``Located`` holds these parts and the rest: a
constant, of biases and of means that are subtracted. A capability "parts" returns them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from fastretrieve.data.images import Size
from fastretrieve.encoders.blocks.reduction import Reduction

MOST_POSITIONS = 16  # a side: finer maps are summed, as nobody sees more in a heat map
_SMALLEST_LENGTH = 1e-12  # as torch's normalize has it


class Located(NamedTuple):
    """Rows of features, each the sum of its parts and its constant; in float64.

    >>> maps = torch.arange(8.0).view(1, 2, 2, 2)
    >>> row = located(maps, cells=1, grid=(2, 2))
    >>> row.parts.shape, row.total().tolist()  # the means of both channels
    (torch.Size([1, 2, 2, 2]), [[1.5, 5.5]])
    """

    parts: torch.Tensor  # [n, positions_y, positions_x, width]
    constant: torch.Tensor  # [n, width]

    def total(self) -> torch.Tensor:
        """The rows themselves."""
        return self.parts.sum((1, 2)) + self.constant

    def reduced(self, reduction: Reduction) -> Located:
        """The rows after a reduction."""
        axes = reduction.components.double().T
        return Located(self.parts @ axes, (self.constant - reduction.mean.double()) @ axes)

    def mapped(self, layer: nn.Linear) -> Located:
        """The rows after a linear layer."""
        weight = layer.weight.double().T
        bias = 0.0 if layer.bias is None else layer.bias.double()
        return Located(self.parts @ weight, self.constant @ weight + bias)

    def unit(self) -> Located:
        """The rows divided by their lengths; a zero row stays zero."""
        lengths = self.total().norm(dim=1, keepdim=True).clamp(min=_SMALLEST_LENGTH)
        return Located(self.parts / lengths[:, None, None], self.constant / lengths)

    def times(self, weight: float | torch.Tensor) -> Located:
        return Located(self.parts * weight, self.constant * weight)

    def as_float32(self) -> tuple[torch.Tensor, torch.Tensor]:
        """As the capability "parts" returns them."""
        return self.parts.float(), self.constant.float()


def located(maps: torch.Tensor, *, cells: int, grid: Size) -> Located:
    """The mean of each cell of a ``cells`` x ``cells`` division of maps [n, c, h, w], in the order
    of ``grid_pool``, by positions of a grid: a position has a share of what lies below it.
    """
    values = maps.double()
    down, across = (  # [positions, cells, side]
        (_shares(side, n)[:, None] * _means(side, cells)).to(values)
        for side, n in zip(maps.shape[2:], grid, strict=True)
    )
    bands = torch.einsum("pgh,nchw->npgcw", down, values)  # one side first: the fewest products
    parts = torch.einsum("qkw,npgcw->npqcgk", across, bands).flatten(3)
    return Located(parts, parts.new_zeros(len(parts), parts.shape[3]))


def joined(rows: Iterable[Located]) -> Located:
    """Rows side by side."""
    every = list(rows)
    return Located(
        torch.cat([row.parts for row in every], 3), torch.cat([row.constant for row in every], 1)
    )


def grid_of(maps: Sequence[torch.Tensor]) -> Size:
    """The grid for all these maps: as fine as the finest, up to the most positions."""
    height, width = (max(side) for side in zip(*(m.shape[2:] for m in maps), strict=True))
    return min(height, MOST_POSITIONS), min(width, MOST_POSITIONS)


def no_parts(dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The parts of no pictures."""
    return torch.zeros(0, 1, 1, dim), torch.zeros(0, dim)


def _shares(side: int, n: int) -> torch.Tensor:
    """[n, side]: how much of each of ``side`` equal intervals lies in each of ``n``.

    >>> _shares(2, 3).tolist()
    [[0.6666666666666666, 0.0], [0.3333333333333333, 0.3333333333333333], [0.0, 0.6666666666666666]]
    """
    edges = torch.arange(n + 1, dtype=torch.float64) * side / n
    starts = torch.arange(side, dtype=torch.float64)
    ends = torch.minimum(edges[1:, None], starts + 1)
    return (ends - torch.maximum(edges[:-1, None], starts)).clamp(min=0)


def _means(side: int, cells: int) -> torch.Tensor:
    """[cells, side]: the weights of the mean of each cell, as adaptive pooling divides a side."""
    weights = torch.zeros(cells, side, dtype=torch.float64)
    for i in range(cells):
        start, end = i * side // cells, -(-(i + 1) * side // cells)
        weights[i, start:end] = 1 / (end - start)
    return weights
