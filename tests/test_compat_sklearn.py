"""The neighbours transformer is an estimator like any other, and its graphs are scikit-learn's."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import clone  # noqa: E402
from sklearn.cluster import DBSCAN  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier, KNeighborsTransformer  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.utils.estimator_checks import estimator_checks_generator  # noqa: E402

from fastretrieve.compat.sklearn import NeighborsTransformer  # noqa: E402

CHECKS = list(estimator_checks_generator(NeighborsTransformer()))


def check_name(value: Any) -> str:
    return getattr(getattr(value, "func", value), "__name__", "")


@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=check_name)
def test_estimator_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(61)
    labels = random.integers(0, 4, 400)
    rows = random.integers(-20, 20, (4, 9))[labels] + random.integers(-9, 10, (400, 9))
    return rows.astype(np.float32), labels


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("mode", ["distance", "connectivity"])
def test_graphs_are_those_of_scikit_learn(
    data: tuple[np.ndarray, np.ndarray], mode: Any, metric: str
) -> None:
    rows = np.random.default_rng(62).standard_normal((300, 9)).astype(np.float32)
    ours = NeighborsTransformer(n_neighbors=6, mode=mode, metric=metric).fit(rows)
    theirs = KNeighborsTransformer(n_neighbors=6, mode=mode, metric=metric, algorithm="brute").fit(
        rows.astype(np.float64)
    )
    queries = data[0][:50]
    for found, expected in [
        (ours.transform(queries), theirs.transform(queries.astype(np.float64))),
        (ours.kneighbors_graph(), theirs.kneighbors_graph(mode=mode)),
    ]:
        assert found.shape == expected.shape
        assert found.nnz == expected.nnz
        np.testing.assert_array_equal(found.indptr, expected.indptr)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_allclose(found.data, expected.data, rtol=1e-9, atol=1e-12)


def test_fit_transform_keeps_one_more_neighbour(data: tuple[np.ndarray, np.ndarray]) -> None:
    rows = np.unique(data[0], axis=0)
    graph = NeighborsTransformer(n_neighbors=5).fit_transform(rows)
    assert (np.diff(graph.indptr) == 6).all()
    np.testing.assert_array_equal(graph.indices[::6], np.arange(len(rows)))  # itself comes first
    assert (graph.data[::6] == 0).all()
    assert NeighborsTransformer(n_neighbors=5, mode="connectivity").fit_transform(rows).nnz == (
        5 * len(rows)
    )


def test_classifier_on_precomputed_graphs(data: tuple[np.ndarray, np.ndarray]) -> None:
    rows, labels = data
    pipeline = make_pipeline(
        NeighborsTransformer(n_neighbors=7), KNeighborsClassifier(5, metric="precomputed")
    )
    pipeline.fit(rows[:300], labels[:300])
    direct = KNeighborsClassifier(5, algorithm="brute").fit(rows[:300], labels[:300])
    agree = pipeline.predict(rows[300:]) == direct.predict(rows[300:])
    assert agree.mean() > 0.95  # ties between distances are broken differently
    assert pipeline.score(rows[300:], labels[300:]) > 0.8


def test_grid_search_and_clustering(data: tuple[np.ndarray, np.ndarray]) -> None:
    rows, labels = data
    pipeline = make_pipeline(
        NeighborsTransformer(n_neighbors=9), KNeighborsClassifier(metric="precomputed")
    )
    grid = {
        "kneighborsclassifier__n_neighbors": [1, 5],
        "neighborstransformer__metric": ["euclidean", "cosine"],
    }
    search = GridSearchCV(pipeline, grid, cv=3).fit(rows, labels)
    assert search.best_score_ > 0.8
    clustering = make_pipeline(
        NeighborsTransformer(n_neighbors=20), DBSCAN(eps=18, metric="precomputed")
    )
    assert len(clustering.fit_predict(rows)) == 400


def test_parameters_and_copies(data: tuple[np.ndarray, np.ndarray]) -> None:
    transformer = NeighborsTransformer(n_neighbors=3, metric="cosine")
    assert transformer.get_params() == {"mode": "distance", "n_neighbors": 3, "metric": "cosine"}
    transformer.set_params(n_neighbors=4).fit(data[0])
    again = pickle.loads(pickle.dumps(transformer))
    np.testing.assert_array_equal(
        again.transform(data[0]).toarray(), transformer.transform(data[0]).toarray()
    )
    assert not hasattr(clone(transformer), "vectors_")
    names = transformer.get_feature_names_out()
    assert (len(names), names[1]) == (400, "neighborstransformer1")


def test_errors() -> None:
    rows = np.eye(3)
    with pytest.raises(ValueError, match="metric must be one of euclidean, l2"):
        NeighborsTransformer(metric="ip").fit(rows)
    with pytest.raises(ValueError, match="mode must be distance or connectivity"):
        NeighborsTransformer(mode="both").fit(rows)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n_neighbors must be at least 1, got 0"):
        NeighborsTransformer(n_neighbors=0).fit(rows)
    with pytest.raises(TypeError, match=r"n_neighbors must be a whole number, got 2\.5"):
        NeighborsTransformer(n_neighbors=2.5).fit(rows)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected n_neighbors <= 3, but n_neighbors = 4"):
        NeighborsTransformer(n_neighbors=3).fit_transform(rows)
