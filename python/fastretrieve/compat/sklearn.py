"""A neighbours transformer for scikit-learn's pipelines (scikit-learn 1.6 or newer).

    make_pipeline(NeighborsTransformer(n_neighbors=5), KNeighborsClassifier(metric="precomputed"))

It takes the place of ``sklearn.neighbors.KNeighborsTransformer`` wherever a precomputed graph is
accepted: KNeighborsClassifier, DBSCAN, SpectralClustering, Isomap, TSNE, ...
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix  # scikit-learn needs it too
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from fastretrieve._common.metric import Metric
from fastretrieve._queries.results import without_self
from fastretrieve.index import Index

Mode = Literal["distance", "connectivity"]

_METRICS: dict[str, Metric] = {
    "euclidean": "l2",
    "l2": "l2",
    "sqeuclidean": "sqeuclidean",
    "cosine": "cosine",
}


class NeighborsTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn rows into the sparse graph of their exact nearest training rows.

    As in scikit-learn, ``transform`` in mode "distance" stores ``n_neighbors + 1`` neighbours of
    each row, because a training row is its own first neighbour, and estimators downstream leave it
    out. Vectors are kept as float32. ``metric`` is euclidean (or l2), sqeuclidean or cosine, whose
    distance is ``1 - cosine``.

    >>> graph = NeighborsTransformer(n_neighbors=1).fit_transform([[0.0], [1.0], [3.0]])
    >>> graph.toarray().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
    """

    def __init__(
        self, *, mode: Mode = "distance", n_neighbors: int = 5, metric: str = "euclidean"
    ) -> None:
        self.mode = mode
        self.n_neighbors = n_neighbors
        self.metric = metric

    def fit(self, X: Any, y: Any = None) -> NeighborsTransformer:
        """Remember the rows of ``X``; ``y`` is ignored."""
        self._check_parameters()
        rows = validate_data(self, X, dtype=[np.float64, np.float32])
        self.n_samples_fit_ = self._n_features_out = len(rows)
        self.vectors_ = rows.astype(np.float32)  # what a pickle holds
        self._index = _indexed(self.vectors_, _METRICS[self.metric])
        return self

    def transform(self, X: Any) -> csr_matrix:
        """The graph from the rows of ``X`` to the training rows."""
        check_is_fitted(self)
        return self.kneighbors_graph(X, self.n_neighbors + (self.mode == "distance"))

    def kneighbors(
        self, X: Any = None, n_neighbors: int | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(distances, indices) of the nearest training rows; without ``X``, of the training rows
        themselves, which are then not their own neighbours.
        """
        check_is_fitted(self)
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        queries = self.vectors_
        if X is not None:
            rows = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
            queries = rows.astype(np.float32)
        most = self.n_samples_fit_ - (X is None)
        if k > most:
            raise ValueError(
                f"Expected n_neighbors <= {most}, but n_neighbors = {k}, "
                f"n_samples_fit = {self.n_samples_fit_}, n_samples = {len(queries)}"
            )
        hits = self._index.search(queries, k + (X is None), score_dtype="float64")
        scores, ids = hits.scores, hits.ids
        if X is None:
            scores, ids = without_self(scores, ids, np.arange(len(queries)))
        # Rounding can put the cosine of parallel vectors a little above 1.
        return np.maximum(1 - scores, 0.0) if self.metric == "cosine" else scores, ids

    def kneighbors_graph(self, X: Any = None, n_neighbors: int | None = None) -> csr_matrix:
        """:meth:`kneighbors` as a sparse matrix, nearest first in each row; ones in the mode
        "connectivity".
        """
        distances, ids = self.kneighbors(X, n_neighbors)
        data = distances if self.mode == "distance" else np.ones(ids.shape)
        n_rows, k = ids.shape
        ends = np.arange(0, n_rows * k + 1, k)
        shape = (n_rows, self.n_samples_fit_)
        return csr_matrix((data.ravel(), ids.ravel(), ends), shape=shape)

    def _check_parameters(self) -> None:
        if self.metric not in _METRICS:
            raise ValueError(f"metric must be one of {', '.join(_METRICS)}, got {self.metric!r}")
        if self.mode not in ("distance", "connectivity"):
            raise ValueError(f"mode must be distance or connectivity, got {self.mode!r}")
        if isinstance(self.n_neighbors, bool) or not hasattr(self.n_neighbors, "__index__"):
            raise TypeError(f"n_neighbors must be a whole number, got {self.n_neighbors!r}")
        if self.n_neighbors < 1:
            raise ValueError(f"n_neighbors must be at least 1, got {self.n_neighbors}")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "vectors_")

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_index"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "vectors_"):
            self._index = _indexed(self.vectors_, _METRICS[self.metric])


def _indexed(vectors: NDArray[np.float32], metric: Metric) -> Index:
    index = Index(vectors.shape[1], metric=metric)
    index.add(vectors)
    return index
