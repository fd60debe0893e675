"""A linear reduction of features to a few dimensions, fitted by principal components."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

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
        rows = features.double().cpu()
        mean = rows.mean(0)
        dim = len(self.components)
        kept, axes = principal_axes(rows - mean, dim)
        floor = kept[0].clamp(min=1e-12) * _SMALLEST_SHARE
        scale = kept.clamp(min=float(floor)).rsqrt() ** self.whiten
        # An eigenvector's sign is arbitrary; its largest entry positive makes every run agree.
        largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
        self.components.copy_((axes * torch.sign(largest) * scale[:, None]).float())
        self.mean.copy_(mean.float())


def principal_axes(centred: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``dim`` largest variances and their axes [dim, n_features], of centred rows.

    Fewer rows than features span fewer axes; the others are zero, for rows say nothing of them.
    """
    n_rows, n_features = centred.shape
    divisor = max(n_rows - 1, 1)
    if n_rows >= n_features:
        variances, vectors = torch.linalg.eigh(centred.T @ centred / divisor)
        return variances.flip(0)[:dim].clamp(min=0), vectors.flip(1)[:, :dim].T
    variances, vectors = torch.linalg.eigh(centred @ centred.T / divisor)
    kept = variances.flip(0)[:dim].clamp(min=0)
    axes = vectors.flip(1)[:, :dim].T @ centred
    lengths = axes.norm(dim=1, keepdim=True)
    is_spanned = lengths > 1e-6 * lengths.max().clamp(min=1e-12)
    axes = torch.where(is_spanned, axes / lengths.clamp(min=1e-300), 0.0)
    missing = dim - len(kept)
    return F.pad(kept, (0, missing)), F.pad(axes, (0, 0, 0, missing))
