"""A search through a screen returns what the oracle returns, in every bit, and what its heads and
boxes rule out cannot place: a wrong bound hides from tests that look at answers only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import cases
import fastretrieve as fr
import oracle
import screens
from fastretrieve import _core
from fastretrieve._backends.cpu import CpuBackend
from fastretrieve._state import choosing, screening
from fastretrieve._state.recall import probes_for
from search_checks import build, rounded, search

UseThreads = Callable[[int], None]
NAMES = [name for name in cases.MAKERS if len(cases.case(name).rows) >= 64]  # have a whole strip
WIDTH = 64  # cases are padded with zeros to so many numbers, which changes no score


@pytest.fixture
def always() -> Iterator[None]:
    """Every search goes through its screen, whatever it costs."""
    _core.use_screens("always")
    yield
    _core.use_screens("by cost")


@contextmanager
def any_rows(head: int) -> Iterator[None]:
    """Optimize few rows, and rows that gain nothing."""
    with (
        mock.patch.multiple(screening, MIN_ROWS=64, MIN_DIM=1, MOST_DIMENSIONS=np.inf),
        mock.patch.multiple(choosing, LEAST_GAIN=0.0, HEADS=(head,)),
    ):
        yield


def optimized(rows: np.ndarray, metric: str, *, head: int = 32, **options: object) -> fr.Index:
    index: fr.Index = build(rows, metric, **options)
    with any_rows(head):
        made = index.optimize()
    assert made.head == head, made
    assert made.rows == index.stats()["optimized_rows"] > 0
    return index


def wide(rows: np.ndarray) -> np.ndarray:
    return np.pad(rows, [(0, 0), (0, max(WIDTH - rows.shape[1], 0))])


@cache
def exact(name: str, metric: str) -> np.ndarray:
    queries, rows = cases.case(name)
    return oracle.all_scores(wide(queries), wide(rows), metric)


def has_rows_to_judge(rows: np.ndarray, metric: str) -> bool:
    norms = oracle.norm(rows)
    inside = (norms >= 2.0**-60) & (norms <= 2.0**60)
    return bool((inside if metric == "cosine" else inside | (norms == 0)).any())


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("name", NAMES)
def test_hard_cases(
    name: str, metric: str, isa: str, use_threads: UseThreads, always: None
) -> None:
    queries, rows = map(wide, cases.case(name))
    if not has_rows_to_judge(rows, metric):
        index = build(rows, metric)
        with any_rows(32):
            assert "length" in index.optimize().because
        return
    index = optimized(rows, metric)
    n = len(rows)
    for threads, k in [(1, 1), (2, 10), (3, n + 5)]:
        use_threads(threads)
        oracle.assert_same(search(index, queries, k), oracle.best(exact(name, metric), k, metric))
    zero_queries_only = metric not in oracle.DISTANCES and not oracle.norm(queries).any()
    assert (index.stats()["rows_screened"] > 0) != zero_queries_only


BACKENDS = [CpuBackend(isa) for isa in _core.instruction_sets()]


@pytest.mark.parametrize("backend", BACKENDS, ids=_core.instruction_sets())
@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_ruled_out_cannot_reach_the_threshold(
    name: str, metric: str, backend: CpuBackend
) -> None:
    queries, rows = map(wide, cases.case(name))
    if not has_rows_to_judge(rows, metric):
        return
    index = optimized(rows, metric)
    scores = exact(name, metric)
    values = {"l2": -np.square(scores), "sqeuclidean": -scores}.get(metric, scores)
    state = index._state
    assert state.screen is not None
    places = state.screen.places
    known = places >= 0
    zero = oracle.norm(queries) == 0
    for rank in (0, 1, 9, len(rows) // 2, len(rows) - 1):
        thresholds = np.sort(values, axis=1)[:, ::-1][:, rank]
        kept, near = _core.screen_verdicts(
            backend, queries, state.snapshot.native, thresholds.tolist()
        )
        reaches = values[:, places[known]] >= thresholds[:, None]
        if metric not in oracle.DISTANCES:
            reaches[zero] = False  # no row is read for them
        assert kept[:, known][reaches].all()
        leaves = np.broadcast_to(np.flatnonzero(known) // 64, reaches.shape)
        assert near[np.nonzero(reaches)[0], leaves[reaches]].all()


def by_axes(first: float) -> Callable[..., tuple[float, float]]:
    """A map that takes vectors of 16 numbers as they are, but for the first number, times this."""

    def turn(
        rows: np.ndarray, metric: str, arrays: dict[str, np.ndarray], seed: int
    ) -> tuple[float, float]:
        arrays["screen_basis"][:] = np.diag([first, *[1] * 14, 0])
        arrays["screen_tail"][:] = arrays["screen_axes"][15] = np.eye(16)[15]
        arrays["screen_axes"][:15] = np.eye(16)[:15]
        return 1.0, 0.0

    return turn


def judged(
    query: list[float], row: list[float], backend: CpuBackend, **options: object
) -> tuple[bool, bool]:
    """Whether head and box keep a row at exactly its own distance; codes have steps of 1."""
    rows = np.zeros((64, 16), np.float32)
    rows[0, :15], rows[1, 1] = row, 127
    index = build(rows, "sqeuclidean")
    index._state = index._state.with_screen(screens.screen_of(index._state, **options))  # type: ignore[arg-type]
    asked = np.array([[*query, 0]], np.float32)
    value = -oracle.all_scores(asked, rows[:1], "sqeuclidean")[0, 0]
    kept, near = _core.screen_verdicts(backend, asked, index._state.snapshot.native, [value])
    assert index._state.screen is not None
    return bool(kept[0, index._state.screen.places == 0].all()), bool(near[0, 0])


@pytest.mark.parametrize("backend", BACKENDS, ids=_core.instruction_sets())
def test_codes_that_are_off_by_half_a_step_in_one_direction(backend: CpuBackend) -> None:
    """A row, a query, and both: codes lie twice as far apart as the vectors."""
    for query, row in [(0.0, 0.51), (0.51, 0.0), (0.49, -0.51)]:
        assert judged([query] * 15, [row] * 15, backend, turn=by_axes(1)) == (True, True)


@pytest.mark.parametrize("backend", BACKENDS, ids=_core.instruction_sets())
def test_a_basis_that_makes_distances_longer(backend: CpuBackend) -> None:
    """By half a percent, which is more than all rounding."""
    stretch = 1.0045
    query, row = ([end / stretch, *[0.0] * 14] for end in (-127, 127))
    options = {"turn": by_axes(stretch), "error": 0.05}
    assert judged(query, row, backend, **options) == (True, True)


def spectral(n_rows: int, dim: int, n_queries: int, seed: int = 0) -> cases.Case:
    """Rows near a few axes, in groups, and queries like them."""
    random = np.random.default_rng([7, seed])
    axes = random.standard_normal((8, dim)) * np.logspace(0, -1, 8)[:, None]
    centres = 3 * random.standard_normal((9, 8))

    def draw(n: int) -> np.ndarray:
        along = centres[random.integers(0, 9, n)] + random.standard_normal((n, 8))
        noise = 0.02 * random.standard_normal((n, dim))
        return np.ascontiguousarray(along @ axes + noise, np.float32)

    return cases.Case(draw(n_queries), draw(n_rows))


@cache
def spectral_case(metric: str) -> tuple[cases.Case, oracle.Best]:
    made = spectral(5000, 96, 300)
    return made, oracle.topk(*made, 10, metric)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_batches(
    metric: str, threads: int, isa: str, use_threads: UseThreads, always: None
) -> None:
    (queries, rows), expected = spectral_case(metric)
    index = optimized(rows, metric, adds=[1000, 900])
    use_threads(threads)
    for n in (1, 2, 8, 9, 12, 33, 300):
        found = search(index, queries[:n], 10)
        oracle.assert_same(found, oracle.Best(expected.scores[:n], expected.ids[:n]))
    stats = index.stats()
    assert stats["leaves_skipped"] > 0 < stats["rows_compared"] < stats["rows_screened"]
    assert stats["rows_compared"] < 1000 * stats["queries"]  # the nearest leaves come first


@pytest.mark.parametrize("head", [16, 48, 64])
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_heads_of_every_size(head: int, metric: str, isa: str, always: None) -> None:
    (queries, rows), expected = spectral_case(metric)
    oracle.assert_same(search(optimized(rows, metric, head=head), queries, 10), expected)


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_stored_in_16_bits(dtype: str, metric: str, isa: str, always: None) -> None:
    (queries, rows), _ = spectral_case(metric)
    expected = oracle.topk(queries[:20], rounded(rows, dtype), 10, metric)
    index = optimized(rows, metric, dtype=dtype)
    oracle.assert_same(search(index, queries[:20], 10), expected)


@pytest.mark.parametrize("density", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("for_each_query", [False, True])
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_masks(metric: str, for_each_query: bool, density: float, isa: str, always: None) -> None:
    (queries, rows), _ = spectral_case(metric)
    queries = queries[:12]
    random = np.random.default_rng(3)
    mask = random.random((len(queries) if for_each_query else 1, len(rows))) < density
    mask = mask if for_each_query else mask[0]
    found = optimized(rows, metric).search(queries, 10, where=mask, score_dtype="float64")
    oracle.assert_same(found, oracle.topk(queries, rows, 10, metric, allowed=mask))


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_rows_that_come_and_go(metric: str, isa: str, always: None) -> None:
    (queries, rows), _ = spectral_case(metric)
    index = optimized(rows[:4000], metric)
    gone, changed = np.arange(0, 4000, 3), np.arange(1, 4000, 30)
    index.remove(gone)
    index.update(changed, rows[4000 : 4000 + len(changed)])
    index.add(rows[4500:])
    now = rows[:4500].copy()
    now[changed] = rows[4000 : 4000 + len(changed)]
    now[4000:4500] = rows[4500:]
    left = np.setdiff1d(np.arange(4500), gone)
    scores = oracle.all_scores(queries[:20], now[left], metric)
    expected = oracle.best(scores, 10, metric, ids=left)
    oracle.assert_same(search(index, queries[:20], 10), expected)


def test_a_search_looks_at_its_leaves_before_it_relies_on_them() -> None:
    """Rows are easy to tell apart, queries come from elsewhere."""
    rows = spectral(20_000, 256, 1).rows
    far = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32) * 10
    index = optimized(rows, "l2")
    expected = oracle.topk(far, rows, 10, "l2")
    oracle.assert_same(search(index, far, 10), expected)
    assert index.stats()["fell_back"] == 64
    near = spectral(20_000, 256, 64).queries
    oracle.assert_same(search(index, near, 10), oracle.topk(near, rows, 10, "l2"))
    assert index.stats()["fell_back"] == 64
    assert index.stats()["rows_screened"] > 0


def test_looks_that_never_pay_become_rare() -> None:
    """Four looks in a row do not pay: the next search spares its own, and so on."""
    made = spectral(20_000, 256, 64)
    far = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32) * 10
    index = optimized(made.rows, "l2")
    fell_back = []
    for _ in range(8):
        index.search(far, 10)
        fell_back.append(index.stats()["fell_back"] // 64)
    assert fell_back == [1, 2, 3, 4, 4, 5, 5, 5]
    index.search(far[:1], 10)  # searches of another size have a record of their own
    assert index.stats()["fell_back"] == 5 * 64 + 1
    before = index.stats()["rows_screened"]
    index.search(made.queries, 10)  # a look again, and it pays
    expected = oracle.topk(made.queries, made.rows, 10, "l2")
    oracle.assert_same(search(index, made.queries, 10), expected)
    assert index.stats()["rows_screened"] > before
    index.search(far, 10)
    assert index.stats()["fell_back"] == 6 * 64 + 1


def test_rows_without_a_spectrum_get_no_screen() -> None:
    rows = cases.gaussian(5000, 128).rows
    index = build(rows, "cosine")
    made = index.optimize()
    assert made.head == 0
    assert "of 128 dimensions" in made.because
    for n_rows, dim, reason in [(300, 128, "rows in whole strips"), (5000, 32, "fewer than 64")]:
        small = build(spectral(n_rows, dim, 1).rows, "cosine")
        assert reason in small.optimize().because


def test_heads_are_chosen_where_they_pay() -> None:
    rows = spectral(40_000, 256, 1).rows
    index = build(rows, "cosine")
    made = index.optimize()
    assert made.head in choosing.HEADS, made
    assert made.rows == 40_000


def leaf_order(index: fr.Index, query: np.ndarray) -> list[np.ndarray]:
    """The rows of each leaf, the leaf nearest to the query first: by the distance of the query's
    head from the leaf's centre, in plain float64.
    """
    screen = index._state.screen
    assert screen is not None
    arrays = {name: np.asarray(array) for name, array in screen.arrays.items()}
    head = arrays["screen_basis"].shape[0]
    (tail_centre, step, _, radius), rest = arrays["screen_numbers"][:4], index.metric
    basis, mean = (arrays[f"screen_{name}"].astype(np.float64) for name in ("basis", "mean"))
    x = query.astype(np.float64)
    length = np.sqrt(x @ x)
    lifted = {"cosine": x / length, "ip": np.append(x * radius / length, 0)}.get(rest, x)
    u = lifted - mean
    along = basis @ u
    tail = arrays["screen_tail"].astype(np.float64)
    z = along + tail * (np.sqrt(max(u @ u - along @ along, 0)) - tail_centre)
    n_leaves = len(arrays["screen_heads"])
    strips = arrays["screen_centres"][:, : 64 * head].reshape(-1, 4, head // 4, 16, 4)
    codes = strips.transpose(0, 1, 3, 2, 4).reshape(-1, head)[:n_leaves].astype(np.int64) - 128
    apart = np.square(z - step * codes).sum(axis=1)
    places = screen.places.reshape(-1, 64)
    return [places[leaf][places[leaf] >= 0] for leaf in np.argsort(apart, kind="stable")]


@pytest.mark.parametrize("probes", [1, 3, 20, 1000])
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_probes(metric: str, probes: int, isa: str) -> None:
    """The rows of the nearest leaves, and those in none, are searched exactly."""
    (queries, rows), _ = spectral_case(metric)
    queries = queries[:10]
    index = optimized(rows[:4000], metric)
    index.add(rows[4000:])
    allowed = np.random.default_rng(5).random(len(rows)) < 0.3
    scores = oracle.all_scores(queries, rows, metric)
    everything = oracle.best(scores, 10, metric)
    for mask in (None, allowed):
        seen = np.zeros((len(queries), len(rows)), dtype=bool)
        seen[:, 3968:] = True  # in no leaf
        for i, query in enumerate(queries):
            leaves = [leaf for leaf in leaf_order(index, query) if mask is None or mask[leaf].any()]
            seen[i, np.concatenate(leaves[:probes])] = True
        if mask is not None:
            seen &= mask
            everything = oracle.best(scores, 10, metric, allowed=mask)
        found = index.search(queries, 10, probes=probes, where=mask, score_dtype="float64")
        oracle.assert_same(found, oracle.best(scores, 10, metric, allowed=seen))
        for i, proven in enumerate(found.proven.tolist()):
            np.testing.assert_array_equal(found.ids[i, :proven], everything.ids[i, :proven])
            assert 0 <= proven <= (found.ids[i] >= 0).sum()
        if probes == 1000:
            assert (found.proven == (found.ids >= 0).sum(axis=1)).all()
        one = index.search(queries[0], 10, probes=probes, where=mask)
        assert one.proven == found.proven[0]
        assert one.ids.tolist() == found.ids[0].tolist()


def test_probes_prove_near_duplicates() -> None:
    """The copies of a query are nearer than anything in another leaf."""
    (queries, rows), _ = spectral_case("l2")
    copies = np.repeat(queries[:8], 5, axis=0)
    index = optimized(np.concatenate([copies, rows]), "l2")
    found = index.search(queries[:8], 5, probes=20)
    assert (found.proven == 5).all()
    assert (np.sort(found.ids, axis=1) == np.arange(40).reshape(8, 5)).all()


def test_without_a_screen_probes_search_everything() -> None:
    (queries, rows), expected = spectral_case("cosine")
    index = build(rows, "cosine")
    found = index.search(queries, 10, probes=1, score_dtype="float64")
    oracle.assert_same(found, expected)
    assert found.proven.tolist() == [10] * len(queries)
    assert index.search(queries[:2], 10).proven.tolist() == [10, 10]
    with pytest.raises(ValueError, match="probes must be at least 1, got 0"):
        index.search(queries, 10, probes=0)


def test_recall_is_what_was_measured() -> None:
    """On unseen queries like those it was measured for: so many leaves do, and no fewer."""
    queries, rows = spectral(30_000, 96, 3000)
    index = build(rows, "l2")
    with any_rows(32):
        index.optimize(queries=queries[:2000])
    unseen = queries[2000:]
    for k in (1, 10):
        exact = index.search(unseen, k).ids

        def reached(exact: np.ndarray = exact, k: int = k, **options: float) -> float:
            found = index.search(unseen, k, **options).ids
            return float(np.mean([np.isin(a, b).mean() for a, b in zip(found, exact, strict=True)]))

        for recall in (0.5, 0.8, 0.95, 0.99):
            assert reached(recall=recall) > recall - 0.02
            n_leaves = probes_for(index._state.screen, recall, k)
            assert n_leaves == 1 or reached(probes=n_leaves - 1) < recall + 0.02
        assert reached(recall=1.0) == 1.0


def test_recall_by_rows_of_the_index() -> None:
    queries, rows = spectral(20_000, 96, 500)
    index = optimized(rows, "cosine")
    exact = index.search(queries, 10).ids
    parts = [index.search(queries[i : i + 50], 10, recall=0.9).ids for i in range(0, 500, 50)]
    found = np.concatenate(parts)
    reached = np.mean([np.isin(a, b).mean() for a, b in zip(found, exact, strict=True)])
    assert 0.8 < reached < 0.97
    assert (index.search(queries, 10, recall=0.9).proven == 10).all()  # large batches are exact


def test_recall_behind_a_mask_finds_k_rows(isa: str) -> None:
    (queries, rows), _ = spectral_case("cosine")
    index = optimized(rows, "cosine")
    few = np.zeros(len(rows), dtype=bool)
    few[::100] = True
    found = index.search(queries[:5], 30, recall=0.5, where=few)
    assert (found.ids >= 0).all()
    assert few[found.ids].all()


def test_recall_survives_a_file(tmp_path: Path) -> None:
    (queries, rows), _ = spectral_case("l2")
    index = optimized(rows, "l2")
    index.save(tmp_path / "a")
    loaded = fr.Index.load(tmp_path / "a", verify="codes")
    for recall in (0.3, 0.9, 0.999):
        ours, theirs = (i.search(queries, 10, recall=recall) for i in (index, loaded))
        assert (ours.ids == theirs.ids).all()


def test_questions_that_make_no_sense() -> None:
    index = optimized(spectral_case("l2")[0].rows, "l2")
    query = spectral_case("l2")[0].queries[0]
    for options, message in [
        ({"recall": 0.0}, "above 0 and at most 1, got 0.0"),
        ({"recall": 95}, "above 0 and at most 1, got 95"),
        ({"recall": "high"}, "above 0 and at most 1, got 'high'"),
        ({"recall": 0.9, "probes": 3}, "probes or recall, not both"),
        ({"recall": 0.9, "k": 101}, "k up to 100, got k=101"),
    ]:
        with pytest.raises(ValueError, match=message):
            index.search(query, **options)
    with pytest.raises(ValueError, match="at least one query"):
        index.optimize(queries=np.zeros((0, 96), np.float32))
    with pytest.raises(ValueError, match="dimension"):
        index.optimize(queries=np.zeros((2, 95), np.float32))
