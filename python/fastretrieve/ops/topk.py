"""Search and score without keeping an index.

Rows on a GPU are searched there, by the same definitions and to the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastretrieve._backends.devices import common_device, rows_on
from fastretrieve._backends.runtime import backend_for
from fastretrieve._common.arguments import one_of
from fastretrieve._common.arrays import device_of, is_tensor, like
from fastretrieve._common.metric import METRICS, Metric
from fastretrieve._queries.results import Hits, ScoreDType, is_double
from fastretrieve.index import Index


def topk(
    queries: Any,
    rows: Any,
    k: int = 10,
    *,
    metric: Metric = "cosine",
    score_dtype: ScoreDType = "float32",
) -> Hits:
    """Return the exact top ``k`` of ``rows`` for each query; the ids are row numbers.

    >>> fr.topk([[1, 0]], [[0, 1], [2, 0]], k=1, metric="ip").ids
    array([[1]])
    """
    device = device_of(rows)
    matrix = rows_on(device, rows, "rows")
    if matrix.shape[1] == 0:
        raise ValueError("rows must have at least one column")
    if hasattr(queries, "shape") and len(queries.shape) in (1, 2):  # a list waits for the search
        _refuse_other_dim(queries.shape[-1], matrix.shape[1])
    index = Index(matrix.shape[1], metric=metric, device=device)
    # Bits of bfloat16 look like integers, so these rows go in as they came.
    index.add(rows if device == "cpu" and matrix.dtype == np.uint16 else matrix)
    return index.search(queries, k, score_dtype=score_dtype)


def scores(
    queries: Any, rows: Any, *, metric: Metric = "cosine", score_dtype: ScoreDType = "float32"
) -> Any:
    """Return the canonical score of every query with every row, as a matrix: to rank candidates
    from elsewhere again, or to check a search. A search needs no such matrix.

    >>> fr.scores([[3, 4]], [[3, 4], [0, 2]], metric="ip")
    array([[25.,  8.]], dtype=float32)
    """
    one_of(metric, METRICS, "metric")
    device = common_device([queries, rows], ["queries", "rows"])
    q, x = rows_on(device, queries, "queries"), rows_on(device, rows, "rows")
    _refuse_other_dim(q.shape[1], x.shape[1])
    result = backend_for(device).scores(q, x, metric=metric)
    if not is_double(score_dtype):
        result = result.float() if is_tensor(result) else result.astype(np.float32)
    return like(result[0] if np.ndim(queries) == 1 else result, queries)


def _refuse_other_dim(queries: int, rows: int) -> None:
    if queries != rows:
        raise ValueError(f"queries have dimension {queries} but rows have {rows}")
