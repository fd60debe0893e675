"""Recall against queries a second, beside libraries for approximate search.

    make bench-recall                            # every case to be had: hours
    python benchmarks/bench_recall.py --only pictures --batches 1 --peers hnswlib faiss-ivf
    python benchmarks/bench_recall.py --draw     # the picture alone, of what is measured already

One thread, k=10. Ours is exact, or keeps to leaves (``recall=``, ``probes=``); each peer is tuned
along its own parameter. The true neighbours are those of our exact search, which is the same in
every bit before and after ``optimize``: that is checked first. All settings take turns. Peers:
hnswlib, faiss-cpu, rabitqlib, scalable-vs; one that is not installed is named in the results. Cases
are named in ``recall_data.py``; ``--keep`` saves making their vectors again.

``benchmarks/results/recall.json`` keeps the cases of earlier runs. ``docs/images/recall.png`` shows
searches of one query.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import fastretrieve as fr
import recall_data
from bench_screen import Pair, Rows
from comparing import FORMAT, parser, use_threads
from fastretrieve.benchmarking import environment
from fastretrieve.benchmarking.report import write_json
from fastretrieve.benchmarking.timing import interleave
from recall_peers import PEERS, PROBES, Contender, Ids, K, Search, Setting, built
from recall_plot import EXACT, RATE, SCAN, draw, rate_at

RECALLS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
SECONDS = {1: 0.5}  # of turns for each setting, by the batch
OTHER_SECONDS = 1.0
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "recall.png"


def ours(pair: Pair) -> list[Contender]:
    """The scan, the same through its screen, and two ways to ask for less."""

    def asks(index: fr.Index, **options: float) -> Callable[[], Search]:
        return lambda: lambda queries: index.search(queries, K, **options).ids

    version = f"fastretrieve {fr.__version__}"
    scan = (version, pair.add_seconds, pair.scan.nbytes)
    screen = (version, pair.add_seconds + pair.optimize_seconds, pair.screen.nbytes)
    made = [
        Contender(SCAN, "as added", *scan, [Setting("", asks(pair.scan))]),
        Contender(EXACT, "optimized", *screen, [Setting("", asks(pair.screen))]),
    ]
    ways = {"recall": RECALLS, "probes": PROBES} if pair.made.head else {}
    for way, values in ways.items():
        settings = [Setting(f"{way}={n}", asks(pair.screen, **{way: n})) for n in values]
        made.append(Contender(f"fastretrieve {way}=", f"optimized, {way}", *screen, settings))
    return made


def recall_of(search: Search, asked: Rows, truth: Ids, batch: int) -> float:
    """The share of the true neighbours that it finds when it is asked in such batches."""
    found = np.concatenate([search(asked[at : at + batch]) for at in range(0, len(asked), batch)])
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)]))


class Turns:
    """The settings of one contender; the one whose turn it is must be in force."""

    def __init__(self) -> None:
        self.now: Setting | None = None
        self.search: Search | None = None

    def call(self, setting: Setting, batches: Iterator[Rows]) -> Callable[[], object]:
        def answer() -> object:
            if self.now is not setting:
                self.now, self.search = setting, setting.use()
            return self.search(next(batches))

        return answer


def measure(pair: Pair, contenders: list[Contender], batch: int) -> list[list[dict[str, object]]]:
    """The points of every contender at one batch: recall first, then all of them in turns."""
    asked = pair.queries[:1000]
    truth = pair.scan.search(asked, K).ids
    calls, recalls = {}, {}
    for contender in contenders:
        turns = Turns()
        for setting in contender.settings:
            key = f"{contender.name} {setting.value}"
            is_exact = contender.name in {SCAN, EXACT}  # checked in every bit
            recalls[key] = 1.0 if is_exact else recall_of(setting.use(), asked, truth, batch)
            calls[key] = turns.call(setting, pair.batches(batch))
    timings = interleave(calls, seconds=SECONDS.get(batch, OTHER_SECONDS))
    return [
        [
            {
                "setting": setting.value,
                "batch": batch,
                "recall": recalls[key],
                RATE: batch * len(timings[key].calls) / timings[key].spent,
            }
            for setting in contender.settings
            for key in [f"{contender.name} {setting.value}"]
        ]
        for contender in contenders
    ]


def run(console: Console, name: str, options: argparse.Namespace) -> dict[str, object]:
    """One case: build everybody, check ours, measure."""
    data = recall_data.load(name, options.rows, options)
    metric = recall_data.CASES[name].metric
    use_threads(options.threads)
    pair = Pair(data, metric)
    console.print(f"{name}: {pair.scan!r} {pair.made}", highlight=False)
    pair.check()
    contenders, absent = ours(pair), {}
    for peer in options.peers:
        try:
            contenders.append(built(peer, data.rows, options.threads))
        except (ImportError, ValueError, RuntimeError) as error:  # not installed, or not for these
            absent[peer] = f"{type(error).__name__}: {error}"
            console.print(f"{peer}: left out: {absent[peer]}", highlight=False)
        else:
            console.print(f"{peer}: {contenders[-1].build_seconds:.0f} s", style="dim")
    use_threads(1)
    parts = [measure(pair, contenders, batch) for batch in options.batches]
    return {
        "environment": environment.describe(),
        "n_rows": len(data.rows),
        "dim": data.rows.shape[1],
        "metric": metric,
        "k": K,
        "optimized": pair.made._asdict(),
        "absent": absent,
        "contenders": [
            {
                "name": contender.name,
                "about": contender.about,
                "version": contender.version,
                "build_cpu_seconds": contender.build_seconds,
                "bytes": contender.n_bytes,
                "points": list(itertools.chain(*points)),
            }
            for contender, *points in zip(contenders, *parts, strict=True)
        ],
    }


def show(console: Console, name: str, case: dict[str, object], batch: int) -> None:
    """The table: what building took, and how fast each is for a recall."""
    title = f"{name}: {case['n_rows']:,} x {case['dim']}, {case['metric']}, batch {batch}"
    table = Table(title=title, title_justify="left")
    for column in ("", "build, s", "MB", "q/s at 0.9", "at 0.95", "at 0.99", "most"):
        table.add_column(column, justify="right" if column else "left", no_wrap=not column)
    for contender in case["contenders"]:
        points = [point for point in contender["points"] if point["batch"] == batch]
        rates = [rate_at(points, recall) for recall in (0.9, 0.95, 0.99)]
        table.add_row(
            contender["name"],
            f"{contender['build_cpu_seconds']:.1f}",
            f"{contender['bytes'] / 1e6:,.0f}",
            *("-" if rate is None else f"{rate:,.0f}" for rate in rates),
            f"{max(point['recall'] for point in points):.3f}",
        )
    console.print(table)


def parsed() -> argparse.Namespace:
    """The options of the command."""
    options = parser(__doc__, "recall.json", 0)
    names = list(recall_data.CASES)
    options.add_argument("--only", nargs="+", choices=names, default=names, help="the cases")
    options.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    options.add_argument("--batches", nargs="+", type=int, default=[1, 1024])
    options.add_argument("--encoder", type=Path, help="an encoder of Fashion-MNIST")
    options.add_argument("--features", type=Path, help="an array of vectors")
    options.add_argument("--keep", type=Path, help="a folder for vectors that take long to make")
    options.add_argument("--draw", action="store_true", help="measure nothing")
    options.add_argument("--picture", type=Path, default=PICTURE)
    return options.parse_args()


def main() -> None:
    """Measure the cases, write down each when it is done, draw."""
    options, console = parsed(), Console()
    known = json.loads(options.json.read_text())["cases"] if options.json.exists() else {}
    for name in [] if options.draw else options.only:
        try:
            known[name] = run(console, name, options)
        except recall_data.Unavailable as error:
            console.print(f"{name}: left out: {error}", highlight=False)
            continue
        for batch in options.batches:
            show(console, name, known[name], batch)
        write_json(options.json, {"format": FORMAT, "cases": known})
    draw(known, options.picture, batch=1)


if __name__ == "__main__":
    main()
