"""The benchmarks are right before they are fast: the oracle, the clock, shares and verdicts."""

import itertools
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import fastretrieve as fr
from fastretrieve.benchmarking import bars, cases, environment, limits, oracle, peers, plots, report
from fastretrieve.benchmarking.cases import Case, Data
from fastretrieve.benchmarking.measure import (
    OURS,
    Contender,
    Measurement,
    SearchBench,
    Settings,
    extra_bytes,
)
from fastretrieve.benchmarking.suite import SkippedCase, Suite
from fastretrieve.benchmarking.timing import MAX_ROUNDS, Timing, interleave

METRICS = ("cosine", "ip", "l2", "sqeuclidean")

rng = np.random.default_rng(7)

DATA = {
    "normal": rng.standard_normal((200, 19)),
    "many ties": rng.integers(-1, 2, (300, 8)),
    "all rows equal": np.ones((50, 12)),
    "zero rows": np.concatenate([np.zeros((5, 6)), rng.standard_normal((40, 6))]),
    "norms 20 decades apart": rng.standard_normal((64, 16)) * np.logspace(-10, 10, 64)[:, None],
    "far from the origin": rng.standard_normal((100, 24)) + 1e4,
    "one dimension": rng.standard_normal((30, 1)),
}


def slow_score(q: np.ndarray, x: np.ndarray, metric: str) -> float:
    """The definition, one number at a time."""

    def lanes(terms: list[float]) -> float:
        s = [0.0] * 8
        for i, term in enumerate(terms):
            s[i % 8] += term
        return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))

    a, b = [float(v) for v in q], [float(v) for v in x]
    if metric in ("l2", "sqeuclidean"):
        squared = lanes([(u - v) * (u - v) for u, v in zip(a, b, strict=True)])
        return math.sqrt(squared) if metric == "l2" else squared
    dot = lanes([u * v for u, v in zip(a, b, strict=True)])
    if metric == "ip":
        return dot
    norms = math.sqrt(lanes([u * u for u in a])) * math.sqrt(lanes([v * v for v in b]))
    return dot / norms if norms > 0 else 0.0


@pytest.mark.parametrize("chunk_values", [1, 500, 1 << 24])  # a seam must not change a result
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", DATA)
def test_oracle_equals_a_brute_force_without_shortcuts(
    name: str, metric: str, chunk_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oracle, "CHUNK_VALUES", chunk_values)
    rows = DATA[name].astype(np.float32)
    queries = np.concatenate([rows[:3], rows[-1:] + np.float32(0.5)])
    sign = 1 if metric in ("l2", "sqeuclidean") else -1
    found = oracle.exact_topk(queries, rows, k=7, metric=metric)
    for query, ids, scores in zip(queries, found.ids, found.scores, strict=True):
        exact = [slow_score(query, row, metric) for row in rows]
        order = sorted(range(len(rows)), key=lambda i: (sign * exact[i], i))[:7]
        assert ids.tolist() == order
        assert scores.tolist() == [exact[i] for i in order]


def test_check_equal_accepts_the_answer_and_nothing_else() -> None:
    expected = oracle.Expected(np.array([[2.0, 1.0]]), np.array([[5, 3]]))
    scores, ids = np.array([[2.0, 1.0]], np.float32), np.array([[5, 3]])
    oracle.check_equal(scores, ids, expected)
    with pytest.raises(oracle.WrongAnswer, match=r"query 0, rank 1: id 4 .*expected id 3"):
        oracle.check_equal(scores, np.array([[5, 4]]), expected)
    one_ulp = np.nextafter(scores, np.float32(3))
    with pytest.raises(oracle.WrongAnswer, match="2 of 2 results are wrong"):
        oracle.check_equal(one_ulp, ids, expected)
    with pytest.raises(oracle.WrongAnswer, match="shape"):
        oracle.check_equal(scores[:, :1], ids[:, :1], expected)


def test_recall_counts_ids_in_any_order() -> None:
    expected = oracle.Expected(np.zeros((1, 4)), np.array([[1, 2, 3, 4]]))
    assert oracle.recall(np.array([[4, 3, 2, 1]]), expected) == 1.0
    assert oracle.recall(np.array([[4, 9, 2, 8]]), expected) == 0.5


@pytest.mark.parametrize("make", [cases.gaussian, cases.clustered])
def test_cases_are_the_same_every_time(make: Callable[[int, int], Data]) -> None:
    first, second = make(50, 16), make(50, 16)
    assert first.rows.shape == (50, 16)
    assert first.rows.dtype == first.queries.dtype == np.float32
    np.testing.assert_array_equal(first.rows, second.rows)
    np.testing.assert_array_equal(first.queries, second.queries)


def test_clustered_rows_are_unit_vectors() -> None:
    rows = cases.clustered(50, 16).rows
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)


