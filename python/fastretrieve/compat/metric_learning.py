"""Neighbours for pytorch-metric-learning's ``AccuracyCalculator`` and its testers.

    AccuracyCalculator(knn_func=KnnFunc("l2"))

Nothing of pytorch-metric-learning is imported: its ``knn_func`` is any callable with this
signature.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arguments import one_of, whole
from fastretrieve._common.arrays import as_rows, is_tensor, like
from fastretrieve._common.metric import METRICS, Metric
from fastretrieve._queries.results import without_self
from fastretrieve.index import Index


class KnnFunc:
    """Exact neighbours: ``(query, k, reference, ref_includes_query) -> (distances, indices)``.

    As in the library's own functions, ``indices`` are row numbers of ``reference``, best first;
    ``ref_includes_query`` says that the first rows of the reference are the queries, in the same
    order: each then leaves itself out. The order is that of ``metric``, whose scores are returned:
    distances for l2 and sqeuclidean, similarities for cosine and ip.

    >>> import torch
    >>> rows = torch.tensor([[0.0], [1.0], [3.0]])
    >>> distances, indices = KnnFunc("l2")(rows, 1, rows, True)
    >>> distances.tolist(), indices.tolist()
    ([[1.0], [1.0], [2.0]], [[1], [0], [1]])
    """

    def __init__(self, metric: Metric = "l2") -> None:
        one_of(metric, METRICS, "metric")
        self.metric: Metric = metric

    def __call__(
        self, query: Any, k: int, reference: Any = None, ref_includes_query: bool = False
    ) -> tuple[Any, Any]:
        """The ``k`` nearest rows of ``reference`` (of ``query`` itself if there is none)."""
        if reference is None:
            reference, ref_includes_query = query, True
        rows = as_rows(_on_cpu(reference), name="reference")
        n_queries = len(as_rows(_on_cpu(query), name="query"))
        k = whole(k, "k")
        most = len(rows) - bool(ref_includes_query)
        if k > most:
            raise ValueError(
                f"k must be at most {most}, the rows of the reference that can be found, got {k}"
            )
        if ref_includes_query and n_queries > len(rows):
            raise ValueError(
                f"ref_includes_query says that the {n_queries} queries are rows of the reference, "
                f"which has {len(rows)}"
            )
        index = Index(rows.shape[1], metric=self.metric)
        index.add(_on_cpu(reference))
        scores, ids = index.search(_on_cpu(query), k + bool(ref_includes_query))
        scores, ids = np.asarray(scores), np.asarray(ids)
        if ref_includes_query:
            scores, ids = without_self(scores, ids, np.arange(n_queries))
        return _as(scores, query), _as(ids, query)


def _on_cpu(array: Any) -> Any:
    return array.detach().cpu() if is_tensor(array) else array


def _as(result: NDArray[Any], original: Any) -> Any:
    """``result`` as a tensor beside the original, where that is one."""
    return like(result, original).to(original.device) if is_tensor(original) else result
