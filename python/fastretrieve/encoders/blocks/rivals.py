"""The hardest rivals of pairs, by exact search among a sample of all pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

import fastretrieve as fr

Side = Callable[[torch.Tensor], torch.Tensor]
Pairs = tuple[torch.Tensor, torch.Tensor]  # the vectors of pictures and of their texts


class Found(NamedTuple):
    """The pairs whose texts are rivals for pictures, and whose images are rivals for texts."""

    texts: Pairs
    images: Pairs


class Rivals:
    """Pairs to search in. Vectors are those of the towers; ``anchors`` bring both sides into one
    space, where the search takes place. They hold until ``forget``.
    """

    def __init__(self, images: torch.Tensor, texts: torch.Tensor) -> None:
        self.pairs: Pairs = (images, texts)
        self._indexes: list[fr.Index] = []

    def __reduce__(self) -> Any:
        return Rivals, self.pairs  # an index is made again

    def forget(self) -> None:
        """The anchors have changed."""
        self._indexes = []

    @torch.no_grad()
    def of(
        self, images: torch.Tensor, texts: torch.Tensor, anchors: tuple[Side, Side], *, k: int
    ) -> Found:
        """The ``k`` nearest texts of each picture and pictures of each text, beside the own one."""
        if not self._indexes:
            for rows, anchor in zip(self.pairs, anchors, strict=True):
                index = fr.Index(anchor(rows[:1]).shape[1], metric="cosine")
                index.add(anchor(rows).cpu().numpy())
                self._indexes.append(index)
        near = [
            self._nearest(index, anchor(rows), k=k)
            for index, anchor, rows in (
                (self._indexes[1], anchors[0], images),
                (self._indexes[0], anchors[1], texts),
            )
        ]
        taken = [(self.pairs[0][rows], self.pairs[1][rows]) for rows in near]
        return Found(texts=taken[0], images=taken[1])

    def _nearest(self, index: fr.Index, queries: torch.Tensor, *, k: int) -> torch.Tensor:
        # One more: a pair of the sample finds itself.
        found = index.search(queries.cpu().numpy(), k=min(k + 1, len(index)))
        return torch.from_numpy(np.unique(found.ids)).to(self.pairs[0].device)
