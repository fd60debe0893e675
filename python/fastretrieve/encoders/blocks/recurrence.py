"""A recurrence over sequences, and the vector of its states: the last ones, or pooled."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import nn

from fastretrieve.encoders.blocks.networks import initialise, unit_rows
from fastretrieve.encoders.blocks.sequences import Sequences, real_steps

POOLINGS = ("last", "mean and maximum", "attention")


class Recurrence(NamedTuple):
    """The options of the recurrent layers."""

    cell: Literal["gru", "lstm"]
    hidden: int
    layers: int
    bidirectional: bool
    dropout: float  # between layers

    @property
    def n_directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def n_states(self) -> int:
        return self.hidden * self.n_directions

    def network(self, n_inputs: int) -> nn.GRU | nn.LSTM:
        make = nn.GRU if self.cell == "gru" else nn.LSTM
        return make(
            n_inputs,
            self.hidden,
            self.layers,
            batch_first=True,
            bidirectional=self.bidirectional,
            dropout=self.dropout if self.layers > 1 else 0.0,
        )


class Pooling(nn.Module):
    """States to one vector for each of ``POOLINGS``, in one space: [n, dim] each."""

    def __init__(self, n_states: int, dim: int) -> None:
        super().__init__()
        self.mean_max = nn.Linear(2 * n_states, dim)
        self.attention = nn.Linear(n_states, dim)
        self.scores = nn.Linear(n_states, 1)
        initialise(self)

    def forward(
        self, every: torch.Tensor, inside: torch.Tensor, drop: nn.Module
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors of "mean and maximum" and "attention", of states [n, steps, n_states].

        ``inside`` [n, steps] is True where a step belongs to its item.
        """
        every, inside = every.float(), inside[:, :, None]
        mean = (every * inside).sum(1) / inside.sum(1).clamp(min=1)
        largest = every.masked_fill(~inside, -torch.inf).amax(1)
        scores = self.scores(every).masked_fill(~inside, -torch.inf)
        attended = (scores.softmax(1) * every).sum(1)
        both = unit_rows(drop(torch.cat([mean, largest], 1)))
        return self.mean_max(both), self.attention(unit_rows(drop(attended)))


def prediction_error(
    outputs: torch.Tensor, inputs: Sequences, predict: nn.ModuleList
) -> torch.Tensor:
    """The mean squared error of the next step, and of the step before for the way back."""
    forward, *backward = outputs.chunk(len(predict), dim=2)
    both = real_steps(*inputs)[:, 1:]  # a step and its predecessor are inside
    target = inputs.values.detach()
    errors = (predict[0](forward[:, :-1]) - target[:, 1:]).square().mean(2)
    if backward:
        errors = errors + (predict[1](backward[0][:, 1:]) - target[:, :-1]).square().mean(2)
    total: torch.Tensor = (errors * both).sum()
    return total / (both.sum() * len(predict)).clamp(min=1)
