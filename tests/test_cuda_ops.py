"""fr.scores, topk, normalize, fuse and kmeans of tensors on a device equal the CPU's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cases
import fastretrieve as fr
import oracle
from cuda_backends import NEEDS_CUDA, Place

pytestmark = NEEDS_CUDA


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_scores(metric: str, there: Place) -> None:
    queries, rows = cases.case("ordinary")
    found = fr.scores(there.put(queries), there.put(rows), metric=metric, score_dtype="float64")
    np.testing.assert_array_equal(
        there.host(found).view(np.uint64), oracle.all_scores(queries, rows, metric).view(np.uint64)
    )


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_topk(metric: str, there: Place) -> None:
    queries, rows = cases.case("ordinary")
    sent = there.put(queries), there.put(rows)
    found = fr.topk(*sent, 10, metric=metric, score_dtype="float64")
    there.assert_found(found, oracle.topk(queries, rows, 10, metric))


@pytest.mark.parametrize("dim", [1, 7, 8, 9, 100])
def test_normalize_and_fuse(dim: int, there: Place) -> None:
    random = np.random.default_rng(20)
    layers = [random.standard_normal((37, d)).astype(np.float32) for d in (dim, 3, 17)]
    layers[0][5], layers[1][5] = 0, 0
    means = [random.standard_normal(d).astype(np.float32) for d in (dim, 3, 17)]
    sent = [there.put(layer) for layer in layers]
    found = fr.normalize(sent[0], mean=there.put(means[0]))
    np.testing.assert_array_equal(there.host(found), oracle.normalize(layers[0], means[0]))
    weights = [1.0, 0.5, -2.0]
    found = fr.fuse(sent, weights, means=[None, means[1], None])
    wanted = oracle.fuse(layers, weights, [None, means[1], None])
    np.testing.assert_array_equal(there.host(found), wanted)
    out = torch.empty(wanted.shape, dtype=torch.float16, device=sent[0].device)
    assert fr.fuse(sent, weights, means=[None, means[1], None], dtype="float16", out=out) is out
    np.testing.assert_array_equal(there.host(out), wanted.astype(np.float16))
    with pytest.raises(ValueError, match="out must be a contiguous float32 tensor on"):
        fr.normalize(sent[0], out=np.zeros((37, dim), np.float32))
    with pytest.raises(ValueError, match=r"layer 0 are on .* but layer 1 are on cpu"):
        fr.fuse([sent[0], layers[1]])


def test_kmeans_equals_the_cpu(there: Place) -> None:
    _, rows = cases.gaussian(150, 4, seed=21)
    rows[50:] += 3
    wanted = fr.kmeans(rows, 5, seed=1)
    found = fr.kmeans(there.put(rows), 5, seed=1)
    np.testing.assert_array_equal(there.host(found.centroids), wanted.centroids)
    np.testing.assert_array_equal(there.host(found.assignments), wanted.assignments)
    assert (found.inertia, found.iterations) == (wanted.inertia, wanted.iterations)
