"""What each position of a picture adds to a score, from the parts of its vector or by occlusion.

The score of q and x is linear in q where the lengths of both are held fixed: a cosine divides q x
by them, a squared distance is their squares less 2 q x. So where q is a sum of parts and a
constant, so is the score. Both pictures are compared with a plain one, whose parts go into the
constant.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.metric import is_distance

Numbers = NDArray[np.float64]
_SMALLEST_LENGTH = 1e-12


class Evidence(NamedTuple):
    """What the positions of a picture add to a score."""

    parts: Numbers  # [positions_y, positions_x]; with the constant they sum to the score
    constant: float
    effects: Numbers  # [positions_y, positions_x]: how much better each makes the match


class Summed(NamedTuple):
    """A vector as a sum: of parts beside those of a plain picture, and of a constant."""

    parts: Numbers  # [positions_y, positions_x, dim]
    constant: Numbers  # [dim]

    @classmethod
    def beside(cls, parts: Numbers, constant: Numbers, plain: Numbers) -> Summed:
        """The parts less those of a plain picture, which go into the constant."""
        return cls(parts - plain, constant + plain.sum((0, 1)))

    def vectors(self) -> Numbers:
        """The vector, as the one row of [1, dim]."""
        total: Numbers = self.parts.sum((0, 1)) + self.constant
        return total[None]

    def moved(self, factors: Numbers, rests: Numbers) -> Summed:
        """The sum for the vector times a factor [1, 1], plus a rest [1, dim]."""
        return Summed(self.parts * factors[0], self.constant * factors[0] + rests[0])

    def evidence(self, other: Numbers, metric: str) -> Evidence:
        return _by_parts(self, other, metric)


class Covered(NamedTuple):
    """The vectors of a picture, of it as it is covered, and of it with each position covered."""

    rows: Numbers  # [2 + positions, dim]
    shape: tuple[int, int]  # positions_y, positions_x

    def vectors(self) -> Numbers:
        return self.rows

    def moved(self, factors: Numbers, rests: Numbers) -> Covered:
        """The same for each vector times its factor [n, 1], plus its rest [n, dim]."""
        return self._replace(rows=self.rows * factors + rests)

    def evidence(self, other: Numbers, metric: str) -> Evidence:
        return _by_occlusion(self.rows, self.shape, other, metric)


def score_of(q: Numbers, x: Numbers, metric: str) -> float:
    """The score of two vectors, as ``docs/exactness.md`` defines it, up to the order of sums."""
    if metric == "ip":
        return float(q @ x)
    if metric == "cosine":
        return float(q @ x / (_length(q) * _length(x)))
    square = float(np.square(q - x).sum())
    return square if metric == "sqeuclidean" else float(np.sqrt(square))


def _by_parts(summed: Summed, other: Numbers, metric: str) -> Evidence:
    """The evidence in the picture that is ``summed``, for a match with the vector ``other``.

    An inner product loses a part that is left out. Of the other scores an effect is how far the
    part turns the vector towards the match: without it the vector is shorter, too, so a part that
    points elsewhere was no help.
    """
    own = summed.vectors()[0]
    score, sizes = score_of(own, other, metric), _length(own) * _length(other)
    factor, rest = 1.0, 0.0
    if metric == "cosine":
        factor = 1 / sizes
    elif is_distance(metric):
        distance = 1.0 if metric == "sqeuclidean" else max(score, _SMALLEST_LENGTH)
        factor, rest = -2 / distance, float(own @ own + other @ other) / distance
    inner = summed.parts @ other
    constant = factor * float(summed.constant @ other) + rest
    if metric == "ip":
        return Evidence(inner, constant, inner)
    turning = inner / sizes - float(own @ other) / sizes * (summed.parts @ own) / _length(own) ** 2
    return Evidence(factor * inner, constant, turning)


def _by_occlusion(rows: Numbers, shape: tuple[int, int], other: Numbers, metric: str) -> Evidence:
    """The evidence by the vectors [2 + n, dim] of the picture, of the picture as it is covered, and
    of it with each of ``n`` positions covered: how far the score falls. These parts need not sum
    to the score; the constant is what they leave of it.
    """
    score, uncovered, *covered = (score_of(row, other, metric) for row in rows)
    parts = uncovered - np.array(covered).reshape(shape)
    constant = score - float(parts.sum())
    return Evidence(parts, constant, -parts if is_distance(metric) else parts)


def _length(vector: Numbers) -> float:
    return max(float(np.linalg.norm(vector)), _SMALLEST_LENGTH)
