"""Retrieval metrics from ranked relevance, one number a query.

Everything is computed from ``relevant`` [n_queries, depth]: whether the item at each rank is of the
query's class, best rank first; and ``n_relevant`` [n_queries]: how many such items there are.

- ``recall@k``: 1 where any of the first k is relevant, as metric learning counts it. At k = 1 it is
  the accuracy of the nearest neighbour.
- ``coverage@k``: the share of all relevant items that is among the first k, the recall of text
  retrieval.
- ``precision@k``: the share of relevant items among the first k.
- ``mrr``: one over the rank of the first relevant item.
- ``map``: precision at the rank of each relevant item, averaged over all relevant ones; an item
  below ``depth`` counts as 0, and the average is over at most ``depth`` items.
- ``map@r``: the same over the first R ranks only, where R is the number of relevant items.
- ``ndcg@k``, ``ndcg``: gains of 1 discounted by log2(rank + 1), over those of the best order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Relevant = NDArray[np.bool_]
Values = NDArray[np.float64]


def all_metrics(
    relevant: Relevant, n_relevant: NDArray[np.int64], *, ks: Sequence[int]
) -> dict[str, Values]:
    """Every metric, [n_queries] each; every query needs a relevant item.

    >>> found = all_metrics(np.array([[False, True]]), np.array([1]), ks=[1, 2])
    >>> {name: float(value[0]) for name, value in found.items() if "@" not in name}
    {'accuracy': 0.0, 'mrr': 0.5, 'map': 0.5, 'ndcg': 0.6309297535714575}
    """
    hits = relevant.cumsum(axis=1)  # relevant items up to each rank
    metrics = {"accuracy": relevant[:, 0].astype(np.float64)}
    for k in ks:
        found = hits[:, min(k, hits.shape[1]) - 1]
        metrics[f"recall@{k}"] = (found > 0).astype(np.float64)
        metrics[f"precision@{k}"] = found / k
        metrics[f"coverage@{k}"] = found / n_relevant
        metrics[f"ndcg@{k}"] = _ndcg(relevant[:, :k], n_relevant)
    first = np.where(relevant.any(axis=1), relevant.argmax(axis=1) + 1.0, np.inf)
    metrics["mrr"] = 1 / first
    metrics["map"], metrics["map@r"] = _average_precision(relevant, hits, n_relevant)
    metrics["ndcg"] = _ndcg(relevant, n_relevant)
    return metrics


def _average_precision(
    relevant: Relevant, hits: NDArray[np.int64], n_relevant: NDArray[np.int64]
) -> tuple[Values, Values]:
    ranks = np.arange(1, relevant.shape[1] + 1)
    precision = np.where(relevant, hits / ranks, 0.0)
    everything = precision.sum(axis=1) / np.minimum(n_relevant, relevant.shape[1])
    within = np.where(ranks <= n_relevant[:, None], precision, 0.0).sum(axis=1) / n_relevant
    return everything, within


def _ndcg(relevant: Relevant, n_relevant: NDArray[np.int64]) -> Values:
    gains = 1 / np.log2(np.arange(relevant.shape[1]) + 2.0)
    best = gains.cumsum()[np.minimum(n_relevant, relevant.shape[1]) - 1]
    values: Values = relevant @ gains / best
    return values
