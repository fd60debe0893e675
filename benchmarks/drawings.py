"""The same symbols drawn by two artists: which encoder finds the other artist's drawing?

    python benchmarks/drawings.py FOLDER_A FOLDER_B      # pictures with equal names are pairs
    python benchmarks/drawings.py FOLDER_A FOLDER_B --encoders cnn      # results are merged by name

Half of the symbols are there to fit and to train on. A's drawings of the other half search B's.
``openmoji`` (CC BY-SA 4.0; SVG) and ``emoji-datasource-emojione`` of the npm registry are such;
draw both on white, 128 pixels a side, and name each file by its code point.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastretrieve as fr
from fastretrieve.benchmarking.environment import describe
from fastretrieve.data import Dataset, open_dataset
from fastretrieve.encoders.encoding import encode_dataset

RESULTS = Path(__file__).parent / "results" / "drawings.json"
FITTED = {"image_size": 128, "dim": 512}
BARS = {"fitted": 1.4, "adapter": 1.02}  # recall@1 of pretrained; recall@10 of fitted pretrained


def untrained(name: str, **options: Any) -> Callable[[Dataset, int], Any]:
    return lambda pairs, seed: fr.create_encoder(name, **options)


def learned(name: str, **options: Any) -> Callable[[Dataset, int], Any]:
    """Fitted or trained on pairs."""

    def make(pairs: Dataset, seed: int) -> Any:
        encoder = fr.create_encoder(name, **options)
        fr.train(encoder, pairs, seed=seed, progress=False)
        return encoder

    return make


ENCODERS = {
    "pixels 16": untrained("pixels", image_size=16),
    "pixels 16, 128 components": learned("pixels", image_size=16, dim=128),
    "pretrained": untrained("pretrained", image_size=128),
    "fitted": learned("pretrained", **FITTED),
    "adapter": learned("adapter", frozen="pretrained", options=FITTED),
    "cnn": learned("cnn", image_size=64, objective="metric"),
}


def recalls(encoder: Any, asked: Dataset, rows: Dataset) -> tuple[float, float]:
    """Recall@1 and @10 of pictures for the ones of equal number."""
    queries, shown = (encode_dataset(encoder, data).vectors for data in (asked, rows))
    ids = fr.topk(queries, shown, k=10).ids
    hits: NDArray[np.bool_] = ids == np.arange(len(ids))[:, None]
    return float(hits[:, 0].mean()), float(hits.any(1).mean())


def halves(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def measure(pairs: Dataset, names: list[str], seeds: list[int]) -> dict[str, Any]:
    """Means and standard errors over the seeds; a pair is items 2i and 2i + 1."""
    found: dict[str, Any] = {}
    for name in names:
        runs, seconds = [], []
        for seed in seeds:
            known, unseen = halves(len(pairs) // 2, seed)
            began = time.process_time()
            encoder = ENCODERS[name](pairs.subset(np.sort(np.r_[2 * known, 2 * known + 1])), seed)
            seconds.append(time.process_time() - began)
            runs.append(recalls(encoder, pairs.subset(2 * unseen), pairs.subset(2 * unseen + 1)))
            print(f"{name:28} seed {seed}: recall@1 {runs[-1][0]:.3f}, @10 {runs[-1][1]:.3f}")
        table = np.array(runs)
        error = table.std(0, ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else np.zeros(2)
        found[name] = {
            "recall@1": [round(float(table[:, 0].mean()), 4), round(float(error[0]), 4)],
            "recall@10": [round(float(table[:, 1].mean()), 4), round(float(error[1]), 4)],
            "cpu_seconds": round(float(np.mean(seconds)), 1),
        }
    return found


def judged(found: dict[str, Any]) -> dict[str, bool]:
    """The bars, as far as both sides were measured."""
    bars = {}
    if {"fitted", "pretrained"} <= set(found):
        ratio = found["fitted"]["recall@1"][0] / found["pretrained"]["recall@1"][0]
        bars[f"fitted / pretrained, recall@1, {ratio:.2f} >= {BARS['fitted']}"] = (
            ratio >= BARS["fitted"]
        )
    if {"fitted", "adapter"} <= set(found):
        ratio = found["adapter"]["recall@10"][0] / found["fitted"]["recall@10"][0]
        bars[f"adapter / fitted, recall@10, {ratio:.3f} >= {BARS['adapter']}"] = (
            ratio >= BARS["adapter"]
        )
        lost = found["fitted"]["recall@1"][0] - found["adapter"]["recall@1"][0]
        bars["adapter's recall@1 no worse by a standard error"] = lost <= max(
            found["fitted"]["recall@1"][1], found["adapter"]["recall@1"][1]
        )
    if {"cnn", "pixels 16, 128 components"} <= set(found):
        bars["cnn above pixels"] = (
            found["cnn"]["recall@1"][0] > found["pixels 16, 128 components"]["recall@1"][0]
        )
    return bars


def measured(path: Path, *, n_pairs: int, seeds: list[int]) -> dict[str, Any]:
    """What the file holds of the same pairs and seeds."""
    if not path.is_file():
        return {}
    before = json.loads(path.read_text("utf-8"))
    is_same = (before["pairs"], before["seeds"]) == (n_pairs, seeds)
    return dict(before["results"]) if is_same else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs=2, type=Path)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=ENCODERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    pairs = open_dataset(tuple(options.folders), pairs=True)
    kept = measured(options.json, n_pairs=len(pairs) // 2, seeds=options.seeds)
    found = kept | measure(pairs, options.encoders, options.seeds)
    bars = judged(found)
    for text, holds in bars.items():
        print("holds " if holds else "FAILS ", text)
    result = {
        "pairs": len(pairs) // 2,
        "seeds": options.seeds,
        "results": found,
        "bars": bars,
        "machine": describe(),
    }
    options.json.write_text(json.dumps(result, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
