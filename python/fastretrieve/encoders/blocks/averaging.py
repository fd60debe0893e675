"""A running mean of a generator's weights: what it draws is steadier than that of any one step."""

from __future__ import annotations

import torch
from torch import nn

_KEEP = 0.999


@torch.no_grad()
def move_average(averaged: nn.Module, source: nn.Module, steps: torch.Tensor) -> None:
    """Move the running mean towards the weights of a step: fast at first, slowly later.

    ``steps`` counts the calls, so that a run that goes on averages as before.

    >>> mean, layer = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> steps = torch.zeros((), dtype=torch.int64)
    >>> move_average(mean, layer, steps)
    >>> int(steps)
    1
    """
    steps += 1
    keep = min(_KEEP, float(steps) / (float(steps) + 9))
    weights = source.state_dict()
    for name, value in averaged.state_dict().items():
        if value.is_floating_point():
            value.lerp_(weights[name], 1 - keep)
        else:
            value.copy_(weights[name])
