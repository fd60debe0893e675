"""Measure how right and how fast a search is, beside FAISS on the same vectors."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

import fastretrieve as fr
from fastretrieve.benchmarking import oracle
from fastretrieve.benchmarking.cases import Data, Matrix
from fastretrieve.benchmarking.environment import usable_cores
from fastretrieve.benchmarking.measure import OURS
from fastretrieve.benchmarking.peers import PEERS, Search, version_of
from fastretrieve.benchmarking.timing import Timing, interleave

K = 10
METRIC: Final = "cosine"
CHECKED_QUERIES = 64
TIMED_QUERIES = 200
SECONDS = 1.0
_FAISS = PEERS["faiss"]


class Space(NamedTuple):
    """Pictures as vectors of unit length, with the names of what they show."""

    name: str
    data: Data
    labels: NDArray[np.str_]  # [n_rows]
    wanted: NDArray[np.str_]  # [n_queries]


class Found(NamedTuple):
    """The results of searching a space, with their accuracy and speed."""

    space: Space
    ids: NDArray[np.int64]  # [n_queries, K]
    recall: float  # how often the nearest has the query's label: recall@1
    precision: float  # how many of the K nearest have it: precision@K
    timings: dict[str, Timing]  # for one query: ours, and FAISS with one thread and with all


def space_of(
    name: str, rows: Matrix, labels: NDArray[np.str_], queries: Matrix, wanted: NDArray[np.str_]
) -> Space:
    """Vectors of any length, each made one of unit length: its inner products are then cosines."""
    return Space(name, Data(fr.normalize(rows), fr.normalize(queries)), labels, wanted)


def compare(space: Space) -> Found:
    """Search with all queries, compare some answers with a brute force, and time single ones."""
    index = fr.Index(space.data.rows.shape[1], metric=METRIC)
    index.add(space.data.rows)
    ids = np.asarray(index.search(space.data.queries, k=K).ids)
    check(index, space.data)
    right = space.labels[ids] == space.wanted[:, None]
    timings = single_queries(index, space.data)
    return Found(space, ids, float(right[:, 0].mean()), float(right.mean()), timings)


def check(index: fr.Index, data: Data) -> None:
    """Compare some answers with the float64 brute force; they must be equal, bit for bit."""
    some = np.linspace(0, len(data.queries) - 1, CHECKED_QUERIES).astype(np.int64)
    hits = index.search(data.queries[some], k=K)
    expected = oracle.exact_topk(data.queries[some], data.rows, k=K, metric=METRIC)
    oracle.check_equal(np.asarray(hits.scores), np.asarray(hits.ids), expected)


def single_queries(index: fr.Index, data: Data) -> dict[str, Timing]:
    """One query at a time, ours and FAISS (with one thread and with all) in turns."""
    queries = [data.queries[i : i + 1] for i in range(min(TIMED_QUERIES, len(data.queries)))]
    turn = {"query": 0}

    def next_query() -> Matrix:
        turn["query"] = (turn["query"] + 1) % len(queries)
        return queries[turn["query"]]

    def ask(search: Search) -> Callable[[], object]:
        return lambda: search(next_query(), K)

    calls = {OURS: ask(lambda queries, k: np.asarray(index.search(queries, k=k).ids))}
    if version_of(_FAISS.distribution):
        for threads in sorted({1, usable_cores()}):
            calls[f"faiss {threads}"] = ask(_FAISS.build(data, METRIC, threads))
    return interleave(calls, seconds=SECONDS)


def best_peer(timings: Mapping[str, Timing]) -> Timing | None:
    """FAISS with the number of threads that suits it better, or None where it is not installed."""
    peers = [timing for name, timing in timings.items() if name != OURS]
    return min(peers, key=lambda timing: timing.median, default=None)


def table_of(everything: list[Found]) -> Table:
    """A line for each space."""
    has_peer = all(best_peer(found.timings) for found in everything)
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold cyan")  # in 80 columns
    table.add_column("nearest by", no_wrap=True)
    headings = ("numbers", "recall@1", f"precision@{K}", "one search")
    for heading in (*headings, *(["FAISS"] if has_peer else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for found in everything:
        ours, peer = found.timings[OURS], best_peer(found.timings)
        cells = [f"{found.space.data.rows.shape[1]}"]
        cells += [f"{found.recall:.1%}", f"{found.precision:.1%}", milliseconds(ours.median)]
        if peer is not None:
            cells.append(f"{milliseconds(peer.median)} = {peer.ratio_to(ours):.1f}x")
        table.add_row(found.space.name, *cells)
    return table


def footnote() -> str:
    """A footnote that explains the table."""
    version = version_of(_FAISS.distribution)
    faiss = f"FAISS {version}: IndexFlat, with as many threads as suit it best."
    return (
        f"recall@1: how often the nearest picture shows what the query shows; precision@{K}: how "
        f"many of the {K} nearest do. Of each line {CHECKED_QUERIES} answers were compared with a "
        f"float64 brute force: equal, bit for bit. "
        + (faiss if version else "To see FAISS beside it: pip install faiss-cpu")
    )


def milliseconds(seconds: float) -> str:
    """
    >>> milliseconds(0.00164), milliseconds(0.0123)
    ('1.64 ms', '12.3 ms')
    """
    return f"{seconds * 1e3:.3g} ms"
