"""``fastretrieve demo``: index real pictures, search them, say how right and how fast, draw it.

The pictures are Fashion-MNIST's raw pixels, or scikit-learn's digits where that is not to be had
(``datasets.py`` decides). FAISS, if it is installed, answers the same queries beside us.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

import fastretrieve as fr
from fastretrieve import datasets
from fastretrieve.benchmarking import oracle
from fastretrieve.benchmarking.cases import Data, Matrix
from fastretrieve.benchmarking.environment import usable_cores
from fastretrieve.benchmarking.measure import OURS
from fastretrieve.benchmarking.peers import PEERS, Search, version_of
from fastretrieve.benchmarking.timing import Timing, interleave
from fastretrieve.datasets import DatasetError, Pictures

K = 10
CHECKED_QUERIES = 64
TIMED_QUERIES = 200
SECONDS = 1.0
DRAWN_QUERIES = 10
TILE, GAP, BORDER = 64, 6, 3
BACKGROUND, RIGHT, WRONG, ASKED = "white", "#1a7f37", "#cf222e", "#57606a"


class Found(NamedTuple):
    ids: NDArray[np.int64]  # [n_queries, k]
    seconds: float


def demo(
    out: Annotated[Path, typer.Option(help="The folder for the picture.")] = Path("out"),
    download: Annotated[
        bool, typer.Option(help="Download the pictures if they are not here.")
    ] = True,
) -> None:
    """Index real pictures, search them, say how right and how fast that is, draw what was found.

    Example: fastretrieve demo --out out
    """
    console = Console()
    pictures = choose_pictures(console, download=download)
    data = Data(rows=_pixels(pictures.gallery.images), queries=_pixels(pictures.queries.images))
    console.print(
        f"[bold]{pictures.name}[/bold] from {pictures.source}: {len(data.rows):,} pictures, "
        f"{len(data.queries):,} queries, {data.rows.shape[1]} pixels each"
    )

    start = time.perf_counter()
    index = fr.Index(data.rows.shape[1], metric="l2")
    index.add(data.rows)
    console.print(f"indexed in {time.perf_counter() - start:.2f} s, {index.nbytes / 1e6:.0f} MB")

    found = search_all(index, data)
    console.print(
        f"searched all queries in {found.seconds:.2f} s; "
        f"{check(index, data)} of them checked against a float64 brute force: equal, bit for bit"
    )
    right = pictures.gallery.labels[found.ids[:, 0]] == pictures.queries.labels
    console.print(f"the nearest picture has the query's label in {right.mean():.2%} of the queries")

    console.print(latency_table(single_queries(index, data)))
    path = out / "neighbours.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(pictures, found.ids).save(path)
    console.print(f"wrote {path}: queries on the left, their nearest pictures beside them")


def choose_pictures(console: Console, *, download: bool) -> Pictures:
    """Fashion-MNIST if it is here or can be fetched, else the digits, saying so."""
    folder = datasets.find_fashion_mnist()
    if folder is None and download:
        console.print(f"downloading Fashion-MNIST, about {datasets.DOWNLOAD_MB} MB")
        try:
            folder = datasets.download_fashion_mnist()
        except (DatasetError, OSError) as error:
            console.print(f"no download: {error}", style="yellow")
    if folder is not None:
        return datasets.load_fashion_mnist(folder)
    console.print("Fashion-MNIST is not here: scikit-learn's digits stand in", style="yellow")
    return datasets.load_digits()


def search_all(index: fr.Index, data: Data) -> Found:
    """All queries in one batch."""
    start = time.perf_counter()
    hits = index.search(data.queries, k=K)
    return Found(np.asarray(hits.ids), time.perf_counter() - start)


def check(index: fr.Index, data: Data) -> int:
    """Compare some answers with the oracle; return how many."""
    some = np.linspace(0, len(data.queries) - 1, CHECKED_QUERIES).astype(np.int64)
    hits = index.search(data.queries[some], k=K)
    expected = oracle.exact_topk(data.queries[some], data.rows, k=K, metric="l2")
    oracle.check_equal(np.asarray(hits.scores), np.asarray(hits.ids), expected)
    return len(some)


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
    faiss = PEERS["faiss"]
    if version := version_of(faiss.distribution):
        for threads in sorted({1, usable_cores()}):
            name = f"faiss {version}, {threads} thread{'s' * (threads > 1)}"
            calls[name] = ask(faiss.build(data, "l2", threads))
    return interleave(calls, seconds=SECONDS)


def latency_table(timings: dict[str, Timing]) -> Table:
    """Milliseconds for one query."""
    table = Table(title=f"one query, k={K}", title_justify="left")
    table.add_column("who")
    for heading in ("median ms", "p90 ms", "times us"):
        table.add_column(heading, justify="right")
    for name, timing in timings.items():
        ratio = "" if name == OURS else f"{timing.ratio_to(timings[OURS]):.1f}"
        milliseconds = (timing.median * 1e3, timing.percentile(90) * 1e3)
        table.add_row(name, *(f"{ms:.3f}" for ms in milliseconds), ratio)
    return table


def draw(pictures: Pictures, ids: NDArray[np.int64]) -> Image.Image:
    """A row for each query: the query, then its neighbours, green where the label is the same."""
    asked = _first_of_each_label(pictures.queries.labels)[:DRAWN_QUERIES]
    step = TILE + 2 * BORDER + GAP
    size = (GAP + step * (K + 1) + 2 * GAP, GAP + step * len(asked))
    sheet = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for line, query in enumerate(asked):
        label = pictures.queries.labels[query]
        tiles = [(pictures.queries.images[query], ASKED)]
        for row in ids[query]:
            colour = RIGHT if pictures.gallery.labels[row] == label else WRONG
            tiles.append((pictures.gallery.images[row], colour))
        for column, (pixels, colour) in enumerate(tiles):
            x = GAP + step * column + (2 * GAP if column else 0)  # the query stands apart
            y = GAP + step * line
            pen.rectangle((x, y, x + TILE + 2 * BORDER - 1, y + TILE + 2 * BORDER - 1), fill=colour)
            tile = Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.NEAREST)
            sheet.paste(tile, (x + BORDER, y + BORDER))
    return sheet


def _first_of_each_label(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(labels, return_index=True)[1]


def _pixels(images: NDArray[np.uint8]) -> Matrix:
    return images.reshape(len(images), -1).astype(np.float32)
