"""A taste from liked and disliked items, and a label by vote of neighbours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve.gallery.lookup.matches import Matches

# Rocchio's weights, measured (docs/encoders-notes.md). Disliked items often are neighbours of the
# liked ones: half of their mean, the usual weight, pushes away what is wanted too.
DISLIKE = 0.25
# The mean of several vectors lies nearer to the middle of all vectors than each of them does, and
# with it to items that resemble everything. So most of the middle is taken off.
MIDDLE = 0.7
MIDDLE_ITEMS, FEWEST = 1000, 100  # the sample of a gallery, and of how many items from on
CANDIDATES = 8  # for each recommendation that is wanted, when they are to differ


class Label(NamedTuple):
    """The likely label of an item."""

    label: str | None  # by vote of the neighbours; None where none of them has a label
    shares: dict[str, float]  # of the votes, the largest first
    head: dict[str, float] | None  # the encoder's own probabilities, where it has a head
    matches: Matches  # the neighbours that voted


def taste(
    liked: NDArray[Any],
    unliked: NDArray[Any],
    *,
    is_direction: bool,
    sample: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    """A vector towards the liked and away from the disliked.

    ``is_direction`` (cosine) counts every item the same, whatever the length of its vector, and
    takes off the middle of ``sample``, vectors of the gallery. One liked item alone is itself.
    """
    parts = [np.asarray(each, np.float64) for each in (liked, unliked)]
    if is_direction:
        parts = [_unit(part) for part in parts]
    wanted = parts[0].mean(axis=0)
    if len(parts[0]) + len(parts[1]) == 1:
        return np.asarray(wanted, np.float32)
    if not is_direction:
        away = parts[1].mean(axis=0) - wanted if len(parts[1]) else 0.0
        return np.asarray(wanted - DISLIKE * away, np.float32)
    middle = 0.0 if sample is None else _unit(np.asarray(sample, np.float64)).mean(axis=0)
    away = parts[1].mean(axis=0) - middle if len(parts[1]) else 0.0
    return np.asarray(wanted - MIDDLE * middle - DISLIKE * away, np.float32)


def diverse(
    scores: NDArray[Any], vectors: NDArray[Any], *, k: int, diversity: float, is_similarity: bool
) -> list[int]:
    """Positions of ``k`` candidates: near to what is wanted, and not near to each other.

    Maximal marginal relevance: the next one is best in ``(1 - diversity) * relevance - diversity *
    (greatest likeness to one taken before)``. Both are scaled to [0, 1] among the candidates.
    """
    relevance = _scaled(np.asarray(scores, np.float64) * (1 if is_similarity else -1))
    rows = _unit(np.asarray(vectors, np.float64))
    likeness = _scaled((rows @ rows.T).ravel()).reshape(len(rows), len(rows))
    taken: list[int] = []
    nearest = np.zeros(len(rows))
    free = np.ones(len(rows), bool)
    while len(taken) < min(k, len(rows)):
        value = np.where(free, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        best = int(value.argmax())
        taken.append(best)
        free[best] = False
        nearest = np.maximum(nearest, likeness[best])
    return taken


def vote(matches: Matches, counts: Mapping[str, int]) -> dict[str, float]:
    """Shares of the labels of neighbours, each counting one over its rank, and over the count of
    its label where one is given.
    """
    votes: dict[str, float] = defaultdict(float)
    for rank, match in enumerate(matches, 1):
        if match.item.label is not None:
            votes[match.item.label] += 1 / rank / counts.get(match.item.label, 1)
    total = sum(votes.values()) or 1.0
    return {name: votes[name] / total for name in sorted(votes, key=lambda n: -votes[n])}


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length one; zeros stay zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: NDArray[np.float64] = rows / np.where(lengths > 0, lengths, 1)
    return scaled


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values moved and stretched to [0, 1]."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    scaled: NDArray[np.float64] = (values - low) / ((high - low) or 1.0)
    return scaled
