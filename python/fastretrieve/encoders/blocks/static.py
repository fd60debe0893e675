"""The parts of a sequence's vector that need no gradient: its curve, and random convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

import torch
from torch import nn

from fastretrieve.encoders.blocks.convolutions import QUANTILES, RandomConvolutions
from fastretrieve.encoders.blocks.curves import Curves, Look, step_choices
from fastretrieve.encoders.blocks.networks import unit_rows
from fastretrieve.encoders.blocks.reduction import Reduction
from fastretrieve.encoders.blocks.sequences import Sequences, picked, spread_evenly
from fastretrieve.encoders.blocks.shares import SHARES, among_themselves, neighbour_score

N_KERNELS = 256
_MOST_KEPT = 4096  # items whose vectors are kept while an encoder is trained
FIT_ITEMS = 2000  # from which components are taken
_CHOOSE_ITEMS = 500  # that look for each other at every choice


class StaticParts(nn.Module):
    """Standardised sequences to two parts of unit length, [n, curve_dim] and [n, shape_dim]."""

    curve_share: torch.Tensor

    def __init__(self, n_features: int, curve_dim: int, shape_dim: int) -> None:
        super().__init__()
        self.curves = Curves(n_features, curve_dim)
        self.convolutions = RandomConvolutions(n_features, N_KERNELS)
        self.reduction = Reduction(self.convolutions.n_outputs, shape_dim, whiten=0.5)
        self.register_buffer("curve_share", torch.tensor(0.5))  # of the two parts together

    def forward(self, batch: Sequences) -> tuple[torch.Tensor, torch.Tensor]:
        curve, shape = self.curves(batch), self.reduction(self.convolutions(batch))
        return unit_rows(curve), unit_rows(shape)

    @property
    def shares(self) -> torch.Tensor:
        """Of the curve and of the convolutions."""
        share = self.curve_share.clamp(0, 1)
        return torch.stack([share, 1 - share])

    @torch.no_grad()
    def fit(self, batch: Sequences) -> None:
        """Learn thresholds and components; the curve is seen in the usual way."""
        self.convolutions.fit(batch)
        self.reduction.fit(self.convolutions(batch))
        self.curves.fit(batch, next(self.curves.looks()))

    @torch.no_grad()
    def choose(self, batch: Sequences, labels: torch.Tensor) -> None:
        """See the curve, and share the vector, as the items find each other best.

        An item is left out of the rows that it searches, not of the components: those see no
        labels.
        """
        rows = spread_evenly(len(labels), _CHOOSE_ITEMS)
        few, known = picked(batch, rows), labels[rows]

        def score(look: Look) -> float:
            self.curves.fit(few, look)
            cosines = among_themselves(unit_rows(self.curves(few)))
            return float(neighbour_score(cosines, known, known))

        self.curves.fit(batch, max(self.curves.looks(), key=score))
        curve, shape = (among_themselves(part) for part in self(few))
        self.curve_share.fill_(
            max(SHARES, key=lambda s: float(neighbour_score(shape.lerp(curve, s), known, known)))
        )


class Kept:
    """Rows for items that training meets again and again, made once; a copy starts empty.

    Convolutions of long items would take a third of each step.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, torch.Tensor] = {}
        self._made_by: Any = None

    def __call__(
        self,
        batch: Sequences,
        make: Callable[[Sequences], torch.Tensor],
        made_by: Iterable[torch.Tensor],
    ) -> torch.Tensor:
        """``make(batch)``; rows are forgotten where a tensor of ``made_by`` has changed since."""
        if batch.values.device.type != "cpu":
            return make(batch)  # to fetch the items would take longer
        state = [(id(tensor), tensor._version) for tensor in made_by]
        if state != self._made_by or len(self._rows) > _MOST_KEPT:
            self._rows, self._made_by = {}, state
        items = zip(batch.values, batch.lengths.tolist(), strict=True)
        keys = [blake2b(item[:n].contiguous().numpy()).digest() for item, n in items]
        unknown = [i for i, key in enumerate(keys) if key not in self._rows]
        if unknown:
            made = make(picked(batch, torch.tensor(unknown)))
            self._rows.update(zip([keys[i] for i in unknown], made, strict=True))
        return torch.stack([self._rows[key] for key in keys])

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        return Kept, ()


def part_dims(dim: int, n_features: int) -> tuple[int, int, int]:
    """How many dimensions curve, convolutions and network get: a third each where they can.

    >>> part_dims(192, 1), part_dims(4, 2), part_dims(600, 1)
    ((64, 64, 64), (1, 1, 2), (128, 200, 272))
    """
    if dim < 3:
        raise ValueError(f"dim must be at least 3, one for each part of the vector, got {dim}")
    curve = min(dim // 3, n_features * step_choices(n_features)[-1])
    shape = min(dim // 3, N_KERNELS * len(QUANTILES))
    return curve, shape, dim - curve - shape
