"""Random convolutions of sequences, as in ROCKET and MiniRocket, with nothing to learn.

A kernel has nine taps that sum to zero, a dilation, and looks at a few features. Of its response
counts the share of steps above a threshold; the thresholds are quantiles of the responses on
training items. Such shares tell shapes apart wherever they happen in a sequence, which
resampled values cannot.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve.encoders.blocks.sequences import Sequences, real_steps

TAPS = 9
QUANTILES = (0.2, 0.4, 0.6, 0.8)
_FEATURES_A_KERNEL = 2.0  # on average; one at least
_RAMP = 0.1  # of the spread of the responses: where a share goes from 0 to 1
_MOST_DILATION = 1024
_MOST_ROWS = 20_000  # from which thresholds are taken
_MOST_VALUES = 1 << 24  # of responses at a time, so that memory stays small


class RandomConvolutions(nn.Module):
    """Sequences to [n, n_kernels * len(QUANTILES)] shares of steps above thresholds."""

    weights: torch.Tensor
    octaves: torch.Tensor
    dilations: torch.Tensor
    thresholds: torch.Tensor
    spreads: torch.Tensor

    def __init__(self, n_features: int, n_kernels: int) -> None:
        super().__init__()
        taps = torch.randn(n_kernels, 1, TAPS)
        seen = torch.rand(n_kernels, n_features, 1) < _FEATURES_A_KERNEL / n_features
        seen.scatter_(1, torch.randint(n_features, (n_kernels, 1, 1)), True)
        mixed = torch.randn(n_kernels, n_features, 1) * seen
        weights = (taps - taps.mean(2, keepdim=True)) * mixed
        self.register_buffer("weights", weights / weights.norm(dim=(1, 2), keepdim=True))
        self.register_buffer("octaves", torch.rand(n_kernels))
        self.register_buffer("dilations", torch.ones(n_kernels, dtype=torch.int64))
        self.register_buffer("thresholds", torch.zeros(n_kernels, len(QUANTILES)))
        self.register_buffer("spreads", torch.ones(n_kernels))

    @property
    def n_outputs(self) -> int:
        return self.thresholds.numel()

    def forward(self, batch: Sequences) -> torch.Tensor:
        """Each item's shares, whatever the other items of the batch are."""
        rows = max(_MOST_VALUES // max(len(self.weights) * batch.values.shape[1], 1), 1)
        parts = [
            self._shares(Sequences(batch.values[i : i + rows], batch.lengths[i : i + rows]))
            for i in range(0, len(batch.lengths), rows)
        ]
        return torch.cat(parts) if parts else self.thresholds.new_zeros(0, self.n_outputs)

    @torch.no_grad()
    def fit(self, batch: Sequences) -> None:
        """Set the dilations by the usual length, and the thresholds by the responses."""
        reach = (float(batch.lengths.double().median()) - 1) / (TAPS - 1)
        most = math.log2(min(max(reach, 1.0), _MOST_DILATION))
        # Powers of two: kernels of one dilation are one convolution.
        self.dilations.copy_(2 ** (self.octaves * (int(most) + 1)).long().clamp(max=int(most)))
        inside = real_steps(*batch)
        for kernels, responses in self._responses(batch):
            rows = responses.transpose(1, 2)[inside].double()  # [steps of all items, n_kernels]
            every = max(len(rows) // _MOST_ROWS, 1)
            levels = rows[::every].quantile(rows.new_tensor(QUANTILES), dim=0)
            self.thresholds[kernels] = levels.T.float()
            self.spreads[kernels] = rows.std(0, correction=0).clamp(min=1e-6).float()

    def _shares(self, batch: Sequences) -> torch.Tensor:
        inside = real_steps(*batch)[:, None, :]
        counts = batch.lengths.to(inside.device)[:, None]
        shares = batch.values.new_empty(len(counts), *self.thresholds.shape)
        for kernels, responses in self._responses(batch):
            heights = responses / self.spreads[kernels, None]
            levels = self.thresholds[kernels] / self.spreads[kernels, None]
            for i, level in enumerate(levels.T):
                # A ramp, not a jump: rounding that differs with the batch must not turn a step.
                above = ((heights - level[:, None]) / _RAMP + 0.5).clamp(0, 1)
                shares[:, kernels, i] = (above * inside).sum(2) / counts
        return shares.flatten(1)

    def _responses(self, batch: Sequences) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The kernels of each dilation, and what they answer: [n, their number, steps]."""
        values = (batch.values * real_steps(*batch)[:, :, None]).transpose(1, 2)
        dilations = self.dilations.clamp(1, _MOST_DILATION)  # they may come from a file
        for dilation in sorted(set(dilations.tolist())):
            kernels = (dilations == dilation).nonzero()[:, 0]
            around = dilation * (TAPS // 2)
            yield (
                kernels,
                F.conv1d(values, self.weights[kernels], dilation=dilation, padding=around),
            )