def test_a_smaller_case_has_fewer_rows_and_never_more() -> None:
    assert cases.GAUSSIAN.smaller(100).load().rows.shape == (100, 128)
    assert cases.TINY.smaller(10**9) is cases.TINY


def test_a_case_without_its_data_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastretrieve.data.fashion_mnist.find_fashion_mnist", lambda: None)
    with pytest.raises(cases.CaseUnavailable, match="dataset-fashion-mnist"):
        cases.FASHION.load()


class Clock:
    """Time that passes only when a call says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "sleep", lambda _: None)

    def call(self, seconds: float) -> Callable[[], None]:
        def work() -> None:
            self.now += seconds

        return work


def test_contenders_take_turns_so_that_drift_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    slower = itertools.count(1)
    speed = {"now": 1.0}

    def drift() -> None:  # the machine halves its speed every round
        speed["now"] = 2.0 ** next(slower)

    def call(seconds: float) -> Callable[[], None]:
        return lambda: clock.call(seconds * speed["now"])()

    calls = {OURS: call(1.0), "peer": call(3.0)}
    timings = interleave(calls, seconds=1e9, max_rounds=4, each_round=drift)
    assert timings[OURS].rounds == [2.0, 4.0, 8.0, 16.0]
    assert timings["peer"].ratio_to(timings[OURS]) == 3.0


def test_a_slow_contender_is_timed_once_and_a_fast_one_in_every_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    calls = {OURS: clock.call(0.06), "slow": clock.call(100.0)}
    timings = interleave(calls, seconds=5.0)
    assert len(timings["slow"].calls) == 1
    assert len(timings[OURS].rounds) == MAX_ROUNDS
    assert timings[OURS].median == pytest.approx(0.06)


def test_the_first_of_many_short_calls_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    durations = itertools.chain([0.010], itertools.repeat(0.001))
    timings = interleave({OURS: lambda: clock.call(next(durations))()}, seconds=5.0, max_rounds=1)
    assert max(timings[OURS].calls) == pytest.approx(0.001)
    assert timings[OURS].percentile(90) == pytest.approx(0.001)


def test_flushing_the_cache_is_not_part_of_the_time() -> None:
    timings = interleave({OURS: lambda: None}, seconds=0.001, max_rounds=1, flush_cache=True)
    assert timings[OURS].median < 1e-3  # reading the flush buffer alone takes several


def test_shares_relate_work_to_the_rate_of_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([100.0, 200.0])
    monkeypatch.setattr(limits._core, "probe_read_bandwidth", lambda *_: next(rates))
    monkeypatch.setattr(limits._core, "probe_int8_peak", lambda *_: 50.0)
    measured = limits.MachineLimits(threads=2)
    measured.sample()
    measured.sample()
    timing = Timing(calls=[2.0, 1.0], rounds=[2.0, 1.0])
    assert measured.share_of_read(100, timing) == 0.5
    assert measured.share_of_int8(50, timing) == 0.75
    assert (measured.read_rate, measured.int8_rate) == (150.0, 50.0)


def test_the_machine_has_limits() -> None:
    measured = limits.MachineLimits(threads=1)
    measured.sample()
    assert 1e8 < measured.read_rate < 1e13
    assert 1e8 < measured.int8_rate < 1e14


def settled(data: Data, metric: str) -> Data:
    if metric != "cosine":
        return data
    return Data(*(m / np.linalg.norm(m, axis=1, keepdims=True) for m in data))


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("name", peers.PEERS)
def test_a_peer_finds_what_the_oracle_finds(name: str, metric: str) -> None:
    peer = peers.PEERS[name]
    if peers.version_of(peer.distribution) is None:
        pytest.skip(f"{peer.distribution} is not installed")
    data = settled(cases.gaussian(500, 32), metric)
    if (name, metric) == ("scikit-learn", "ip"):
        with pytest.raises(peers.NotApplicable, match="no inner product"):
            peer.build(data, metric, 1)
        return
    search = peer.build(data, metric, 1)
    ids = search(data.queries[:20], 10)
    expected = oracle.exact_topk(data.queries[:20], data.rows, k=10, metric=metric)
    assert ids.shape == (20, 10)
    assert oracle.recall(ids, expected) == 1.0


def contender(name: str, ms: float, ratio: float) -> Contender:
    return Contender(name, ms, ms, ms, 1, ratio, None, [ms])


def result(**changes: object) -> Measurement:
    who = [contender(OURS, 2.0, 1.0), contender("faiss x1", 9.0, 4.5), contender("torch", 7.0, 3.5)]
    fields: dict[str, object] = {
        "operation": "search",
        "case": "gaussian",
        "metric": "ip",
        "n_rows": 1000,
        "dim": 128,
        "n_queries": 1,
        "k": 10,
        "threads": 2,
        "contenders": who,
        "figures": {"share_of_read": 0.79, "read_rate": 3e10, "scanned_bytes": 140_000},
    }
    return Measurement(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_bar_is_met_at_its_number_and_missed_below_it() -> None:
    verdicts = {v.what: v for v in bars.judge([result()])}
    against_best = verdicts["times the best peer"]
    assert (against_best.got, against_best.word) == (3.5, "PASS")  # torch, faster than faiss
    assert verdicts["of the read rate"].word == "MISS"


def test_at_most_bars_turn_the_other_way() -> None:
    added = result(operation="add", n_queries=0, k=0, figures={"bytes_ratio": 1.31})
    words = {v.what: v.word for v in bars.judge([added])}
    assert words == {"seconds": "PASS", "of the rows' bytes": "MISS"}


def test_nothing_is_judged_that_was_not_measured() -> None:
    alone = result(contenders=[contender(OURS, 2.0, 1.0)], figures={})
    assert list(bars.judge([alone, result(case="unknown")])) == []


def test_every_bar_names_known_cases_and_batches() -> None:
    for bar in bars.BARS:
        assert set(bar.cases) <= set(cases.CASES)
        assert bar.n_queries is None or bar.n_queries in (1, 32, 1024)


SMALL = Case("small", "300 x 16", "ip", 300, 16, cases.gaussian)


def test_a_suite_measures_a_case_from_search_to_add() -> None:
    settings = Settings(threads=1, seconds=0.01, peers=("faiss", "scikit-learn"))
    items = list(Suite(settings, cases=[SMALL], batches=(1, 40)).run())
    skipped = [item.what for item in items if isinstance(item, SkippedCase)]
    assert "scikit-learn on small" in skipped
    results = [item for item in items if isinstance(item, Measurement)]
    assert [(r.operation, r.n_queries) for r in results] == [
        ("search", 1),
        ("search", 40),
        ("add", 0),
    ]
    assert results[0].ours.name == OURS
    assert results[0].figures["share_of_read"] > 0
    assert results[0].figures["scored_per_query"] >= 10
    assert results[2].figures["bytes_ratio"] > 1


def test_a_wrong_answer_is_never_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = SearchBench(SMALL, SMALL.load(), (4,), Settings(threads=1, seconds=0.01))
    honest = fr.Index.search

    def liar(self: fr.Index, queries: object, **options: int) -> fr.Hits:
        hits = honest(self, queries, **options)
        return fr.Hits(hits.scores, hits.ids[:, ::-1])

    monkeypatch.setattr(fr.Index, "search", liar)
    monkeypatch.setattr("fastretrieve.benchmarking.measure.interleave", pytest.fail)
    with pytest.raises(oracle.WrongAnswer, match="results are wrong"):
        bench.run(4)


def test_a_case_that_is_not_here_is_skipped_with_its_reason() -> None:
    def missing(n_rows: int, dim: int) -> Data:
        raise cases.CaseUnavailable("not on this machine")

    case = Case("missing", "", "ip", 1, 1, missing)
    items = list(Suite(Settings(), cases=[case], batches=(1,)).run())
    assert items == [SkippedCase("missing", "not on this machine")]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_extra_bytes_sees_a_large_allocation() -> None:
    seen = extra_bytes(lambda: np.ones(32 << 20, np.uint8).sum())
    assert seen is not None
    assert 24 << 20 < seen < 64 << 20


def test_json_holds_everything_and_is_written_whole(tmp_path: Path) -> None:
    results = [result()]
    path = tmp_path / "new" / "run.json"
    report.write_json(path, report.as_json(environment.describe(), results, bars.judge(results)))
    data = json.loads(path.read_text())
    assert data["format"] == report.FORMAT
    assert data["results"][0]["contenders"][1]["name"] == "faiss x1"
    assert data["bars"][0]["verdict"] == "PASS"
    assert {"cpu", "commit", "date", "versions"} <= set(data["environment"])
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]


def test_tables_show_ratios_and_verdicts() -> None:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    report.print_result(console, result())
    report.print_verdicts(console, list(bars.judge([result()])))
    text = console.export_text()
    console.file.close()
    for word in ("search gaussian batch 1", "4.50", "79% of the read rate", "PASS", "MISS"):
        assert word in text
    assert "1 of 2 bars passed" in text


def test_a_picture_needs_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(plots.PlotUnavailable, match="no sweep"):
        plots.draw_sweep([result()], tmp_path / "x.png", caption="")


def sweep() -> list[Measurement]:
    sizes = (1_000, 10_000, 100_000)
    return [result(operation="sweep", n_rows=n) for n in sizes]


def test_without_matplotlib_the_picture_says_which_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(plots.PlotUnavailable, match=r"pip install matplotlib$"):
        plots.draw_sweep(sweep(), tmp_path / "x.png", caption="")


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "images" / "latency.png"
    plots.draw_sweep(sweep(), path, caption="a machine")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_commit_outside_a_checkout_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment.commit() == "unknown"
