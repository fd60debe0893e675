"""Which share of a fused vector each of its parts gets: as held-out neighbours are found best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch

from fastretrieve.encoders.blocks.networks import unit_rows
from fastretrieve.encoders.protocol import Batch

Labelled: TypeAlias = tuple[Batch, torch.Tensor]  # a batch and its labels, -1 where one has none
SHARES = tuple(i / 10 for i in range(11))  # that are tried
_SHARPNESS = 10.0  # of the softmax over cosines
_LEAST = -10.0  # nats: one lost item must not outweigh all others
_NATS = 0.05  # how much a nat counts beside a hit: it decides where few items hit equally


class Seen(NamedTuple):
    """Items after one pass through an encoder: what their vectors are made of, and their labels."""

    parts: dict[str, torch.Tensor]  # name -> [n, width]
    labels: torch.Tensor  # [n], -1 where an item has none

    def of(self, rows: Any) -> Seen:
        """The items at ``rows`` (a slice, or a mask)."""
        return Seen({name: part[rows] for name, part in self.parts.items()}, self.labels[rows])

    @property
    def labelled(self) -> Seen:
        """The items that have a label."""
        return self.of(self.labels >= 0)


def see(encoder: Any, items: Iterable[Labelled]) -> Seen:
    """What ``encoder.parts_of`` gives for labelled batches, together."""
    found, labels = [], []
    for batch, known in items:
        found.append(encoder.parts_of(batch))
        labels.append(known.cpu())
    return Seen(together(found), torch.cat(labels))


def together(found: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The parts of several batches as those of one."""
    return {name: torch.cat([each[name] for each in found]) for name in found[0]}


def neighbour_score(
    cosines: torch.Tensor, labels: torch.Tensor, row_labels: torch.Tensor
) -> torch.Tensor:
    """A sum over queries: 1 for each whose nearest row has its label, and a little likelihood.

    ``cosines`` is [n_queries, n_rows]. The likelihood, of a row of the same label drawn by a
    softmax over cosines, tells choices apart that find equally many.

    >>> labels = torch.tensor([0, 1])
    >>> good, bad = torch.eye(2), 1 - torch.eye(2)
    >>> bool(neighbour_score(good, labels, labels) > neighbour_score(bad, labels, labels) + 1.9)
    True
    """
    same = labels[:, None] == row_labels[None, :]
    hits = same.gather(1, cosines.argmax(1, keepdim=True)).sum()
    shares = (_SHARPNESS * cosines).log_softmax(1).masked_fill(~same, float("-inf"))
    return hits + _NATS * shares.logsumexp(1).clamp(min=_LEAST).sum()


def among_themselves(vectors: torch.Tensor) -> torch.Tensor:
    """The cosines of unit rows, each of which is not its own neighbour."""
    return (vectors @ vectors.T).fill_diagonal_(-2.0)


def share_grid(
    first: torch.Tensor,
    others: Sequence[torch.Tensor],
    labels: torch.Tensor,
    row_labels: torch.Tensor,
) -> torch.Tensor:
    """The scores of a fused vector, [others, SHARES]: the cosines of its first part, and of one of
    the others with its share.
    """
    scores = [
        [neighbour_score(first.lerp(other, share), labels, row_labels) for share in SHARES]
        for other in others
    ]
    return torch.tensor(scores)


def joined_parts(parts: Sequence[torch.Tensor], shares: torch.Tensor) -> torch.Tensor:
    """Unit rows of several parts as one unit row, in which each has its share of the square.

    As ``fr.fuse`` with the square roots of the shares as weights, with gradients.
    """
    weights = shares.clamp(min=0).sqrt()
    return unit_rows(torch.cat([part * w for part, w in zip(parts, weights, strict=True)], 1))
