"""Where a ``vae`` draws its latents from: a mixture of normal distributions, fitted to them."""

from __future__ import annotations

import torch
from torch import nn

PARTS = 8
_FEWEST = 50  # latents of a part, on average


class Prior(nn.Module):
    """A standard normal distribution until ``fit`` has seen posteriors.

    The posteriors of real images together do not fill the standard normal that the loss asks for;
    a latent from a gap is decoded to an image like none. Each part of the mixture is one cluster
    of the posterior means, with the covariance of its latents.
    """

    shares: torch.Tensor
    means: torch.Tensor
    factors: torch.Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("shares", torch.full((PARTS,), 1.0 / PARTS))
        self.register_buffer("means", torch.zeros(PARTS, dim))
        self.register_buffer("factors", torch.eye(dim).repeat(PARTS, 1, 1))

    def draw(self, noise: torch.Tensor, *, seed: int) -> torch.Tensor:
        """Latents [n, dim] from standard normal numbers."""
        generator = torch.Generator().manual_seed(seed + 1)
        ends = self.shares.cpu().cumsum(0)[:-1].contiguous()
        parts = torch.searchsorted(ends, torch.rand(len(noise), generator=generator), right=True)
        means, factors = self.means.cpu()[parts], self.factors.cpu()
        latents = torch.empty_like(noise)
        for part in range(PARTS):
            mine = parts == part
            latents[mine] = noise[mine] @ factors[part].T
        return means + latents

    @torch.no_grad()
    def fit(self, means: torch.Tensor, log_vars: torch.Tensor) -> None:
        """Learn from the posteriors of real images, [n, dim] each."""
        from fastretrieve import kmeans

        rows, spread = means.double().cpu(), log_vars.double().exp().cpu()
        n_parts = max(min(PARTS, len(rows) // _FEWEST), 1)
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
