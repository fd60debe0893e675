"""The protocol that indexes of every kind fulfil, and the merge of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fastretrieve._common.arguments import one_of, shown, whole
from fastretrieve._common.arrays import is_tensor, like
from fastretrieve._common.metric import METRICS, is_distance
from fastretrieve._queries.results import Hits, InRange, ScoreDType


@runtime_checkable
class Searchable(Protocol):
    """An index, wherever its rows are: ``fr.Index`` on one machine, and others like it.

    >>> isinstance(fr.Index(8), Searchable)
    True
    """

    @property
    def dim(self) -> int:
        """Numbers in a vector."""

    @property
    def metric(self) -> str:
        """How rows are compared."""

    def __len__(self) -> int:
        """How many rows can be found."""

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        where: Any = None,
        exclude: Any = None,
        score_dtype: ScoreDType = "float32",
    ) -> Hits:
        """The exact top ``k`` rows for each query."""

    def search_ids(
        self,
        ids: Any,
        k: int = 10,
        *,
        include_self: bool = False,
        where: Any = None,
        exclude: Any = None,
        score_dtype: ScoreDType = "float32",
    ) -> Hits:
        """The exact top ``k`` neighbours of rows of the index."""

    def range_search(
        self,
        queries: Any,
        radius: float,
        *,
        where: Any = None,
        exclude: Any = None,
        score_dtype: ScoreDType = "float32",
    ) -> InRange:
        """All rows within ``radius`` of each query."""


def merge(parts: Sequence[Hits], k: int | None = None, *, metric: str = "") -> Hits:
    """The answer of one index that holds the rows of several, from their answers to one question.

    The rows of the parts must be different, and their scores float64: scores that agree in float32
    may differ. ``k`` is by default as many as each part has. ``metric`` is needed for hits that no
    search returned.

    >>> halves = [fr.Index(1, metric="l2") for _ in range(2)]
    >>> _ = halves[0].add([[0], [4]], ids=[5, 6]), halves[1].add([[1], [9]], ids=[2, 3])
    >>> hits = [half.search([[0.5]], k=2, score_dtype="float64") for half in halves]
    >>> fr.merge(hits, k=3).ids
    array([[2, 5, 6]])
    """
    if not len(parts):
        raise ValueError("merge() wants the hits of at least one index, got none")
    metric = _metric_of(parts, metric)
    hosts = [(_host(part[0]), _host(part[1])) for part in parts]
    leading = {scores.shape[:-1] for scores, _ in hosts}
    if len(leading) > 1:
        raise ValueError(f"hits must answer the same queries, got shapes {sorted(leading)}")
    scores = np.concatenate([scores for scores, _ in hosts], axis=-1)
    if scores.dtype != np.float64:
        raise ValueError(
            f"hits must hold float64 scores to be merged, got {scores.dtype}; search each index "
            f"with score_dtype='float64'"
        )
    ids = np.concatenate([ids for _, ids in hosts], axis=-1)
    k = hosts[0][0].shape[-1] if k is None else whole(k, "k")
    keys = np.where(ids < 0, np.inf, scores if is_distance(metric) else -scores)
    # A missing row comes last, even behind one whose distance is infinite.
    order = np.lexsort((np.where(ids < 0, np.iinfo(np.int64).max, ids), keys), axis=-1)
    found = min(k, scores.shape[-1])
    best_scores = np.full((*scores.shape[:-1], k), np.nan)
    best_ids = np.full((*scores.shape[:-1], k), -1, np.int64)
    best_scores[..., :found] = np.take_along_axis(scores, order, axis=-1)[..., :found]
    best_ids[..., :found] = np.take_along_axis(ids, order, axis=-1)[..., :found]
    kind = parts[0][0]
    return Hits(like(best_scores, kind), like(best_ids, kind), metric=metric)


def _metric_of(parts: Sequence[Hits], metric: str) -> str:
    said = {getattr(part, "metric", "") for part in parts} - {""} | ({metric} - {""})
    if len(said) > 1:
        raise ValueError(f"hits must be of one metric to be merged, got {sorted(said)}")
    if not said:
        raise ValueError(
            f"merge() does not know how these hits were compared; give metric=, got {shown(metric)}"
        )
    (name,) = said
    return one_of(name, METRICS, "metric")


def _host(array: Any) -> Any:
    return array.detach().cpu().numpy() if is_tensor(array) else np.asarray(array)
