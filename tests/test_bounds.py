"""What the scan promises: every interval contains the canonical value, and the float32 filter drops
no pair that reaches the threshold. A wrong bound hides from tests that look at answers only.

A *value* is better when larger: the similarity, or minus the squared distance.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cases
import fastretrieve as fr
import oracle
from fastretrieve import _core
from fastretrieve._backends.cpu import CpuBackend

BACKENDS = [CpuBackend(isa) for isa in _core.instruction_sets()]
STRIP = _core.STRIP_ROWS


def values(queries: np.ndarray, rows: np.ndarray, metric: str) -> np.ndarray:
    if metric in oracle.DISTANCES:
        return -oracle.all_scores(queries, rows, "sqeuclidean")
    return oracle.all_scores(queries, rows, metric)


def norms_in_range(rows: np.ndarray) -> np.ndarray:
    norms = oracle.norm(rows)
    return (norms == 0) | ((norms >= 2.0**-60) & (norms <= 2.0**60))


class Scan(NamedTuple):
    lower: np.ndarray  # [n_queries, n_rows], NaN where the filter kept no row of a strip
    upper: np.ndarray
    kept: np.ndarray
    falls_short: np.ndarray


def whole_strips(rows: np.ndarray) -> np.ndarray:
    """The rows, repeated to fill strips: only those have codes."""
    return np.resize(rows, (-(-len(rows) // STRIP) * STRIP, rows.shape[1]))


@cache
def encoded(key: str, metric: str, isa: int) -> tuple[fr.Index, np.ndarray, np.ndarray]:
    queries, rows = cases.case(key)
    return *index_of(rows, metric, isa), queries


def index_of(rows: np.ndarray, metric: str, isa: int) -> tuple[fr.Index, np.ndarray]:
    rows = whole_strips(rows)
    index = fr.Index(rows.shape[1], metric=metric)
    index._form = index._form._replace(backend=BACKENDS[isa])
    index.add(rows)
    return index, rows


def scan(index: fr.Index, queries: np.ndarray, thresholds: np.ndarray) -> Scan:
    backend, segments = index._form.backend, index._state.snapshot.native
    return Scan(*_core.scan_intervals(backend, queries, segments, thresholds.tolist()))


def check_intervals(index: fr.Index, queries: np.ndarray, exact: np.ndarray) -> Scan:
    found = scan(index, queries, np.full(len(queries), -np.inf))
    assert found.kept.all(), "minus infinity as a threshold rules nothing out"
    assert not np.isnan(found.lower).any()
    assert not np.isnan(found.upper).any()
    assert (found.lower <= exact).all()
    assert (exact <= found.upper).all()
    assert not found.falls_short.any()
    return found


def check_filter(index: fr.Index, queries: np.ndarray, exact: np.ndarray, at: int) -> None:
    """With the value of one row as the threshold, and one ulp beside it."""
    value = exact[:, at]
    for threshold in (value, np.nextafter(value, np.inf), np.nextafter(value, -np.inf)):
        found = scan(index, queries, threshold)
        wanted = exact >= threshold[:, None]
        assert found.kept[wanted].all()
        assert not found.falls_short[wanted].any()


ISAS = pytest.mark.parametrize("isa", range(len(BACKENDS)), ids=_core.instruction_sets())


@ISAS
@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("name", cases.MAKERS)
def test_hard_cases(name: str, metric: str, isa: int) -> None:
    index, rows, queries = encoded(name, metric, isa)
    exact = values(queries, rows, metric)
    check_intervals(index, queries, exact)
    for at in np.linspace(0, len(rows) - 1, 12).astype(int):
        check_filter(index, queries, exact, at)
    for query in (queries[:1], queries[-1:]):  # a panel of one: its own ratio of errors
        check_filter(index, query, values(query, rows, metric), 0)


@ISAS
@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("dim", cases.DIMS)
def test_dimensions(dim: int, metric: str, isa: int) -> None:
    queries, rows = cases.gaussian(STRIP, dim, n_queries=11, seed=dim)
    index, rows = index_of(rows, metric, isa)
    exact = values(queries, rows, metric)
    check_intervals(index, queries, exact)
    for at in range(0, STRIP, 7):
        check_filter(index, queries, exact, at)


@cache
def tight(dim: int, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors with equal coordinates: what the codes lose is parallel to what they keep, so that
    Cauchy-Schwarz is an equality. In 1041 dimensions and more the integer product is odd and above
    2**24, so that the filter rounds it as well.
    """
    random = np.random.default_rng([5, dim])
    n_rows, n_queries = (64 * STRIP, 16) if dim < 100 else (8 * STRIP, 5)
    lengths = random.lognormal(sigma=3, size=(n_rows + n_queries, 1))
    lengths[::3] *= -1
    vectors = np.repeat(lengths, dim, axis=1).astype(np.float32)
    queries, rows = vectors[:n_queries], vectors[n_queries:]
    rows[5::STRIP] = np.nextafter(queries[0], np.float32(np.inf))
    return queries, rows, values(queries, rows, metric)


