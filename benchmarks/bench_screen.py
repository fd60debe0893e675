"""Searches through a screen (``Index.optimize``) beside the ordinary scan, and beside hnswlib.

    make bench-screen                          # a quarter of an hour on two cores
    python benchmarks/bench_screen.py --hnsw   # beside hnswlib alone, which builds for minutes
    python benchmarks/bench_screen.py --features F.npy  # and your vectors, the last 2,000 ask

The scan and the screen are the same index before and after ``optimize``. They take turns, and both
give the same answer in every bit, which is checked first. Rows are Fashion-MNIST, each image
turned and shifted eight times (480,000 x 784), and vectors that have no spectrum. The bars and
what was measured are printed and written to ``benchmarks/results/screen.json``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import fastretrieve as fr
from comparing import Report, parser, use_threads
from encoders_data import fashion_mnist

COPIES, N_ROWS, DIM = 8, 480_000, 784
BATCHES = (1, 32, 1024)
TURNS = {1: 60, 32: 16, 1024: 5}
# Times as fast as the scan: for a batch of 1, 32, 1024 and k=10. For k=100 half of it.
BARS = {"l2": (17.0, 3.5, 6.0), "cosine": (12.0, 3.5, 5.5), "ip": (6.0, 1.5, 2.0)}
BYTES_BAR, BUILD_BAR = 1.6, 1 / 25
HNSW = {"M": 16, "ef_construction": 100, "ef": (16, 32, 64, 128, 256)}
KNOWN = 2000  # queries that measure recall, and ask nothing else where there are more
SCAN, SCREEN = "scan", "screen"

Rows = NDArray[np.float32]


class Data(NamedTuple):
    rows: Rows
    queries: Rows


def moved(images: NDArray[np.uint8], rng: np.random.Generator) -> Rows:
    """Each image turned by up to 15 degrees and shifted by up to two pixels."""
    made = np.empty((len(images), DIM), np.float32)
    for out, image in zip(made, images, strict=True):
        angle, (right, down) = rng.uniform(-15, 15), rng.integers(-2, 3, 2).tolist()
        turned = Image.fromarray(image).rotate(
            angle, Image.Resampling.BILINEAR, translate=(right, down)
        )
        out[:] = np.asarray(turned, np.float32).reshape(-1)
    return made


def pictures(n_rows: int) -> Data:
    data, rng = fashion_mnist(), np.random.default_rng(0)
    copies = [moved(data.items, rng) for _ in range(-(-n_rows // len(data.items)))]
    return Data(np.concatenate(copies)[:n_rows], moved(data.queries, rng))


def of_two_lengths(data: Data) -> Data:
    """For inner products: rows of length a half to one."""
    lengths = np.random.default_rng(0).uniform(0.5, 1, (len(data.rows), 1))
    norms = np.linalg.norm(data.rows, axis=1, keepdims=True)
    return Data((data.rows * (lengths / norms)).astype(np.float32), data.queries)


class Pair:
    """An index before and after ``optimize``."""

    def __init__(self, data: Data, metric: str) -> None:
        self.queries = data.queries[: max(len(data.queries) - KNOWN, KNOWN)]
        self.known = data.queries[-KNOWN:]
        self.scan, self.screen = (fr.Index(data.rows.shape[1], metric=metric) for _ in range(2))
        self.add_seconds = _cpu_seconds(lambda: self.scan.add(data.rows))
        self.screen.extend(self.scan)  # the same memory
        self.optimize_seconds = _cpu_seconds(self._optimize)

    def _optimize(self) -> None:
        self.made = self.screen.optimize(queries=self.known)

    def batches(self, n: int) -> Iterator[Rows]:
        """Batches of queries without end, so that no cache knows them."""
        at = 0
        while True:
            yield self.queries[at : at + n]
            at = (at + n) % (len(self.queries) - n)

    def check(self) -> None:
        """Both find the same, in every bit."""
        some = self.queries[:256]
        before, after = (
            index.search(some, 10, score_dtype="float64") for index in (self.scan, self.screen)
        )
        np.testing.assert_array_equal(before.ids, after.ids)
        np.testing.assert_array_equal(before.scores.view(np.int64), after.scores.view(np.int64))

    def compare(self, report: Report, name: str, n: int, k: int, turns: int) -> float:
        """How many times as fast the screen is, by the median of paired turns."""
        left, right = self.batches(n), self.batches(n)
        timings = report.compare(
            name,
            {
                SCAN: lambda: self.scan.search(next(left), k),
                SCREEN: lambda: self.screen.search(next(right), k),
            },
            rounds=turns,
        )
        return timings[SCAN].ratio_to(timings[SCREEN])


def _cpu_seconds(call: object) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def gains(report: Report, data: Data) -> None:
    """The bars on pictures."""
    for metric, bars in BARS.items():
        pair = Pair(of_two_lengths(data) if metric == "ip" else data, metric)
        pair.check()
        name = f"{len(data.rows):,} x {DIM} {metric}"
        report.console.print(f"{name}: {pair.made}", highlight=False)
        for n, bar in zip(BATCHES, bars, strict=True):
            for k in (10, 100):
                ratio = pair.compare(report, f"{name}, batch {n}, k={k}", n, k, TURNS[n])
                wanted = bar if k == 10 else bar / 2
                report.hold(
                    f"{name}, batch {n}, k={k}", "times the scan", ratio, wanted, most=False
                )
        stored = pair.screen.nbytes / data.rows.nbytes
        report.hold(name, "bytes of float32", stored, BYTES_BAR)


def losses(report: Report) -> None:
    """Vectors that gain nothing must lose nothing."""
    rng = np.random.default_rng(1)
    for n_rows, dim in ((1_000_000, 128), (200_000, 64)):
        rows = rng.standard_normal((n_rows, dim), dtype=np.float32)
        pair = Pair(Data(rows, rng.standard_normal((9000, dim), dtype=np.float32)), "cosine")
        name = f"gaussian {n_rows:,} x {dim}"
        report.console.print(f"{name}: {pair.made}", highlight=False)
        share = pair.optimize_seconds / pair.add_seconds
        report.hold(name, "optimize, of an add", share, 0.1)
        for n in (1, 32):
            ratio = pair.compare(report, f"{name}, batch {n}", n, 10, 30)
            report.hold(f"{name}, batch {n}", "times the scan", ratio, 0.95, most=False)


def strangers(report: Report, data: Data) -> None:
    """Rows that are easy to tell apart, and queries that are like none of them."""
    rows = data.rows[:60_000]
    noise = np.random.default_rng(2).uniform(0, 255, (9000, DIM)).astype(np.float32)
    pair = Pair(Data(rows, noise), "l2")
    pair.check()
    for n in BATCHES:
        name = f"noise among {len(rows):,} pictures, batch {n}"
        ratio = pair.compare(report, name, n, 10, TURNS[n])
        report.hold(name, "times the scan", ratio, 1 / 1.1, most=False)


def features(report: Report, path: Path) -> None:
    """Vectors from a file: 4 times at batch 1 and 1.5 at 1024 are the bars for ``pretrained``."""
    vectors = np.ascontiguousarray(np.load(path), np.float32)
    pair = Pair(Data(vectors[:-2000], vectors[-2000:]), "cosine")
    pair.check()
    name = f"features {len(vectors) - 2000:,} x {vectors.shape[1]}"
    report.console.print(f"{name}: {pair.made}", highlight=False)
    for n, bar in ((1, 4.0), (32, 1.0), (1024, 1.5)):
        ratio = pair.compare(report, f"{name}, batch {n}", n, 10, TURNS[n])
        report.hold(f"{name}, batch {n}", "times the scan", ratio, bar, most=False)


def beside_hnsw(report: Report, pair: Pair, rows: Rows) -> None:
    """One thread: an exact search against the rates of hnswlib for recall 0.95 and 0.99."""
    import hnswlib

    use_threads(1)
    graph = hnswlib.Index("l2", DIM)
    graph.init_index(len(rows), M=HNSW["M"], ef_construction=HNSW["ef_construction"])
    built = _cpu_seconds(lambda: graph.add_items(rows))
    graph.set_num_threads(1)
    report.hold("build", "of hnswlib's CPU time", pair.optimize_seconds / built, BUILD_BAR)
    asked = pair.queries[:1024]
    truth = pair.scan.search(asked, 10).ids
    rates: dict[int, list[tuple[float, float]]] = {1: [], 1024: []}
    asked_for: list[tuple[float, float]] = []  # recall of hnswlib, and its time over ours
    for ef in HNSW["ef"]:
        graph.set_ef(ef)
        found = graph.knn_query(asked, 10)[0]
        recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(found, truth, strict=True)]))
        for n in rates:
            streams = [pair.batches(n) for _ in range(3)]
            calls = {
                "hnswlib": lambda batch=streams[0]: graph.knn_query(next(batch), 10),
                SCREEN: lambda batch=streams[1]: pair.screen.search(next(batch), 10),
            }
            near = 0.99 if recall >= 0.99 else 0.95
            if n == 1:
                calls["recall"] = lambda batch=streams[2], near=near: pair.screen.search(
                    next(batch), 10, recall=near
                )
            name = f"hnswlib ef={ef}, recall {recall:.3f}, batch {n}"
            timings = report.compare(name, calls, rounds=TURNS[n])
            rates[n].append((recall, timings["hnswlib"].ratio_to(timings[SCREEN])))
            if n == 1:
                asked_for.append((recall, timings["hnswlib"].ratio_to(timings["recall"])))
    for wanted, bar in ((0.95, 0.8), (0.99, 1.6)):
        for n, pairs in rates.items():
            for _, ratio in [one for one in pairs if one[0] >= wanted][:1]:
                name = f"beside hnswlib at {wanted}, batch {n}"
                report.hold(name, "its rate, exact", ratio, bar * (n > 1), most=False)
        for _, ratio in [one for one in asked_for if one[0] >= wanted][:1]:
            name = f"beside hnswlib at {wanted}, batch 1"
            report.hold(
                name, f"its rate, recall={wanted}", ratio, 0.8 if wanted < 0.99 else 1, most=False
            )
    for wanted in (0.95, 0.99):
        ids = np.concatenate(
            [pair.screen.search(q, 10, recall=wanted).ids for q in np.split(asked, 32)]
        )
        reached = float(np.mean([np.isin(a, b).mean() for a, b in zip(ids, truth, strict=True)]))
        report.hold(f"recall={wanted}, unseen queries", "off by", abs(reached - wanted), 0.01)


def main() -> None:
    """Check everything, measure it in turns, print it, write it down."""
    options = parser(__doc__, "screen.json", N_ROWS)
    options.add_argument("--hnsw", action="store_true", help="measure hnswlib, too")
    options.add_argument("--features", type=Path, help="an array of vectors to measure, too")
    chosen = options.parse_args()
    use_threads(chosen.threads)
    report = Report()
    data = pictures(chosen.rows)
    if chosen.hnsw:
        beside_hnsw(report, Pair(data, "l2"), data.rows)
        chosen.json = chosen.json.with_name("screen_hnsw.json")
    else:
        losses(report)
        if chosen.features:
            features(report, chosen.features)
        strangers(report, data)
        gains(report, data)
    report.finish(chosen.json, {"n_rows": chosen.rows, "dim": DIM, "threads": chosen.threads})


if __name__ == "__main__":
    main()
