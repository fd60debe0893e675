"""Do heat maps show what matched? Deletion and insertion curves, and the weight on the object.

    python benchmarks/explain.py --cnn TRAINED_ENCODER FOLDER_A FOLDER_B
    python benchmarks/explain.py FOLDER_A FOLDER_B --only fashion/pixels     # merged by name

Pictures of a gallery show one object, and nothing beside it. In a query a second object is pasted
there. On Fashion-MNIST the match is the best one of both classes; of the drawings (equal names, as
for ``drawings.py``) it is the other artist's drawing of one of the two. So it is known which object
matched. ``share`` is the weight of the heat map on the half with that object, by chance 0.5.

Deletion hides the hottest pixels first (a low mean score is good), insertion shows them first (a
high one is). Hidden pixels are paper. Beside the map there are a random one, one that is hottest in
the centre, and for comparison the right answer, the half with the object: a set on which that is
not better than the others says nothing about maps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import fastretrieve as fr
from encoders_data import fashion_mnist
from fastretrieve.benchmarking.environment import describe
from fastretrieve.gallery.lookup.occluding import plain

RESULTS = Path(__file__).parent / "results" / "explain.json"
SIDE, N_ITEMS, STEPS = 128, 300, 9  # of pretrained; in a gallery; points of a curve
LEAST_SHARE = 0.7
Map = NDArray[np.float64]


class Asked(NamedTuple):
    """A query picture, what it matches, and which half shows what matched (None: all of it)."""

    picture: NDArray[np.uint8]
    item: int
    half: int | None


def pair(one: Any, other: Any, half: int) -> NDArray[np.uint8]:
    return np.concatenate([one, other] if half == 0 else [other, one], axis=1)


def beside_nothing(one: NDArray[np.uint8], half: int) -> NDArray[np.uint8]:
    return pair(one, np.asarray(plain(Image.fromarray(one))), half)


def fashion(gallery: fr.Gallery, rng: Any, n: int) -> Iterator[Asked]:
    data = fashion_mnist()
    order = iter(rng.permutation(len(data.queries)))
    while n:
        i, j = next(order), next(order)
        classes = [str(data.query_labels[k]) for k in (i, j)]
        if classes[0] == classes[1]:
            continue
        picture = pair(data.queries[i], data.queries[j], 0)
        either = f"label IN ('{classes[0]}', '{classes[1]}')"
        (match,) = gallery.search(picture, k=1, where=either)
        yield Asked(picture, match.item.id, classes.index(match.item.label or ""))
        n -= 1


def drawings(names: list[str], folders: list[Path], *, alone: bool) -> Callable[..., Any]:
    def ask(gallery: fr.Gallery, rng: Any, n: int) -> Iterator[Asked]:
        ids = {item.label: item.id for item in gallery.items()}
        known = np.flatnonzero([name in ids for name in names])  # equal drawings are one item
        for i, j in rng.permutation(known)[: 2 * n].reshape(n, 2):
            one, other = (read(folders[0] / names[k]) for k in (i, j))
            half = None if alone else int(i) % 2  # where it is in the gallery
            picture = one if half is None else pair(one, other, half)
            yield Asked(picture, ids[names[i]], half)

    return ask


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE)))


def enlarged(values: Map, shape: tuple[int, ...]) -> Map:
    field = Image.fromarray(values.astype(np.float32))
    return np.asarray(field.resize((shape[1], shape[0]), Image.Resampling.BILINEAR), np.float64)


def curves(gallery: fr.Gallery, asked: Asked, values: Map, rng: Any) -> tuple[float, float]:
    """The mean scores as the hottest pixels go, and as they come."""
    pixels = asked.picture
    heat = enlarged(values, pixels.shape).ravel()
    order = np.lexsort((rng.random(len(heat)), -heat))  # of equals a random one
    hidden, pictures = np.asarray(plain(Image.fromarray(pixels))), []
    for step in range(1, STEPS + 1):
        hot = np.zeros(len(heat), bool)
        hot[order[: step * len(heat) // (STEPS + 1)]] = True
        mask = hot.reshape(pixels.shape[:2] + (1,) * (pixels.ndim - 2))
        pictures += [np.where(mask, hidden, pixels), np.where(mask, pixels, hidden)]
    encoder = gallery.encoder
    rows = np.asarray(encoder.encode(encoder.preprocess(pictures)), np.float64)
    wanted = gallery.vectors([asked.item])[0].astype(np.float64)
    lengths = np.maximum(np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted), 1e-12)
    scores = rows @ wanted / lengths
    return float(scores[::2].mean()), float(scores[1::2].mean())


def centre(n: int) -> Map:
    places = np.arange(n) - (n - 1) / 2
    return -(places[:, None] ** 2) - places[None] ** 2


def measure(gallery: fr.Gallery, ask: Callable[..., Any], seed: int, n: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    rows: dict[str, list[float]] = {"seconds": []}
    for asked in ask(gallery, rng, n):
        began = time.perf_counter()
        found = gallery.explain(asked.picture, asked.item)
        rows["seconds"].append(time.perf_counter() - began)
        heat, side = found.query.heat, found.query.heat.shape[1]
        if asked.half is not None:
            left = float(heat[:, : side // 2].sum())
            rows.setdefault("share", []).append(left if asked.half == 0 else 1 - left)
        maps = {
            "map": found.query.effects,
            "centre": centre(side),
            "random": rng.random(heat.shape),
        }
        if asked.half is not None:
            right = (np.arange(side) // (side // 2) == asked.half).astype(float)
            maps["object"] = np.broadcast_to(right, heat.shape)
        for name, values in maps.items():
            for what, mean in zip(
                ("deletion", "insertion"), curves(gallery, asked, values, rng), strict=True
            ):
                rows.setdefault(f"{what} {name}", []).append(mean)
    return {name: float(np.mean(values)) for name, values in rows.items()}


def made(encoder: str, options: argparse.Namespace, *, grey: bool) -> Any:
    if encoder == "cnn":
        return str(options.cnn)
    if encoder == "pixels":
        return fr.create_encoder("pixels", image_size=28, channels=1 if grey else 3)
    return fr.create_encoder(
        "pretrained", image_size=SIDE, dim=256 if encoder == "fitted" else None
    )


def cases(options: argparse.Namespace) -> Iterator[tuple[str, Any, Any, Callable[..., Any]]]:
    """Name, encoder, items of the gallery and questions of each case."""
    data = fashion_mnist()
    labels = [str(label) for label in data.labels[:N_ITEMS]]
    for encoder in ["cnn"] * bool(options.cnn) + ["pretrained", "fitted", "pixels"]:
        shown = [beside_nothing(each, i % 2) for i, each in enumerate(data.items[:N_ITEMS])]
        source = (shown, labels)
        yield f"fashion/{encoder}", made(encoder, options, grey=True), source, fashion
    if not options.folders:
        return
    names = sorted(set.intersection(*({p.name for p in f.glob("*.png")} for f in options.folders)))
    chosen = [names[i] for i in np.random.default_rng(0).permutation(len(names))[:N_ITEMS]]
    for encoder in ("pretrained", "fitted", "pixels"):
        for name, alone in (("drawings", False), ("single drawings", True)):
            theirs = [read(options.folders[1] / each) for each in chosen]
            if not alone:
                theirs = [beside_nothing(each, i % 2) for i, each in enumerate(theirs)]
            source = (theirs, chosen)
            ask = drawings(chosen, options.folders, alone=alone)
            yield f"{name}/{encoder}", made(encoder, options, grey=False), source, ask


def judged(found: dict[str, list[float]]) -> dict[str, bool]:
    """The bars of a case, by means over the seeds."""
    bars = {}
    for other in ("centre", "random"):
        bars[f"deletion below {other}"] = found["deletion map"][0] < found[f"deletion {other}"][0]
        bars[f"insertion above {other}"] = (
            found["insertion map"][0] > found[f"insertion {other}"][0]
        )
    if "share" in found:
        bars[f"share at least {LEAST_SHARE}"] = found["share"][0] >= LEAST_SHARE
    return bars


def run(case: Any, options: argparse.Namespace) -> dict[str, Any]:
    name, encoder, (items, labels), ask = case
    with tempfile.TemporaryDirectory() as folder:
        gallery = fr.Gallery.create(Path(folder) / "g", encoder=encoder)
        gallery.add(items, labels=labels, progress=False)
        runs = [measure(gallery, ask, seed, options.n) for seed in options.seeds]
        gallery.close()
    found = {}
    for what in runs[0]:
        values = np.array([each[what] for each in runs])
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
        found[what] = [round(float(values.mean()), 4), round(float(error), 4)]
    bars = judged(found)
    print(name, found, [text for text, holds in bars.items() if not holds], flush=True)
    return {"queries": options.n, "seeds": options.seeds, **found, "bars": bars}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs="*", type=Path, help="two folders of drawings")
    parser.add_argument("--cnn", type=Path, help="a cnn that was trained on Fashion-MNIST")
    parser.add_argument("--only", nargs="+", help="names of cases, such as fashion/cnn")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("-n", type=int, default=16, help="queries of a seed")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    kept = json.loads(options.json.read_text("utf-8"))["results"] if options.json.is_file() else {}
    for case in cases(options):
        if options.only is None or case[0] in options.only:
            kept[case[0]] = run(case, options)
            result = {"results": kept, "machine": describe()}
            options.json.write_text(json.dumps(result, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
