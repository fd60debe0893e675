"""What ``balanced`` does for rare classes, in training and in votes.

    python benchmarks/unbalanced.py              # 15 minutes of one core

Fashion-MNIST with 600 items of the most frequent class and 6 of the rarest; 2,000 test images
search them. A ``cnn`` is trained twice a seed, with the classes in opposite order, so that each is
once among the five frequent ones and once among the five rare. "drop" is the mean over the frequent
classes less that over the rare ones. Three figures have one: recall@1, the vote of ten neighbours
(``fr.classify``), and the encoder's own head. "equal" is recall@1 among 6 items of each class: what
is left of the drop where the gallery itself is balanced.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import fastretrieve as fr
from encoders import RESULTS, save
from encoders_data import Labelled, fashion_mnist, first
from encoders_figures import vectors
from fastretrieve.encoders.models.cnn import CnnEncoder

N_CLASSES, MOST, FEWEST = 10, 600, 6
N_QUERIES, EPOCHS = 2000, 12
SIZES = np.rint(MOST * (FEWEST / MOST) ** (np.arange(N_CLASSES) / (N_CLASSES - 1))).astype(int)
FREQUENT = N_CLASSES // 2
BAR = 0.5  # of the drop of plain training and plain votes


def unbalanced(data: Labelled, order: NDArray[np.int64], seed: int) -> Labelled:
    """Fewer and fewer items of the classes in this order, and the first queries."""
    rng = np.random.default_rng(seed)
    members = [rng.permutation(np.flatnonzero(data.labels == c)) for c in order]
    rows = rng.permutation(
        np.concatenate([m[:n] for m, n in zip(members, SIZES.tolist(), strict=True)])
    )
    asked = first(data, N_QUERIES)
    return Labelled(data.items[rows], data.labels[rows], asked.queries, asked.query_labels)


def answers(encoder: Any, data: Labelled) -> dict[str, NDArray[np.int64]]:
    """The class that each way finds for each query."""
    rows, asked = (vectors(encoder, items).numpy() for items in (data.items, data.queries))
    even = np.concatenate([np.flatnonzero(data.labels == c)[:FEWEST] for c in range(N_CLASSES)])
    nearest = np.asarray(fr.topk(asked, rows, k=1, metric="cosine").ids)[:, 0]
    equal = even[np.asarray(fr.topk(asked, rows[even], k=1, metric="cosine").ids)[:, 0]]
    votes = {
        name: fr.classify(asked, (rows, data.labels), balanced=balanced)
        for name, balanced in (("vote", False), ("balanced vote", True))
    }
    head = torch.cat(
        [
            encoder.probabilities(encoder.preprocess(data.queries[i : i + 250]))
            for i in range(0, N_QUERIES, 250)
        ]
    )
    return {
        "recall@1": data.labels[nearest],
        "equal": data.labels[equal],
        **{name: np.array(found.classes, int)[found.labels] for name, found in votes.items()},
        "head": np.array(encoder.classes, int)[head.argmax(1).numpy()],
    }


def measure(data: Labelled, seed: int, *, balanced: bool) -> dict[str, dict[str, float]]:
    """Figures of one seed, the means of both orders of the classes."""
    order = np.random.default_rng(seed).permutation(N_CLASSES)
    runs = []
    for placed in (order, order[::-1]):
        part = unbalanced(data, placed, seed)
        encoder = CnnEncoder(dim=64, image_size=28, channels=1, width=16, seed=seed)
        options = {"epochs": EPOCHS, "seed": seed, "balanced": balanced, "progress": False}
        fr.train(encoder, part.items, labels=part.labels, **options)
        runs.append({name: _figures(a, part, placed) for name, a in answers(encoder, part).items()})
    return {
        name: {key: float(np.mean([run[name][key] for run in runs])) for key in runs[0][name]}
        for name in runs[0]
    }


def _figures(
    found: NDArray[np.int64], data: Labelled, order: NDArray[np.int64]
) -> dict[str, float]:
    hits = found == data.query_labels
    by_class = np.array([hits[data.query_labels == c].mean() for c in order])
    frequent, rare = by_class[:FREQUENT].mean(), by_class[FREQUENT:].mean()
    return {
        "mean": float(by_class.mean()),
        "worst class": float(by_class.min()),
        "frequent": float(frequent),
        "rare": float(rare),
        "drop": float(frequent - rare),
    }


def summary(runs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Means over the seeds with their standard errors."""
    table: dict[str, dict[str, list[float]]] = {}
    for name in runs[0]:
        for key in runs[0][name]:
            values = [run[name][key] for run in runs]
            error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
            table.setdefault(name, {})[key] = [
                round(float(np.mean(values)), 4),
                round(float(error), 4),
            ]
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    data, began = fashion_mnist(), time.process_time()
    found = {
        name: summary([measure(data, seed, balanced=balanced) for seed in chosen.seeds])
        for name, balanced in (("plain", False), ("balanced", True))
    }
    before, after = found["plain"]["vote"], found["balanced"]["balanced vote"]
    ratio = after["drop"][0] / before["drop"][0]
    result = {
        "data": f"Fashion-MNIST, {SIZES.tolist()} items a class, {N_QUERIES} queries",
        "seeds": chosen.seeds,
        "cpu_seconds": round(time.process_time() - began, 1),
        **found,
        "bars": {
            f"drop of votes <= {BAR} of that without balance": ratio <= BAR,
            "mean of votes no lower": after["mean"][0] >= before["mean"][0],
        },
    }
    save("unbalanced", result, chosen.results)
    return 0 if all(result["bars"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
