"""A linear reduction of features to a few dimensions, fitted by principal components."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from fastretrieve.encoders.blocks.networks import unit_rows

_SMALLEST_SHARE = 1e-4  # of the largest variance: below it is rounding, and is not blown up


class Reduction(nn.Module):
    """``n_features`` to ``dim``: a random orthogonal projection until ``fit`` has seen features.

    Fitted, it subtracts the mean and keeps the ``dim`` strongest principal components, each divided
    by its standard deviation to the power ``whiten``: 0 keeps their spread, 1 makes all equal. In
    between, weak components (details) gain on strong ones (overall brightness) without drowning
    the answer in noise.
    """

    mean: torch.Tensor
    components: torch.Tensor

    def __init__(self, n_features: int, dim: int, *, whiten: float = 0.5) -> None:
        super().__init__()
        if dim > n_features:
            raise ValueError(
                f"cannot keep {dim} dimensions of {n_features} features; ask for dim up to "
                f"{n_features}, or for a wider network"
            )
        self.whiten = whiten
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("components", nn.init.orthogonal_(torch.empty(dim, n_features)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return (features.float() - self.mean) @ self.components.T

    @torch.no_grad()
    def fit(self, features: torch.Tensor) -> None:
        """Learn from features [n, n_features]; more rows than features are better."""
        self.take(spectrum_of(features, most=len(self.components)))

    @torch.no_grad()
    def take(self, spectrum: Spectrum, *, whiten: float | None = None) -> None:
        """Take the axes of features, the longest first; ``whiten`` replaces the power."""
        self.whiten = self.whiten if whiten is None else whiten
        scale = spectrum.variances.rsqrt() ** self.whiten
        self.components.zero_()  # what has no axis is 0 in every vector
        self.components[: len(scale)] = (spectrum.axes * scale[:, None]).float()
        self.mean.copy_(spectrum.mean.float())


class Spectrum(NamedTuple):
    """The principal axes of some features, longest first, in float64."""

    mean: torch.Tensor  # [n_features]
    axes: torch.Tensor  # [n_axes, n_features]
    variances: torch.Tensor  # [n_axes], positive


@torch.no_grad()
def spectrum_of(features: torch.Tensor, *, most: int) -> Spectrum:
    """Up to ``most`` axes of features [n, n_features]: as many as the rows determine.

    >>> spectrum_of(torch.tensor([[0.0, 0.0], [0.0, 4.0]]), most=2).variances.tolist()
    [8.0]
    """
    rows = features.double().cpu()
    mean = rows.mean(0)
    centred = (rows - mean) / max(len(rows) - 1, 1) ** 0.5
    if len(rows) <= rows.shape[1]:  # the smaller matrix, of which no eigenvalue repeats
        variances, sides = torch.linalg.eigh(centred @ centred.T)
        variances, sides = _largest(variances, sides, most)
        axes = unit_rows(sides.T @ centred)
    else:
        variances, vectors = torch.linalg.eigh(centred.T @ centred)
        variances, vectors = _largest(variances, vectors, most)
        axes = vectors.T
    floor = float(variances[0].clamp(min=1e-12)) * _SMALLEST_SHARE
    # An eigenvector's sign is arbitrary; its largest entry positive makes every run agree.
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return Spectrum(mean, axes * torch.sign(largest), variances.clamp(min=floor))


def _largest(
    values: torch.Tensor, vectors: torch.Tensor, n: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Up to ``n`` eigenvalues, the largest first, and their vectors as columns. Those that are
    rounding errors beside the largest are left out, but for the first.
    """
    kept = values.flip(0)[:n].clamp(min=0)
    n_kept = max(int((kept > 1e-10 * kept[0]).sum()), 1)
    return kept[:n_kept], vectors.flip(1)[:, :n_kept]
