"""Sequences as curves: resampled to one length, seen in one of three ways, reduced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from fastretrieve.encoders.blocks.reduction import Reduction
from fastretrieve.encoders.blocks.sequences import Sequences, resampled

VIEWS = ("plain", "standardised", "differences")
_MOST_FEATURES = 4096  # of a resampled item: above, fewer steps are kept
_STEPS = (32, 128)
_FEWEST_STEPS = 8
_SMALL_SPREAD = 0.05  # of a feature within an item: noise, where the data's spread is 1


class Look(NamedTuple):
    """One way to see a curve."""

    view: str  # of VIEWS
    steps: int
    whiten: float  # the power, as in Reduction


class Curves(nn.Module):
    """Sequences to [n, dim]: principal components of resampled values.

    "plain" takes the values, "standardised" takes each feature of each item at mean 0 and spread
    1, "differences" takes steps between neighbours. ``looks`` lists the choices, ``fit`` makes one.
    """

    view: torch.Tensor
    steps: torch.Tensor

    def __init__(self, n_features: int, dim: int) -> None:
        super().__init__()
        self.choices = step_choices(n_features)
        self.reduction = Reduction(n_features * self.choices[-1], dim)
        self.register_buffer("view", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps", torch.tensor(self.choices[0]))

    def looks(self) -> Iterator[Look]:
        """Every choice, the usual one first."""
        for view in VIEWS:
            for steps in self.choices:
                for whiten in (0.0, 0.5):
                    yield Look(view, steps, whiten)

    def forward(self, batch: Sequences) -> torch.Tensor:
        vectors: torch.Tensor = self.reduction(self._seen(batch))
        return vectors

    def fit(self, batch: Sequences, look: Look) -> None:
        """See every item by ``look`` from now on, reduced by the components of this batch."""
        self.view.fill_(VIEWS.index(look.view))
        self.steps.fill_(look.steps)
        self.reduction.whiten = look.whiten
        self.reduction.fit(self._seen(batch))

    def _seen(self, batch: Sequences) -> torch.Tensor:
        """The curve of each item, with zeros where the view has fewer steps than the largest."""
        steps = min(max(int(self.steps), 1), self.choices[-1])  # it may come from a file
        curves = resampled(*batch, steps)
        view = VIEWS[int(self.view) % len(VIEWS)]
        if view == "standardised":
            spread = curves.std(1, keepdim=True, correction=0)
            curves = (curves - curves.mean(1, keepdim=True)) / (spread + _SMALL_SPREAD)
        elif view == "differences":
            curves = nn.functional.pad(curves.diff(dim=1), (0, 0, 1, 0))
        rows = curves.flatten(1)
        n_missing = len(self.reduction.mean) - rows.shape[1]
        return nn.functional.pad(rows, (0, n_missing))


def step_choices(n_features: int) -> tuple[int, ...]:
    """To how many steps a curve may be resampled: fewer where there are many features.

    >>> step_choices(1), step_choices(100), step_choices(5000)
    ((32, 128), (32, 40), (8,))
    """
    most = max(_MOST_FEATURES // n_features, _FEWEST_STEPS)
    return tuple(sorted({min(steps, most) for steps in _STEPS}))
