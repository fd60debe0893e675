"""Do imagined queries find more, or more various, items than the query alone and than views of it?

    python benchmarks/imagine.py                       # with what benchmarks/encoders.py trained
    python benchmarks/imagine.py --only "tinted, cnn, gan"       # results are merged by name

Each way asks with the query, and with 16 more pictures: imagined ones, or changed views of the
query (three kinds); beside them stand the query alone, and maximal marginal relevance alone.

Fashion-MNIST: 10,000 items. The tinted set, with clutter: 6,000 items; there an answer is relevant
if it is of the query's class, and its subtopic is its tint, one of eight (each of red, green and
blue of what is shown is weak or strong). Three seeds choose queries and noise. The encoders and
generators are one training each; ``--folder`` is where ``encoders.py`` left them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import fastretrieve as fr
from encoders import COLOUR_ITEMS, COLOUR_SIZE
from encoders_data import Labelled, fashion_mnist, first, tinted_with_inks
from fastretrieve.benchmarking.environment import describe
from fastretrieve.encoders.base import seeded
from fastretrieve.encoders.blocks.views import MILD, Views
from fastretrieve.encoders.encoding import as_array
from fastretrieve.gallery.lookup.imagining import laid_over, neighbours
from fastretrieve.gallery.lookup.ranking import Order, ranked

RESULTS = Path(__file__).parent / "results" / "imagine.json"
FASHION_ITEMS = 10_000
N, SPREAD = 16, 0.3
TUNED = 300  # the first queries chose the spread, and are not asked here
DEPTH, CUT = 20, 10  # of alpha-nDCG, of precision
ALPHA = 0.5  # how much less a tint is worth each time that it comes again
DIVERSITY = 0.3
CHUNK = 50  # queries whose pictures are in memory
HUES = MILD._replace(hue=1.0)
COLOURED = Views(crop=0.8, flip=True, colour=0.4, hue=0.4)
PLAIN = "query alone"
LEAST_LOSS = 0.005  # of precision


class Case(NamedTuple):
    """Which data, which encoder made the gallery, which generator imagines."""

    data: str
    encoder: str
    generator: str


CASES = {
    "fashion, cnn, gan": Case("fashion", "cnn", "gan"),
    "fashion, cnn, vae": Case("fashion", "cnn", "vae"),
    "fashion, pixels, vae": Case("fashion", "pixels", "vae"),
    "tinted, cnn, gan": Case("tinted", "cnn-clutter-0", "gan-clutter-0"),
    "tinted, cnn, vae": Case("tinted", "cnn-clutter-0", "vae-clutter-0"),
    "tinted, vae, gan": Case("tinted", "vae-clutter-0", "gan-clutter-0"),
    "tinted, vae, vae": Case("tinted", "vae-clutter-0", "vae-clutter-0"),
}


class Set(NamedTuple):
    """Items, queries, and the tint of each item where there are tints."""

    pictures: Labelled
    tints: NDArray[np.int64] | None


def load(name: str, n_queries: int) -> Set:
    images = fashion_mnist()
    if name == "fashion":
        items = first(images, FASHION_ITEMS)
        return Set(items._replace(queries=images.queries[:n_queries]), None)
    made = tinted_with_inks(
        images, n_items=COLOUR_ITEMS, n_queries=n_queries, size=COLOUR_SIZE, cluttered=True
    )
    return Set(made.pictures, (made.inks > 0.75) @ np.array([1, 2, 4]))


# --- ways to ask ----------------------------------------------------------------------------------


def more_of(
    generator: Any, batch: torch.Tensor, *, spread: float, seed: int
) -> dict[str, torch.Tensor]:
    """By each way 16 more pictures [m, 16, c, h, w] of a batch of queries [m, c, h, w]."""
    codes = generator.invert(batch)
    near = neighbours(codes, N, spread=spread, seed=seed)
    drawn = generator.draw(near.flatten(0, 1)).view(-1, N, *batch.shape[1:])

    def views(kind: Views) -> torch.Tensor:
        with seeded(seed):
            return kind(batch.repeat_interleave(N, 0)).view(-1, N, *batch.shape[1:])

    return {
        "imagined": laid_over(drawn, batch, generator.draw(codes)),
        "drawn, nothing laid over": drawn,
        "mild views": views(MILD),
        "coloured views": views(COLOURED),
        **({"views of all hues": views(HUES)} if batch.shape[1] == 3 else {}),
    }


def vectors_of(encoder: Any, pictures: Any) -> NDArray[np.float32]:
    """Vectors of pictures as bytes: a gallery gets no floats, either."""
    return np.concatenate(
        [
            as_array(encoder.encode(encoder.preprocess(pictures[i : i + 500])))
            for i in range(0, len(pictures), 500)
        ]
    )


def as_bytes(pictures: torch.Tensor) -> NDArray[np.uint8]:
    pixels = (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def asked(
    encoder: Any, generator: Any, queries: NDArray[np.uint8], *, spread: float, seed: int
) -> dict[str, list[NDArray[np.float32]]]:
    """By each way the vectors [1 + 16, dim] of each query and its further pictures."""
    found: dict[str, list[NDArray[np.float32]]] = {}
    for i in range(0, len(queries), CHUNK):
        some = queries[i : i + CHUNK]
        own = vectors_of(encoder, some)[:, None]
        made = more_of(generator, generator.preprocess(some), spread=spread, seed=seed)
        for name, pictures in made.items():
            more = vectors_of(encoder, as_bytes(pictures.flatten(0, 1)))
            rows = np.concatenate([own, more.reshape(len(some), N, -1)], axis=1)
            found.setdefault(name, []).extend(rows)
    return found


# --- figures --------------------------------------------------------------------------------------


def gain(ids: NDArray[np.int64], relevant: NDArray[np.bool_], tints: NDArray[np.int64]) -> float:
    """Alpha-nDCG: a relevant item counts less the more often its tint came before it."""
    seen, total = np.zeros(8), 0.0
    for rank, i in enumerate(ids[:DEPTH]):
        if relevant[i]:
            total += (1 - ALPHA) ** seen[tints[i]] / math.log2(rank + 2)
            seen[tints[i]] += 1
    there, seen, best = np.bincount(tints[relevant], minlength=8), np.zeros(8), 0.0
    for rank in range(DEPTH):
        free = seen < there
        if not free.any():
            break
        tint = int(np.where(free, (1 - ALPHA) ** seen, -1).argmax())
        best += (1 - ALPHA) ** seen[tint] / math.log2(rank + 2)
        seen[tint] += 1
    return total / best if best else 0.0


def figures(
    answers: NDArray[np.int64], labels: NDArray[np.int64], given: Set, plain: NDArray[np.bool_]
) -> dict[str, float]:
    """Of answers [n_queries, 20]; ``plain`` says where the query alone has a right first answer."""
    relevant = given.pictures.labels[answers] == labels[:, None]
    one = relevant[:, 0]
    found = {
        "precision@10": float(relevant[:, :CUT].mean()),
        "right": float(one.mean()),
        "hard put right": float(one[~plain].mean()),
        "right spoiled": float((~one[plain]).mean()),
    }
    if given.tints is not None:
        found["alpha-nDCG@20"] = float(
            np.mean(
                [
                    gain(ids, given.pictures.labels == label, given.tints)
                    for ids, label in zip(answers, labels, strict=True)
                ]
            )
        )
    return found


def measure(case: Case, given: Set, chosen: argparse.Namespace) -> dict[str, Any]:
    """Figures of every way."""
    encoder = find_encoder(case, chosen.folder)
    generator = fr.load_encoder(chosen.folder / case.generator)
    index = fr.Index(encoder.dim, metric="cosine")
    index.add(vectors_of(encoder, given.pictures.items))
    runs: dict[str, list[dict[str, float]]] = {}
    for seed in chosen.seeds:
        start = TUNED + seed * chosen.queries
        part = slice(start, start + chosen.queries)
        queries, labels = given.pictures.queries[part], given.pictures.query_labels[part]
        plain: NDArray[np.bool_] | None = None
        for name, answers in answered(index, encoder, generator, queries, chosen, seed):
            if plain is None:  # the query alone comes first
                plain = given.pictures.labels[answers[:, 0]] == labels
            runs.setdefault(name, []).append(figures(answers, labels, given, plain))
            print(f"seed {seed} {name:36}", *map(_shown, runs[name][-1].items()), flush=True)
    return {name: summary(each, beside=runs[PLAIN]) for name, each in runs.items()}


def _shown(figure: tuple[str, float]) -> str:
    return f"{figure[0]} {figure[1]:.4f}"


def answered(
    index: Any,
    encoder: Any,
    generator: Any,
    queries: NDArray[np.uint8],
    chosen: argparse.Namespace,
    seed: int,
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Each way's name and its answers [n_queries, 20]; the query alone is the first."""

    def answers(asking: list[NDArray[np.float32]], order: Order) -> NDArray[np.int64]:
        options = {"k": DEPTH, "offset": 0, "where": None, "leave_out": ()}
        found = [ranked(index, each, order=order, **options) for each in asking]
        return np.array([[place.item_id for place in places] for places in found])

    alone = list(vectors_of(encoder, queries)[:, None])
    yield PLAIN, answers(alone, Order())
    yield "query alone, diversity", answers(alone, Order(diversity=DIVERSITY))
    made = asked(encoder, generator, queries, spread=chosen.spread, seed=seed)
    for name, asking in made.items():
        for fusion in ("best", "ranks"):
            yield f"{name}, {fusion}", answers(asking, Order(fusion))
        if name == "imagined":
            for fusion in ("best", "ranks"):
                order = Order(fusion, DIVERSITY)
                yield f"{name}, {fusion}, diversity", answers(asking, order)


