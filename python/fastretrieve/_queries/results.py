"""The results of searches, and the options for them."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arguments import shown

ScoreDType = Literal["float32", "float64"]


class Hits(tuple[Any, Any]):
    """The best rows for each query, best first; equal scores come in order of id.

    It unpacks, compares and prints as ``(scores, ids)``; everything else known of an answer is an
    attribute.

    >>> scores, ids = Hits(np.array([[1.0]]), np.array([[7]]))
    >>> ids
    array([[7]])
    """

    metric: str  # how rows were compared; "" if unknown
    _proven: Any = None  # None: an exact search found all of it

    def __new__(cls, scores: Any, ids: Any, *, metric: str = "") -> Hits:
        made = tuple.__new__(cls, (scores, ids))
        made.metric = metric
        return made

    @property
    def scores(self) -> Any:
        """[n_queries, k], NaN where there are fewer than ``k`` rows."""
        return self[0]

    @property
    def ids(self) -> Any:
        """[n_queries, k] int64, -1 where there are fewer than ``k`` rows."""
        return self[1]

    @property
    def proven(self) -> Any:
        """[n_queries] int64, how many of the best rows of each query are certain: whatever the
        search did not look at scores worse. An exact search proves all that it finds.
        """
        return (self.ids >= 0).sum(-1) if self._proven is None else self._proven

    def __repr__(self) -> str:
        return f"Hits(scores={self.scores!r}, ids={self.ids!r})"

    def __getnewargs__(self) -> tuple[Any, Any]:
        return self.scores, self.ids


_new = tuple.__new__


def hits_of(found: tuple[Any, Any], metric: str) -> Hits:
    """Hits of (scores, ids). The constructor takes twice as long, 1/40 of a small search."""
    made = _new(Hits, found)
    made.metric = metric
    return made


class InRange(NamedTuple):
    """The rows within the radius of each query: those of query ``i`` are
    ``offsets[i]:offsets[i + 1]``, best first, equal scores in order of id.
    """

    offsets: Any  # [n_queries + 1] int64
    scores: Any  # [n_found]
    ids: Any  # [n_found] int64


class Pairs(NamedTuple):
    """Pairs of rows within a radius, each once."""

    scores: NDArray[Any]  # [n_pairs]
    ids: NDArray[np.int64]  # [n_pairs, 2], the smaller id first


class Graph(NamedTuple):
    """The neighbours of rows of the index, best first; equal scores come in order of id."""

    rows: NDArray[np.int64]  # [n_rows], the ids of the rows
    scores: NDArray[Any]  # [n_rows, k], NaN where there are fewer than k others
    ids: NDArray[np.int64]  # [n_rows, k], -1 there


def as_radius(radius: Any) -> float:
    """The radius as a number; not-a-number is refused."""
    try:
        number = float(radius)
    except (TypeError, ValueError) as error:
        raise TypeError(f"radius must be a number, got {shown(radius)}") from error
    if math.isnan(number):
        raise ValueError("radius must be a number, got NaN")
    return number


def is_double(score_dtype: Any) -> bool:
    """Whether scores are returned as float64; other types than float32 and float64 are refused.

    >>> is_double("float32"), is_double(np.float64)
    (False, True)
    """
    if not isinstance(score_dtype, str) and isinstance(score_dtype, (np.dtype, type)):
        score_dtype = np.dtype(score_dtype).name
    if score_dtype not in ("float32", "float64"):
        raise ValueError(f"score_dtype must be float32 or float64, got {score_dtype!r}")
    return bool(score_dtype == "float64")


def without_self(
    scores: NDArray[Any], found: NDArray[np.int64], ids: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Take each row's own id out of its results, or the last result if it did not place: k others
    with smaller ids scored the same, or its product with itself is not the largest.
    """
    drop = found == ids[:, None]
    drop[~drop.any(axis=1), -1] = True
    shape = (len(ids), found.shape[1] - 1)
    return scores[~drop].reshape(shape), found[~drop].reshape(shape)
