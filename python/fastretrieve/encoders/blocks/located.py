"""Features of pictures as sums over positions, carried through everything that is linear.

A mean over positions is a sum of what each position adds. So are linear layers of it, and a row
divided by its length, once the length is known. ``Located`` holds these parts and the rest: a
constant, of biases and of means that are subtracted. A capability "parts" returns them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import nn

from fastretrieve.data.images import Size
from fastretrieve.encoders.blocks.reduction import Reduction

Edges: TypeAlias = Sequence[torch.Tensor]  # along height and width

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


def located(maps: torch.Tensor, *, cells: int, grid: Size, edges: Edges | None = None) -> Located:
    """The mean of each cell of a ``cells`` x ``cells`` division of maps [n, c, h, w], in the order
    of ``grid_pool``, by positions of a grid. The positions near a place of the maps share it.

    ``edges`` are those of the places along height and width, 0 to 1; None divides both evenly.
    """
    values = maps.double()
    down, across = (  # [positions, cells, side]
        (
            _shares(even_edges(side) if edges is None else edges[i], grid[i])[:, None]
            * _means(side, cells)
        ).to(values)
        for i, side in enumerate(maps.shape[2:])
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


def grid_of(size: Size) -> Size:
    """The positions of an image of this size."""
    return min(size[0], MOST_POSITIONS), min(size[1], MOST_POSITIONS)


def even_edges(n: int) -> torch.Tensor:
    return torch.arange(n + 1, dtype=torch.float64) / n


def no_parts(dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The parts of no pictures."""
    return torch.zeros(0, 1, 1, dim), torch.zeros(0, dim)


def _shares(edges: torch.Tensor, n: int) -> torch.Tensor:
    """[n, places]: which share of each place each of ``n`` positions takes. It falls off from the
    middle of the place to those of its neighbours, as a place sees beyond its edges.

    >>> (7 * _shares(torch.tensor([0.0, 0.5, 1.0]), 4)).round().tolist()
    [[3.0, 0.0], [3.0, 1.0], [1.0, 3.0], [0.0, 3.0]]
    """
    middles, widths = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]).clamp(min=1 / n)
    positions = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    near = (1 - (positions[:, None] - middles).abs() / widths).clamp(min=0)
    return near / near.sum(0)


def _means(side: int, cells: int) -> torch.Tensor:
    """[cells, side]: the weights of the mean of each cell, as adaptive pooling divides a side."""
    weights = torch.zeros(cells, side, dtype=torch.float64)
    for i in range(cells):
        start, end = i * side // cells, -(-(i + 1) * side // cells)
        weights[i, start:end] = 1 / (end - start)
    return weights
