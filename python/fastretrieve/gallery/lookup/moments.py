"""Mean and spread of vectors, and vectors with their spread changed.

Few vectors say little of many directions. So the spread is shrunk towards equal in all directions,
by as much as Ledoit and Wolf's estimate of the chance in it says. What no vector of the sample
reaches keeps the shrunk spread, never zero: no power of it is infinite.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_AXES = 512  # that are kept; all others count as one more direction of the mean spread
_SMALLEST = 1e-10  # of the largest variance: below it is rounding

Vectors = NDArray[np.float64]


class Moments(NamedTuple):
    """Mean and spread of some vectors."""

    mean: Vectors  # [dim]
    axes: Vectors  # [n_axes, dim], of unit length, at right angles
    variances: Vectors  # [n_axes], positive, the largest first
    rest: float  # the variance in every other direction, positive

    def powered(self, rows: Vectors, power: float) -> Vectors:
        """Rows [n, dim] times the covariance to a power: -1/2 whitens, 1/2 gives the spread."""
        rest = self.rest**power
        scaled: Vectors = rest * rows + (rows @ self.axes.T * (self.variances**power - rest)) @ (
            self.axes
        )
        return scaled


def moments_of(rows: Vectors) -> Moments:
    """Mean and shrunk spread of rows [n, dim], of two rows at least.

    >>> found = moments_of(np.array([[0.0, 0.0], [0.0, 4.0], [0.0, 2.0]]))
    >>> found.mean.tolist(), bool(found.rest > 0), bool(found.variances[0] > found.rest)
    ([0.0, 2.0], True, True)
    """
    n, dim = rows.shape
    mean = rows.mean(0)
    centred = rows - mean
    variances, axes = _spectrum(centred / n**0.5)
    average = float(variances.sum()) / dim
    if not average > 0:  # all rows are equal
        return Moments(mean, axes[:0], variances[:0], 1.0)
    # Ledoit and Wolf (2004): how much of the differences between the variances is chance.
    spread = float(np.square(variances).sum()) - dim * average**2
    fourth = float(np.square(np.square(centred).sum(1)).sum()) / n**2
    chance = fourth - float(np.square(variances).sum()) / n
    share = min(max(chance / spread, 0.0), 1.0) if spread > 0 else 1.0
    share = max(share, _SMALLEST)
    shrunk = (1 - share) * variances + share * average
    kept = shrunk[:MAX_AXES]
    n_others = dim - len(kept)
    others = float(shrunk[MAX_AXES:].sum()) + share * average * (dim - len(shrunk))
    return Moments(mean, axes[:MAX_AXES], kept, others / n_others if n_others else share * average)


def _spectrum(centred: Vectors) -> tuple[Vectors, Vectors]:
    """Variances, the largest first, and axes [n_axes, dim]; rounding errors are left out."""
    n, dim = centred.shape
    if n < dim:  # the smaller matrix
        variances, sides = np.linalg.eigh(centred @ centred.T)
        axes = sides.T @ centred
    else:
        variances, sides = np.linalg.eigh(centred.T @ centred)
        axes = sides.T
    order = np.flatnonzero(variances > _SMALLEST * max(float(variances[-1]), 1e-300))[::-1]
    axes = axes[order]
    return variances[order], axes / np.linalg.norm(axes, axis=1, keepdims=True)
