"""The numbers of a case, and its exact answers by float64 scores in torch."""

from __future__ import annotations

from functools import lru_cache

import torch
from sizes import Case

MOST_CHECKED = 64  # queries of a batch whose answers are compared


@lru_cache(maxsize=1)
def rows_of(n_rows: int, dim: int, device: str) -> torch.Tensor:
    """The rows of a size, the same for everybody; only the latest are kept."""
    random = torch.Generator(device=device).manual_seed(n_rows + dim)
    return torch.randn((n_rows, dim), generator=random, device=device)


def made(case: Case, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and rows."""
    rows = rows_of(case.n_rows, case.dim, device)
    random = torch.Generator(device=device).manual_seed(case.batch)
    return torch.randn((case.batch, case.dim), generator=random, device=device), rows


def checked_queries(batch: int) -> torch.Tensor:
    """Numbers of the queries whose answers are compared: all of a small batch, else some from its
    first to its last.
    """
    return torch.linspace(0, batch - 1, min(batch, MOST_CHECKED)).round().long()


def exact_ids(queries: torch.Tensor, rows: torch.Tensor, k: int, metric: str) -> torch.Tensor:
    """The best rows by float64 scores, a million rows at a time."""
    q, parts = queries.double(), []
    for begin in range(0, len(rows), 1 << 20):
        x = rows[begin : begin + (1 << 20)].double()
        scores = q @ x.T if metric == "ip" else 2 * q @ x.T - (x * x).sum(dim=1)
        best = torch.topk(scores, min(k, len(x)))
        parts.append((best.values, best.indices + begin))
    values, ids = (torch.cat(column, dim=1) for column in zip(*parts, strict=True))
    return ids.gather(1, torch.topk(values, k).indices)
