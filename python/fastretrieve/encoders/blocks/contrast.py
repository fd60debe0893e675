"""Losses that compare the vectors of a batch with each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F

TEMPERATURE = 0.2
_NEVER = -1e9  # a logit that a softmax ignores; finite, so that half precision gives no NaN


def two_views_loss(vectors: torch.Tensor, *, temperature: float = TEMPERATURE) -> torch.Tensor:
    """NT-Xent: row i and row i + n/2 are two views of one image, all other rows are negatives.

    >>> twins = torch.eye(4).repeat(2, 1)
    >>> bool(two_views_loss(twins) < two_views_loss(twins.roll(1, 0)[[1, 0, 2, 3, 5, 4, 7, 6]]))
    True
    """
    n = len(vectors)
    logits = _logits(vectors, temperature)
    twin = torch.arange(n, device=vectors.device).roll(n // 2)
    return F.cross_entropy(logits, twin)


def same_label_loss(
    vectors: torch.Tensor, labels: torch.Tensor, *, temperature: float = TEMPERATURE
) -> torch.Tensor:
    """Supervised contrast: rows of one label attract, others repel.

    A row without a label (-1), or alone with its label, attracts nothing but still repels.
    """
    logits = _logits(vectors, temperature)
    same = (labels[:, None] == labels[None, :]) & (labels >= 0)[:, None]
    same.fill_diagonal_(False)
    log_share = logits.log_softmax(1)
    counts = same.sum(1)
    mean = (log_share * same).sum(1) / counts.clamp(min=1)
    return -mean.sum() / (counts > 0).sum().clamp(min=1)


def _logits(vectors: torch.Tensor, temperature: float) -> torch.Tensor:
    unit = F.normalize(vectors.float(), dim=1)
    logits = unit @ unit.T / temperature
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return logits.masked_fill(itself, _NEVER)
