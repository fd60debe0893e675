"""What only a GPU can show: captured graphs, streams and threads that share an index, and kernels
that begin while the one before them ends.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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


@pytest.mark.parametrize("tier", PRESENT)
@pytest.mark.parametrize("n_queries", [1, 70], ids="{} queries".format)
def test_searches_on_the_heels_of_each_other(
    n_queries: int, tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels begin early, and each search writes where the last one was: a wait too few shows."""
    there = cuda_backends.install(monkeypatch, tier, tensors=True)
    queries, rows = cases.gaussian(60_000, 96, n_queries=8 * n_queries, seed=25)
    index = on_cuda(rows, "cosine")
    plan = index.plan(n_queries, k=10, score_dtype="float64")
    parts = there.put(queries).split(n_queries)
    found = []
    for i in range(400):
        hits = plan(parts[i % 8])
        found.append(fr.Hits(hits.scores.clone(), hits.ids.clone()))
    expected = oracle.topk(queries, rows, 10, "cosine")
    for i, hits in enumerate(found):
        at = slice(i % 8 * n_queries, (i % 8 + 1) * n_queries)
        there.assert_found(hits, oracle.Best(expected.scores[at], expected.ids[at]))


def test_threads_search_indexes_of_different_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's limit of shared memory is one for all threads."""
    there = cuda_backends.install(monkeypatch, PRESENT[-1], tensors=True)
    indexes = []
    for dim in (32, 768, 96, 1024):
        queries, rows = cases.gaussian(5000, dim, n_queries=64, seed=dim)
        indexes.append(
            (on_cuda(rows, "ip"), there.put(queries), oracle.topk(queries, rows, 5, "ip"))
        )

    def work(number: int) -> None:
        index, sent, expected = indexes[number % 4]
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                hits = search(index, sent, 5)
            torch.cuda.current_stream().synchronize()
        there.assert_found(hits, expected)

    torch.cuda.synchronize()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))


def test_what_a_plan_leaves_behind_is_not_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    there = cuda_backends.install(monkeypatch, PRESENT[0], tensors=True)
    queries, rows = cases.gaussian(60_000, 64, n_queries=64, seed=26)
    sent, expected = there.put(queries), oracle.topk(queries, rows, 10, "l2")
    other = torch.cuda.Stream()
    for _ in range(10):
        index = on_cuda(rows, "l2")
        plan = index.plan(64, k=10, score_dtype="float64")
        torch.cuda.synchronize()
        with torch.cuda.stream(other):
            hits = plan(sent)
            kept = fr.Hits(hits.scores.clone(), hits.ids.clone())
        del index, plan, hits  # their memory goes while the other stream still works in it
        litter = [torch.full((1 << 20,), -1, device="cuda") for _ in range(64)]
        torch.cuda.synchronize()
        del litter
        there.assert_found(kept, expected)
