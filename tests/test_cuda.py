"""The CUDA backend returns what the oracle returns, bit for bit: on a GPU, or emulated.

Every test runs on every tier that the device has. What needs hardware to mean anything is marked
``gpu``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import cases
import cuda_backends
import fastretrieve as fr
import oracle
from cuda_backends import Place
from test_search import SEGMENTS, build, rounded, search

pytestmark = pytest.mark.skipif(
    bool(cuda_backends.reason()), reason=f"no CUDA backend: {cuda_backends.reason()}"
)
TIERS = cuda_backends.tiers() if not cuda_backends.reason() else []
KINDS = [True, False] if cuda_backends.reason() or cuda_backends.emulated() else [True]


@pytest.fixture(params=TIERS)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Every tier, with host arrays in and out."""
    return cuda_backends.install(monkeypatch, request.param, tensors=False)


@pytest.fixture(params=TIERS[:1])
def there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The first tier, with tensors on the device."""
    return cuda_backends.install(monkeypatch, request.param, tensors=True)


def on_cuda(rows: np.ndarray, metric: str, **options: Any) -> Any:
    return build(rows, metric, device="cuda", **options)


@cache
def exact(name: str, metric: str) -> np.ndarray:
    return oracle.all_scores(*cases.case(name), metric)


def assert_found(place: Place, hits: Any, expected: oracle.Best) -> None:
    oracle.assert_same(fr.Hits(place.host(hits.scores), place.host(hits.ids)), expected)


# --- search ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("name", cases.MAKERS)
def test_hard_cases(name: str, metric: str, place: Place) -> None:
    queries, rows = cases.case(name)
    index, n = on_cuda(rows, metric), len(rows)
    for k in (1, 10, 100, n, n + 5):
        oracle.assert_same(search(index, queries, k), oracle.best(exact(name, metric), k, metric))


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean"])
@pytest.mark.parametrize("dim", [1, 2, 3, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 767, 769])
def test_dimensions(dim: int, metric: str, place: Place) -> None:
    queries, rows = cases.gaussian(2500, dim, n_queries=11)
    expected = oracle.topk(queries, rows, 7, metric)
    index = on_cuda(rows, metric)
    for n in (1, 3, 11):
        found = search(index, queries[:n], 7)
        oracle.assert_same(found, oracle.Best(expected.scores[:n], expected.ids[:n]))


@pytest.mark.parametrize("dim", [4096, 16384])
def test_large_dimensions(dim: int, place: Place) -> None:
    queries, rows = cases.gaussian(2200, dim, n_queries=2)
    rows[::2] = np.sign(rows[::2])  # the largest sums of codes
    queries[0] = np.sign(queries[0])
    for metric in ("ip", "l2"):
        found = search(on_cuda(rows, metric), queries, 3)
        oracle.assert_same(found, oracle.topk(queries, rows, 3, metric))


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_batches_around_the_tiles(metric: str, place: Place) -> None:
    queries, rows = cases.gaussian(3000, 40, n_queries=300, seed=1)
    expected = oracle.topk(queries, rows, 10, metric)
    index = on_cuda(rows, metric, adds=[1000, 900])
    for n in (1, 7, 8, 9, 16, 17, 33, 64, 65, 129, 256, 257, 300):
        found = search(index, queries[:n], 10)
        oracle.assert_same(found, oracle.Best(expected.scores[:n], expected.ids[:n]))


@pytest.mark.parametrize("k", [500, 1500, 3000])
def test_more_results_than_are_sorted_in_shared_memory(k: int, place: Place) -> None:
    queries, rows = cases.gaussian(14000, 16, n_queries=3, seed=2)
    found = search(on_cuda(rows, "l2"), queries, k)
    oracle.assert_same(found, oracle.topk(queries, rows, k, "l2"))


@pytest.mark.parametrize("own_ids", [False, True])
@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("sizes", SEGMENTS.values(), ids=SEGMENTS)
def test_segments(sizes: list[int], metric: str, own_ids: bool, place: Place) -> None:
    queries, rows = cases.gaussian(2600, 19, seed=3)
    rows[200:260] = rows[700:760]  # ties between segments, decided by id
    random = np.random.default_rng(4)
    ids = random.permutation(9000)[: len(rows)].astype(np.int64) if own_ids else None
    index = on_cuda(rows, metric, ids=ids, adds=sizes)
    queries = np.concatenate([queries, rows[200:203]])
    oracle.assert_same(search(index, queries, 12), oracle.topk(queries, rows, 12, metric, ids=ids))


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_stored_in_16_bits(dtype: str, metric: str, place: Place) -> None:
    queries, rows = cases.gaussian(2500, 45, n_queries=6, seed=5)
    queries[1], rows[5] = 0, 0
    rows[7] *= 1e-6  # subnormal in float16
    index = on_cuda(rows, metric, dtype=dtype, adds=[100, 37])
    stored = rounded(rows, dtype)
    np.testing.assert_array_equal(index.get(index.ids).astype(np.float32), stored)
    for kind in ("float32", "float16", "bfloat16"):
        sent = torch.from_numpy(queries).to(getattr(torch, kind))
        found = search(index, sent, 9)
        expected = oracle.topk(sent.float().numpy(), stored, 9, metric)
        oracle.assert_same(fr.Hits(found.scores.numpy(), found.ids.numpy()), expected)


@pytest.mark.parametrize("metric", ["ip", "sqeuclidean"])
@pytest.mark.parametrize("density", [0.0, 0.003, 0.5, 1.0])
@pytest.mark.parametrize("for_each_query", [False, True])
def test_masks(for_each_query: bool, density: float, metric: str, place: Place) -> None:
    queries, rows = cases.gaussian(2600, 21, n_queries=70, seed=6)
    queries[3] = 0
    random = np.random.default_rng(7)
    allowed = random.random((len(queries) if for_each_query else 1, len(rows))) < density
    index = on_cuda(rows, metric, adds=[130])
    for n in (1, 6, 70):
        where = allowed[:n] if for_each_query else allowed[0]
        found = index.search(queries[:n], 10, where=where, score_dtype="float64")
        shared = allowed[:n] if for_each_query else allowed
        oracle.assert_same(found, oracle.topk(queries[:n], rows, 10, metric, allowed=shared))


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("keep", [0, 1, 64, 500])
def test_removed_rows_never_come_back(keep: int, metric: str, place: Place) -> None:
    queries, rows = cases.gaussian(2600, 17, seed=8)
    queries[0] = 0
    index = on_cuda(rows, metric, adds=[64, 65, 300])
    stay = np.zeros(len(rows), bool)
    stay[np.random.default_rng(9).permutation(len(rows))[:keep]] = True
    index.remove(np.flatnonzero(~stay))
    expected = oracle.topk(queries, rows, 10, metric, allowed=stay)
    oracle.assert_same(search(index, queries, 10), expected)
    index.compact()
    oracle.assert_same(search(index, queries, 10), expected)


def test_near_duplicates_overflow_and_stay_exact(place: Place) -> None:
    queries, rows = cases.case("near duplicates overflow the buffer")
    index = on_cuda(rows, "l2")
    oracle.assert_same(search(index, queries, 10), oracle.topk(queries, rows, 10, "l2"))
    stats = index.stats()
    assert stats["overflows"] > 0
    assert stats["queries"] == len(queries)


def test_the_scan_leaves_few_rows_to_score(place: Place) -> None:
    queries, rows = cases.gaussian(20000, 64, n_queries=4, seed=10)
    index = on_cuda(rows, "ip")
    oracle.assert_same(search(index, queries, 10), oracle.topk(queries, rows, 10, "ip"))
    stats = index.stats()
    assert stats["overflows"] == 0
    assert stats["rows_scanned"] >= 4 * 19900
    assert 10 <= stats["rows_scored_per_query"] < 400


def test_an_empty_index_and_an_empty_batch(place: Place) -> None:
    index = fr.Index(5, device="cuda")
    found = search(index, np.ones((2, 5), np.float32), 3)
    assert np.isnan(found.scores).all()
    assert (found.ids == -1).all()
    index.add(np.ones((3, 5)))
    assert search(index, np.ones((0, 5), np.float32), 3).ids.shape == (0, 3)


def test_the_order_of_lanes_and_blocks_changes_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, rows = cases.case("many ties")
    expected = oracle.topk(queries, rows, 10, "ip")
    wide = cases.gaussian(4000, 33, n_queries=20, seed=11)
    for seed in ("1", "2", "3"):
        monkeypatch.setenv("FR_EMU_SEED", seed)
        oracle.assert_same(search(on_cuda(rows, "ip"), queries, 10), expected)
        found = search(on_cuda(wide.rows, "cosine"), wide.queries, 9)
        oracle.assert_same(found, oracle.topk(*wide, 9, "cosine"))


# --- arrays in and out ----------------------------------------------------------------------------


def test_queries_that_are_not_finite(there: Place) -> None:
    queries, rows = cases.gaussian(2500, 12, n_queries=4, seed=12)
    queries[1, 3], queries[2, 0] = np.nan, np.inf
    index = on_cuda(rows, "l2")
    with pytest.raises(ValueError, match=r"queries hold a value that is not finite in row 1"):
        search(index, queries, 3)
    sent = there.put(queries)
    with pytest.raises(ValueError, match=r"not finite in row 1"):
        index.search(sent, 3, check=True)
    found = search(index, sent, 3)
    ids, scores = there.host(found.ids), there.host(found.scores)
    assert (ids[1:3] == -1).all()
    assert np.isnan(scores[1:3]).all()
    good = [0, 3]
    expected = oracle.topk(queries[good], rows, 3, "l2")
    oracle.assert_same(fr.Hits(scores[good], ids[good]), expected)
    assert index.stats()["unfit_queries"] == 2


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_tensors_on_the_device_stay_there(dtype: str, there: Place) -> None:
    queries, rows = cases.gaussian(2500, 24, n_queries=4, seed=13)
    kind = getattr(torch, dtype)
    sent_rows, sent = there.put(rows).to(kind), there.put(queries).to(kind)
    index = fr.Index(24, metric="cosine", dtype=dtype, device="cuda")
    index.add(sent_rows)
    found = search(index, sent, 5)
    assert isinstance(found.ids, torch.Tensor)
    wide = [there.host(t.float()) for t in (sent, sent_rows)]
    expected = oracle.topk(*wide, 5, "cosine")
    assert_found(there, found, expected)
    one = search(index, sent[1], 5)
    assert one.ids.shape == (5,)
    np.testing.assert_array_equal(there.host(one.ids), expected.ids[1])
    strided = torch.stack([sent, sent], dim=2)[:, :, 0]
    assert_found(there, search(index, strided, 5), expected)
    assert_found(there, search(index, there.host(sent.float()), 5), expected)  # NumPy back


def test_results_written_to_out(there: Place) -> None:
    queries, rows = cases.gaussian(2500, 24, n_queries=4, seed=14)
    expected = oracle.topk(queries, rows, 5, "ip")
    index = on_cuda(rows, "ip")
    sent = there.put(queries)
    out = (there.put(np.zeros((4, 5))), there.put(np.zeros((4, 5), np.int64)))
    found = index.search(sent, 5, score_dtype="float64", out=out)
    assert found.ids is out[1]
    assert_found(there, fr.Hits(*out), expected)
    where = np.arange(len(rows)) % 2 == 0
    index.search(sent, 5, score_dtype="float64", out=out, where=where)
    assert_found(there, fr.Hits(*out), oracle.topk(queries, rows, 5, "ip", allowed=where))
    numpy = (np.zeros((4, 5)), np.zeros((4, 5), np.int64))
    index.search(queries, 5, score_dtype="float64", out=numpy)
    oracle.assert_same(fr.Hits(*numpy), expected)
    with pytest.raises(ValueError, match="out must be where the queries are"):
        index.search(sent, 5, score_dtype="float64", out=numpy)


def test_a_plan_pins_its_state_and_owns_its_results(there: Place) -> None:
    queries, rows = cases.gaussian(5000, 24, n_queries=8, seed=15)
    index = on_cuda(rows, "ip")
    expected = oracle.topk(queries, rows, 5, "ip")
    plan = index.plan(8, k=5, score_dtype="float64")
    assert "CudaPlan" in repr(plan)
    assert plan.nbytes > 8 * 5 * 16
    index.remove(expected.ids[:, 0].tolist()[:1])
    index.compact()
    sent = there.put(queries)
    found = plan(sent)
    assert found.ids.data_ptr() == plan.ids.data_ptr()
    assert_found(there, found, expected)
    part = plan(sent[:3])
    assert_found(there, part, oracle.Best(expected.scores[:3], expected.ids[:3]))
    oracle.assert_same(plan(queries), expected)  # NumPy in, NumPy out
    with pytest.raises(ValueError, match="the plan is for up to 8 queries, got 16"):
        plan(there.put(np.concatenate([queries, queries])))


def test_rows_by_id_and_neighbours_of_rows(place: Place) -> None:
    _, rows = cases.gaussian(2500, 13, seed=16)
    ids = np.random.default_rng(17).permutation(9000)[:2500].astype(np.int64)
    index = on_cuda(rows, "l2", ids=ids, adds=[70, 200])
    np.testing.assert_array_equal(index.get(ids[[5, 99, 2000]]), rows[[5, 99, 2000]])
    cpu = build(rows, "l2", ids=ids)
    wanted, found = (i.search_ids(ids[:20], 4, score_dtype="float64") for i in (cpu, index))
    oracle.assert_same(found, oracle.Best(wanted.scores, wanted.ids))
    assert index.nbytes > rows.nbytes


# --- joins ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("tensors", KINDS)
def test_joins_equal_the_cpu(metric: str, tensors: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    place = cuda_backends.install(monkeypatch, TIERS[0], tensors=tensors)
    queries, rows = cases.gaussian(330, 9, n_queries=70, seed=18)
    queries[3], rows[10:20] = 0, rows[30:40]
    radius = {"ip": 4.0, "cosine": 0.8, "l2": 2.0, "sqeuclidean": 4.0}[metric]
    where = np.random.default_rng(19).random((70, 320)) < 0.5
    answers = []
    for device in ("cpu", "cuda"):
        index = build(rows, metric, device=device, adds=[100, 65])
        index.remove(np.arange(50, 60))
        sent = place.put(queries) if device == "cuda" else queries
        found = [index.range_search(sent, radius, score_dtype="float64")]
        found.append(index.range_search(sent, radius, where=where, score_dtype="float64"))
        found.append(index.range_search(sent, radius, exclude=[1, 2, 3]))
        found.append(index.pairs(radius, score_dtype="float64"))
        found.append(index.knn_graph(3, score_dtype="float64"))
        parts = list(index.iter_pairs(radius, batch=7))
        found.append(tuple(np.concatenate(column) for column in zip(*parts, strict=True)))
        answers.append([place.host(array) for result in found for array in result])
    for wanted, got in zip(*answers, strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)


# --- operations -----------------------------------------------------------------------------------


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
    assert_found(there, found, oracle.topk(queries, rows, 10, metric))


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


# --- errors ---------------------------------------------------------------------------------------


def test_errors_say_what_was_wrong(there: Place) -> None:
    index = fr.Index(4, device="cuda")
    rows = np.ones((100, 4), np.float32)
    rows[70, 2] = np.nan
    for sent in (rows, there.put(rows)):
        with pytest.raises(ValueError, match="not finite in float32 in row 70; nothing was added"):
            index.add(sent)
    assert len(index) == 0
    with pytest.raises(ValueError, match="queries have dimension 5 but the index has dimension 4"):
        index.search(there.put(np.ones((2, 5), np.float32)))
    with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64"):
        index.search(there.put(np.ones((2, 4), np.int64)))
    with pytest.raises(ValueError, match="one or two dimensions"):
        index.search(there.put(np.ones((2, 2, 4), np.float32)))


def test_a_tier_is_forced_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastretrieve.cuda import CudaBackend

    for tier in TIERS:
        monkeypatch.setenv("FASTRETRIEVE_CUDA_TIER", tier)
        assert CudaBackend(emulated=cuda_backends.emulated()).name == tier
    monkeypatch.setenv("FASTRETRIEVE_CUDA_TIER", "warp")
    with pytest.raises(ValueError, match="CUDA tier must be dp4a, mma or wgmma, got 'warp'"):
        CudaBackend(emulated=cuda_backends.emulated())


def test_backends_say_emulated_or_what_device_it_is() -> None:
    row = next(backend for backend in fr.backends() if backend.name == "cuda")
    assert row.available
    assert ("emulated" in row.reason) == cuda_backends.emulated()


# --- hardware only --------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("n_queries", [1, 300], ids="{} queries".format)
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
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
        assert_found(there, fr.Hits(plan.scores, plan.ids), oracle.topk(part, rows, 10, "l2"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_other_streams_see_what_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    there = cuda_backends.install(monkeypatch, TIERS[0], tensors=True)
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
            assert_found(there, hits, expected)
