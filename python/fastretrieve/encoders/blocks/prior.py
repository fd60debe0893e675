"""Where ``vae`` and ``gan`` draw latents from: a mixture of normals, fitted to real images'."""

from __future__ import annotations

import torch
from torch import nn

PARTS = 64  # at most
PARTS_OF_OLD_FILES = 8
_FEWEST = 50  # latents of a part, on average
_MOST_NUMBERS = 1 << 18  # of all covariances; long latents have fewer parts, down to the old number


class Prior(nn.Module):
    """A standard normal distribution until ``fit`` has seen latents of real images.

    These together do not fill the standard normal that the loss asks for; a latent from a gap is
    decoded to an image like none. Each part of the mixture is one cluster of latents, with their
    covariance. Enough data make many parts.
    """

    shares: torch.Tensor
    means: torch.Tensor
    factors: torch.Tensor

    def __init__(self, dim: int, *, parts: int = PARTS) -> None:
        super().__init__()
        if parts < 1:
            raise ValueError(f"parts is the number of a mixture's parts, at least 1, got {parts}")
        n = min(parts, max(_MOST_NUMBERS // dim**2, PARTS_OF_OLD_FILES))
        self.register_buffer("shares", torch.full((n,), 1.0 / n))
        self.register_buffer("means", torch.zeros(n, dim))
        self.register_buffer("factors", torch.eye(dim).repeat(n, 1, 1))

    def draw(self, noise: torch.Tensor, *, seed: int) -> torch.Tensor:
        """Latents [n, dim] from standard normal numbers."""
        generator = torch.Generator().manual_seed(seed + 1)
        ends = self.shares.cpu().cumsum(0)[:-1].contiguous()
        parts = torch.searchsorted(ends, torch.rand(len(noise), generator=generator), right=True)
        means, factors = self.means.cpu()[parts], self.factors.cpu()
        latents = torch.empty_like(noise)
        for part in range(len(factors)):
            mine = parts == part
            latents[mine] = noise[mine] @ factors[part].T
        return means + latents

    @torch.no_grad()
    def fit(self, means: torch.Tensor, log_vars: torch.Tensor) -> None:
        """Learn from the latents of real images: normal distributions, [n, dim] each."""
        from fastretrieve import kmeans

        rows, spread = means.double().cpu(), log_vars.double().exp().cpu()
        n_parts = max(min(len(self.shares), len(rows) // _FEWEST), 1)
        near = torch.from_numpy(kmeans(rows.float().numpy(), n_parts, seed=0).assignments)
        self.shares.zero_()
        for part in range(n_parts):
            mine = near == part
            if not mine.any():
                continue
            mean = rows[mine].mean(0)
            around = rows[mine] - mean
            covariance = around.T @ around / len(around) + spread[mine].mean(0).diag()
            self.shares[part] = mine.double().mean()
            self.means[part] = mean
            self.factors[part] = torch.linalg.cholesky(covariance)
