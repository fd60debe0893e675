"""In how many directions vectors vary: one that varies in few of them wastes its width."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHARE = 0.95  # of the variance of unit vectors
FEW = 1 / 8  # of the width: as good as a much smaller vector
MOST_ROWS = 2000


def n_directions(vectors: NDArray[np.float32]) -> int:
    """The fewest principal directions that hold 95% of the variance of the vectors, each at unit
    length; of many vectors a sample.

    >>> rows = np.random.default_rng(0).standard_normal((500, 8)) * [9, 9, 9, 0, 0, 0, 0, 0]
    >>> n_directions(rows)
    3
    """
    rows = np.asarray(vectors, np.float64)[:: max(-(-len(vectors) // MOST_ROWS), 1)]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    if len(rows) < 2:
        return 0
    variances = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2
    total = float(variances.sum())
    if total == 0:
        return 0
    return int(np.searchsorted(np.cumsum(variances), SHARE * total) + 1)


def warning(n: int, dim: int) -> str | None:
    """A sentence where the directions are few for the width.

    >>> warning(16, 128)
    'the vectors vary in 16 of 128 directions: a smaller dim would find as much'
    """
    if not 0 < n <= FEW * dim:
        return None
    return f"the vectors vary in {n} of {dim} directions: a smaller dim would find as much"