@ISAS
@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("dim", [1, 2, 5, 1041, 1043, 2083])
def test_vectors_for_which_only_the_slack_is_left(dim: int, metric: str, isa: int) -> None:
    queries, rows, exact = tight(dim, metric)
    index, rows = index_of(rows, metric, isa)
    check_intervals(index, queries, exact)
    for at in range(0, len(rows), 131 if dim < 100 else 11):
        check_filter(index, queries, exact, at)


@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("name", cases.MAKERS)
def test_instruction_sets_agree_on_codes_and_intervals(name: str, metric: str) -> None:
    queries = cases.case(name).queries
    first, *others = (encoded(name, metric, isa)[0] for isa in range(len(BACKENDS)))
    nothing_dropped = np.full(len(queries), -np.inf)
    for index in others:
        for segment, same in zip(first._state.segments, index._state.segments, strict=True):
            np.testing.assert_array_equal(
                segment.slab.codes[: segment.n_strips], same.slab.codes[: same.n_strips]
            )
        for one, other in zip(
            scan(first, queries, nothing_dropped),
            scan(index, queries, nothing_dropped),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)


@ISAS
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_rows_out_of_range_survive_and_supply_no_threshold(metric: str, isa: int) -> None:
    names = ["subnormals", "as large as float32 goes", "norms at the edges of the range"]
    for name in names:
        index, rows, queries = encoded(name, metric, isa)
        outside = ~(norms_in_range(queries)[:, None] & norms_in_range(rows)[None, :])
        assert outside.any()
        assert scan(index, queries, np.full(len(queries), np.inf)).kept[outside].all()
        found = scan(index, queries, np.full(len(queries), -np.inf))
        assert (found.lower[outside] == -np.inf).all()
        assert (found.upper[outside] == np.inf).all()


@ISAS
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_the_bound_bites(metric: str, isa: int) -> None:
    """A bound that holds because it says nothing would pass every other test here."""
    queries, rows = cases.gaussian(50 * STRIP, 128, seed=6)
    index, rows = index_of(rows, metric, isa)
    found = scan(index, queries, np.full(len(queries), -np.inf))
    scale = {"cosine": 1.0, "ip": 128.0}.get(metric, 256.0)
    assert np.median(found.upper - found.lower) < 0.03 * scale
    exact = values(queries, rows, metric)
    tenth = np.sort(exact, axis=1)[:, -10]
    assert scan(index, queries, tenth).kept.sum(axis=1).max() < 60  # of 3200
    assert not scan(index, queries, np.full(len(queries), np.inf)).kept.any()


@ISAS
@pytest.mark.parametrize("metric", oracle.METRICS)
def test_the_bound_bites_in_tight_clusters(metric: str, isa: int) -> None:
    """As of a network that was trained with labels: by Cauchy-Schwarz alone all would survive."""
    random = np.random.default_rng(8)
    vectors = random.standard_normal((8, 128))[np.arange(40 * STRIP + 16) % 8]
    few = random.standard_normal((len(vectors), 4))  # directions in which a cluster spreads
    vectors += 0.05 * few @ random.standard_normal((4, 128))
    vectors = (vectors / oracle.norm(vectors)[:, None]).astype(np.float32)
    queries, (index, rows) = vectors[:16], index_of(vectors[16:], metric, isa)
    exact = values(queries, rows, metric)
    found = scan(index, queries, np.full(len(queries), -np.inf))
    near = oracle.all_scores(queries, rows, "ip") > 0.9
    widest = 0.02 if metric in oracle.DISTANCES else 0.01
    assert np.median((found.upper - found.lower)[near]) < widest
    tenth = scan(index, queries, np.sort(exact, axis=1)[:, -10])
    left = (tenth.kept & ~tenth.falls_short).sum(axis=1)
    assert (4 * left < tenth.kept.sum(axis=1)).all()
    assert left.max() < 50  # of the 320 in its cluster


