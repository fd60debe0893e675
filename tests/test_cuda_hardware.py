"""What only a GPU can show: captured graphs and streams that share an index."""

from __future__ import annotations

import pytest
import torch

import cases
import cuda_backends
import fastretrieve as fr
import oracle
from cuda_backends import PRESENT
from search_checks import on_cuda, search

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("tier", PRESENT)
@pytest.mark.parametrize("n_queries", [1, 300], ids="{} queries".format)
def test_a_captured_plan_replays(
    n_queries: int, tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = cuda_backends.install(monkeypatch, tier, tensors=True)
    queries, rows = cases.gaussian(20000, 64, n_queries=2 * n_queries, seed=22)
    index = on_cuda(rows, "l2")
    plan = index.plan(n_queries, k=10, score_dtype="float64")
    static = there.put(queries[:n_queries]).clone()
    plan(static)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        plan(static)
    for part in (queries[:n_queries], queries[n_queries:]):
        static.copy_(there.put(part))
        graph.replay()
        torch.cuda.synchronize()
        there.assert_found(fr.Hits(plan.scores, plan.ids), oracle.topk(part, rows, 10, "l2"))


def test_other_streams_see_what_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    there = cuda_backends.install(monkeypatch, PRESENT[0], tensors=True)
    queries, rows = cases.gaussian(20000, 64, n_queries=8, seed=23)
    sent = there.put(queries)
    torch.cuda.synchronize()
    expected = oracle.topk(queries, rows, 10, "ip")
    for _ in range(5):
        index = on_cuda(rows, "ip", adds=[5000, 5000])
        streams = [torch.cuda.Stream() for _ in range(3)]
        found = []
        for stream in streams:
            with torch.cuda.stream(stream):
                found.append(search(index, sent, 10))
        index.compact()  # the old blocks go while searches may still read them
        torch.cuda.synchronize()
        for hits in found:
            there.assert_found(hits, expected)
