"""``KnnFunc`` answers as the functions of pytorch-metric-learning do; its calculator takes it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import oracle
from fastretrieve.compat.metric_learning import KnnFunc


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(71).standard_normal((150, 11), np.float32))


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_distinct_queries(rows: torch.Tensor, metric: str) -> None:
    queries = torch.randn(6, 11, generator=torch.Generator().manual_seed(1))
    distances, indices = KnnFunc(metric)(queries, 5, rows, False)  # type: ignore[arg-type]
    expected = oracle.topk(queries.numpy(), rows.numpy(), 5, metric)
    assert distances.dtype == torch.float32
    assert indices.dtype == torch.int64
    np.testing.assert_array_equal(indices, expected.ids)
    np.testing.assert_array_equal(distances, expected.scores.astype(np.float32))


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_queries_leave_themselves_out(rows: torch.Tensor, metric: str) -> None:
    rows[100:130] = rows[3]  # so many equal rows that some do not find themselves
    queries = rows[:120]
    distances, indices = KnnFunc(metric)(queries, 9, rows, True)  # type: ignore[arg-type]
    allowed = np.arange(150)[None] != np.arange(120)[:, None]
    expected = oracle.topk(queries.numpy(), rows.numpy(), 9, metric, allowed=allowed)
    np.testing.assert_array_equal(indices, expected.ids)
    np.testing.assert_array_equal(distances, expected.scores.astype(np.float32))


def test_without_a_reference_and_with_other_arrays(rows: torch.Tensor) -> None:
    _, expected = KnnFunc()(rows, 3, rows, True)
    _, indices = KnnFunc()(rows.numpy(), 3)
    assert isinstance(indices, np.ndarray)
    np.testing.assert_array_equal(indices, expected)
    graph = rows.clone().requires_grad_()
    assert KnnFunc()(graph, 1, graph, True)[0].requires_grad is False


def test_errors(rows: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="metric must be"):
        KnnFunc("euclidean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="k must be at most 149"):
        KnnFunc()(rows, 150, rows, True)
    with pytest.raises(ValueError, match="the 150 queries are rows of the reference"):
        KnnFunc()(rows, 1, rows[:10], True)


@pytest.mark.filterwarnings("ignore")  # the library's own
@pytest.mark.parametrize("same", [True, False])
def test_accuracy_calculator_agrees_with_its_own_function(rows: torch.Tensor, same: bool) -> None:
    reason = "pytorch-metric-learning is not installed"
    pytest.importorskip("pytorch_metric_learning", reason=reason)
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    labels = torch.arange(150) % 7
    rows = rows + 1.5 * torch.nn.functional.one_hot(labels, 11)
    reports = []
    for knn in (KnnFunc("l2"), CustomKNN(LpDistance(normalize_embeddings=False))):
        calculator = AccuracyCalculator(
            include=("precision_at_1", "mean_average_precision_at_r", "r_precision"),
            k="max_bin_count",
            knn_func=knn,
            device=torch.device("cpu"),
        )
        if same:
            reports.append(calculator.get_accuracy(rows, labels))
        else:
            parts = (rows[:50], labels[:50], rows[50:], labels[50:])
            reports.append(calculator.get_accuracy(*parts))
    assert reports[0].keys() == reports[1].keys()
    for name, value in reports[0].items():
        assert value == pytest.approx(reports[1][name], abs=1e-6)


@pytest.mark.parametrize("adapter", ["faiss", "metric_learning"])
def test_adapters_import_no_library(adapter: str) -> None:
    code = (
        f"import sys, fastretrieve.compat.{adapter}\n"
        "print([name for name in sys.modules if name in "
        "('torch', 'faiss', 'sklearn', 'pytorch_metric_learning')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