@ISAS
@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("name", cases.MAKERS)
def test_a_large_panel_keeps_what_a_small_one_keeps(name: str, metric: str, isa: int) -> None:
    """Tiles of queries have a test of their own before the filter; no pair may feel it."""
    index, rows, queries = encoded(name, metric, isa)
    few = queries[:4]  # in every panel, so that all have the same ratio of errors
    exact = values(few, rows, metric)
    for rank in (0, 1, len(rows) // 2, len(rows) - 1):
        threshold = np.sort(exact, axis=1)[:, rank]
        small = scan(index, few, threshold).kept
        large = scan(index, np.tile(few, (7, 1)), np.tile(threshold, 7)).kept
        np.testing.assert_array_equal(large, np.tile(small, (7, 1)))


@st.composite
def _problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, str]:
    dim = draw(st.one_of(st.integers(1, 9), st.sampled_from([31, 64, 65, 130, 390])))
    n_queries = draw(st.sampled_from([1, 3, 9]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (STRIP + n_queries, dim)
    kind = draw(st.sampled_from(["gaussian", "uniform", "integers", "parallel", "exponents"]))
    vectors = {
        "gaussian": lambda: random.standard_normal(shape),
        "uniform": lambda: random.random(shape),
        "integers": lambda: random.integers(-127, 128, shape),
        "parallel": lambda: random.standard_normal((1, dim)) * random.random((len(shape), 1))[0],
        "exponents": lambda: random.standard_normal(shape) * 2.0 ** random.integers(-30, 30, shape),
    }[kind]()
    vectors = np.broadcast_to(vectors, shape) * 2.0 ** draw(st.integers(-70, 70))
    if draw(st.booleans()):  # norms of many sizes in one strip and one panel
        vectors = vectors * 2.0 ** random.integers(-20, 20, (len(vectors), 1))
    vectors = vectors + draw(st.sampled_from([0.0, 0.0, 1.0, 1e4]))
    values = draw(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=8))
    vectors = vectors.astype(np.float32)
    vectors.flat[random.integers(0, vectors.size, len(values))] = values
    return vectors[:n_queries], vectors[n_queries:], draw(st.sampled_from(oracle.METRICS))


@ISAS
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(_problems())
def test_any_vectors(isa: int, problem: tuple[np.ndarray, np.ndarray, str]) -> None:
    queries, rows, metric = problem
    index, rows = index_of(rows, metric, isa)
    exact = values(queries, rows, metric)
    check_intervals(index, queries, exact)
    for at in (0, 13, 63):
        check_filter(index, queries, exact, at)
    oracle.assert_same(
        index.search(queries, 7, score_dtype="float64"), oracle.topk(queries, rows, 7, metric)
    )


# --- the buffer of survivors: overflow is counted, exact, and bounded in memory ------------------


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_ordinary_rows_do_not_overflow(metric: str, isa: str) -> None:
    queries, rows = cases.gaussian(20_000, 128, seed=7)
    index = fr.Index(128, metric=metric)
    index.add(rows)
    index.search(queries, 10)
    stats = index.stats()
    assert stats["queries"] == len(queries)
    assert stats["rows_scanned"] == len(queries) * (20_000 // STRIP * STRIP)
    assert stats["overflows"] == 0
    assert stats["rows_scored_per_query"] == stats["rows_scored"] / len(queries)
    assert 10 <= stats["rows_scored_per_query"] < 120


def test_overflow_is_counted_and_exact(isa: str) -> None:
    queries, rows = cases.case("near duplicates overflow the buffer")
    index = fr.Index(rows.shape[1], metric="l2")
    index.add(rows)
    found = index.search(queries, 10, score_dtype="float64")
    oracle.assert_same(found, oracle.topk(queries, rows, 10, "l2"))
    assert index.stats()["overflows"] > 5
    assert index.stats()["rows_scored"] >= 5000


MILLION = """
import resource
import numpy as np
import fastretrieve as fr

rows = np.broadcast_to(np.linspace(-1, 1, 16, dtype=np.float32), (1_000_000, 16))
queries = np.concatenate([rows[:1], np.random.default_rng(0).standard_normal((7, 16), np.float32)])
index = fr.Index(16, metric="l2")
index.add(rows)
index.search(queries[:1], 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = index.search(queries, 10, score_dtype="float64")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
one = fr.topk(queries, rows[:1], 1, metric="l2", score_dtype="float64")
assert (found.ids == np.arange(10)).all()
assert (found.scores == one.scores).all()
assert index.stats()["overflows"] > 1000
print(grown * 1024)
"""


def test_a_million_equal_rows_need_no_more_memory_than_a_few() -> None:
    done = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # 8 queries x (8 k + 512) survivors of 32 bytes are 152 KB; a million of them would be 256 MB.
    assert int(done.stdout) < 8e6