def find_encoder(case: Case, folder: Path) -> Any:
    if case.encoder != "pixels":
        return fr.load_encoder(folder / case.encoder)
    is_grey = case.data == "fashion"
    return fr.create_encoder("pixels", image_size=14, channels=1 if is_grey else 3)


def summary(
    runs: list[dict[str, float]], *, beside: list[dict[str, float]]
) -> dict[str, list[float]]:
    """Of each figure the mean over the seeds, its standard error, and that of the difference from
    the query alone, which is smaller: queries of one seed are harder than those of another.
    """
    found = {}
    for name in runs[0]:
        values, alone = (np.array([run[name] for run in each]) for each in (runs, beside))
        numbers = [values.mean(), *(_error(each) for each in (values, values - alone))]
        found[name] = [round(float(number), 4) for number in numbers]
    return found


def _error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0


def judged(found: dict[str, Any]) -> dict[str, bool]:
    """The bars of the tinted set, for the default fusion."""
    ours, alone = found[f"imagined, {fr.Imagine('').fusion}"], found[PLAIN]
    bars = {
        f"precision@10 not below the query alone by more than {LEAST_LOSS}": (
            ours["precision@10"][0] >= alone["precision@10"][0] - LEAST_LOSS
        )
    }
    if "alpha-nDCG@20" in ours:
        bars |= {
            f"alpha-nDCG@20 above {name}": ours["alpha-nDCG@20"][0] > other["alpha-nDCG@20"][0]
            for name, other in found.items()
            if not name.startswith(("imagined", "drawn"))
        }
    return bars


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("out/encoders"))
    parser.add_argument("--only", nargs="+", default=list(CASES), choices=CASES, metavar="NAME")
    parser.add_argument("--queries", type=int, default=150, help="of each seed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--spread", type=float, default=SPREAD)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    missed = []
    for name in chosen.only:
        needed = {CASES[name].generator, CASES[name].encoder} - {"pixels"}
        if lacking := [each for each in needed if not (chosen.folder / each).is_dir()]:
            print(f"{name}: train {', '.join(lacking)} with benchmarks/encoders.py first")
            continue
        n_queries = TUNED + chosen.queries * (max(chosen.seeds) + 1)
        given = load(CASES[name].data, n_queries)
        found = measure(CASES[name], given, chosen)
        bars = judged(found)
        missed += [f"{name}: {bar}" for bar, holds in bars.items() if not holds]
        label = name if chosen.spread == SPREAD else f"{name}, spread {chosen.spread}"
        save(label, {"ways": found, "bars": bars}, chosen)
    print("missed:", *missed or ["nothing"], sep="\n  ")
    return 1 if missed else 0


def save(name: str, found: dict[str, Any], chosen: argparse.Namespace) -> None:
    """Merge the figures of one case into the file, with the machine that they were taken on."""
    path = chosen.results
    results = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    options = {"queries": chosen.queries, "seeds": chosen.seeds, "n": N, "spread": chosen.spread}
    results[name] = found | options | {"machine": describe()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, default=str) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
