"""How rows are compared: the names, and which way is better.

``docs/exactness.md`` defines the scores.
"""

from __future__ import annotations

from typing import Literal, get_args

Metric = Literal["cosine", "ip", "l2", "sqeuclidean"]
METRICS: tuple[Metric, ...] = get_args(Metric)


def is_distance(metric: str) -> bool:
    """Whether the smaller score is the better one.

    >>> is_distance("l2"), is_distance("cosine")
    (True, False)
    """
    return metric in ("l2", "sqeuclidean")
