"""Do queries of one style find more when they are carried into the style of the collection?

    python benchmarks/translate.py FOLDER_A FOLDER_B     # pictures with equal names show the same
    python benchmarks/translate.py FOLDER_A FOLDER_B --encoders pixels --seeds 0   # merged by name

The same symbols, drawn by two artists (``drawings.py`` says where they come from). Half of the
symbols is there to learn from, as two sets of pictures: nothing says which belong together. A's
drawings of the other half search B's, as they are and by each option of ``search(translate=)``. A
fit sees A's known drawings and the collection that is searched. The translator, which has seen the
known drawings of both, is also judged by the kernel distance (KID) of its pictures from B's, in the
features of ``pretrained``, beside that of A's own drawings.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastretrieve as fr
from drawings import FITTED, halves
from fastretrieve.benchmarking.environment import describe
from fastretrieve.data import Dataset, open_dataset
from fastretrieve.encoders.encoding import encode_dataset
from fastretrieve.evaluation.generation import kernel_distance
from fastretrieve.gallery.lookup.styles import HOWS, PictureStyle, VectorStyle

RESULTS = Path(__file__).parent / "results" / "translate.json"
SIDE = 32  # pixels a side of the translator
JUDGE_SIDE = 64  # at which pretrained compares pictures
BARS = {"door": 1.2, "kid": 0.5}
ENCODERS: dict[str, dict[str, Any]] = {
    "pixels": {"image_size": 16},
    "pretrained": {"image_size": 128},
    "fitted": FITTED,
    "cnn": {"image_size": 64, "objective": "metric"},
}
LEARNED = ("fitted", "cnn")
Vectors = NDArray[np.float32]


class Division(NamedTuple):
    """Which symbols may be learned from, and the drawings of both kinds."""

    known: NDArray[np.int64]
    unseen: NDArray[np.int64]
    sides: tuple[list[Path], list[Path]]  # known drawings by A and by B
    asked: list[Path]  # unseen, by A
    shown: list[Path]  # unseen, by B


def encoder_of(name: str, pairs: Dataset, seed: int) -> Any:
    """An encoder as ``drawings.py`` makes it; the last two learn from the known half."""
    made = fr.create_encoder("pretrained" if name == "fitted" else name, **ENCODERS[name])
    if name in LEARNED:
        fr.train(made, pairs, seed=seed, progress=False)
    return made


def recalls(queries: Vectors, items: Vectors) -> tuple[float, float]:
    """Recall@1 and @10 of queries for the items of equal number."""
    ids = np.asarray(fr.topk(queries, items, k=10, metric="cosine").ids)
    hits = ids == np.arange(len(ids))[:, None]
    return float(hits[:, 0].mean()), float(hits.any(1).mean())


def translator_of(
    known: tuple[list[Path], list[Path]], *, seed: int, out: Path, epochs: int | None
) -> dict[str, Any]:
    """A translator for this seed, trained unless it is in ``out`` already, and its CPU seconds."""
    if not (out / "config.json").is_file():
        made = fr.create_encoder("translator", image_size=SIDE, seed=seed)
        fr.train(
            made,
            from_=known[0],
            to=known[1],
            seed=seed,
            out=out,
            epochs=epochs,
            progress=False,
        )
    lines = (out / "training" / "log.jsonl").read_text().splitlines()
    last = [json.loads(line) for line in lines if '"epoch": ' in line][-1]
    return {"style": PictureStyle(fr.load_encoder(out), name="translator"), **last}


def distances(style: PictureStyle, asked: list[Path], shown: list[Path]) -> dict[str, float]:
    """The KID of translated and of original drawings from those of the other artist."""
    judge: Any = fr.create_encoder("pretrained", image_size=JUDGE_SIDE)
    translator: Any = style.translator
    a, b = (
        translator.preprocess([open_dataset([path])[0] for path in paths])
        for paths in (asked, shown)
    )
    made = np.concatenate([translator.translate(part).numpy() for part in np.array_split(a, 8)])
    features = [
        np.concatenate(
            [
                np.asarray(judge.encode(judge.preprocess(list(part.transpose(0, 2, 3, 1)))))
                for part in np.array_split(np.asarray(pictures), 8)
            ]
        )
        for pictures in (a, made, b)
    ]
    return {
        "kid_original": kernel_distance(features[0], features[2]),
        "kid_translated": kernel_distance(features[1], features[2]),
    }


def measured(
    encoder: Any, rows: Vectors, division: Division, style: PictureStyle | None
) -> dict[str, tuple[float, float]]:
    """Recalls by every option of the door; ``rows`` are the vectors of all drawings."""
    a, b = rows[0::2], rows[1::2]
    asked, shown = a[division.unseen], b[division.unseen]
    found = {"none": recalls(asked, shown)}
    for how in HOWS:
        fitted = VectorStyle.fit(
            how, a[division.known], shown, metric="cosine", made_for="", name=how
        )
        found[how] = recalls(fitted.vectors(asked), shown)
    if style is not None:
        pictures = [style.picture(open_dataset([path])[0]) for path in division.asked]
        made = encode_dataset(encoder, open_dataset(pictures), progress=False).vectors
        found["translator"] = recalls(made, shown)
        found["none of the same seeds"] = found["none"]
    return found


def summary(runs: list[tuple[float, float]]) -> dict[str, Any]:
    """Means and standard errors over the seeds."""
    table = np.array(runs)
    error = table.std(0, ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else np.zeros(2)
    return {
        f"recall@{k}": [round(float(table[:, i].mean()), 4), round(float(error[i]), 4)]
        for i, k in enumerate((1, 10))
    } | {"seeds": len(runs)}


def judged(found: dict[str, Any], kids: list[dict[str, float]]) -> dict[str, bool]:
    """The bars, as far as both sides were measured."""
    bars = {}
    if "pretrained" in found:
        by = found["pretrained"]
        best = max((name for name in by if name != "none"), key=lambda n: by[n]["recall@1"][0])
        ratio = by[best]["recall@1"][0] / by["none"]["recall@1"][0]
        wanted = BARS["door"]
        bars[f"pretrained, {best} / none, recall@1, {ratio:.2f} >= {wanted}"] = ratio >= wanted
    if "translator" in found.get("pixels", {}):
        same = found["pixels"]["none of the same seeds"]["recall@1"][0]
        value = found["pixels"]["translator"]["recall@1"][0]
        bars[f"pixels, translator {value:.4f} > none {same:.4f}, recall@1"] = value > same
    if kids:
        ratio = float(np.mean([k["kid_translated"] / k["kid_original"] for k in kids]))
        wanted = BARS["kid"]
        bars[f"KID of translations / of originals, {ratio:.2f} <= {wanted}"] = ratio <= wanted
    return bars


def divided(pairs: Dataset, seed: int) -> Division:
    known, unseen = halves(len(pairs) // 2, seed)

    def paths(numbers: NDArray[np.int64], side: int) -> list[Path]:
        return [Path(pairs.key(2 * int(i) + side)) for i in numbers]

    sides = paths(known, 0), paths(known, 1)
    return Division(known, unseen, sides, paths(unseen, 0), paths(unseen, 1))


def translator_run(
    division: Division, seed: int, options: argparse.Namespace, runs: dict[str, Any]
) -> PictureStyle:
    """The translator of a seed; ``runs`` gets what is new about it."""
    out = options.out / str(seed)
    run = translator_of(division.sides, seed=seed, out=out, epochs=options.epochs)
    style: PictureStyle = run["style"]
    if str(seed) not in runs:
        facts = {name: run[name] for name in ("epoch", "cpu_seconds")} | {"side": SIDE}
        runs[str(seed)] = facts | distances(style, division.asked, division.shown)
        print(f"translator, seed {seed}:", runs[str(seed)])
    return style


def of_encoder(
    name: str, pairs: Dataset, options: argparse.Namespace, runs: dict[str, Any]
) -> dict[str, Any]:
    """The recalls of one encoder by every option, over the seeds."""
    by_option: dict[str, list[tuple[float, float]]] = {}
    rows: Vectors | None = None
    for seed in options.seeds:
        division = divided(pairs, seed)
        style = None
        if seed in options.trained:
            style = translator_run(division, seed, options, runs)
        if rows is None or name in LEARNED:
            known = np.sort(np.r_[2 * division.known, 2 * division.known + 1])
            encoder = encoder_of(name, pairs.subset(known), seed)
            rows = encode_dataset(encoder, pairs, progress=False).vectors
        for option, values in measured(encoder, rows, division, style).items():
            by_option.setdefault(option, []).append(values)
            print(f"{name:10} seed {seed} {option:24} @1 {values[0]:.3f}, @10 {values[1]:.3f}")
    return {option: summary(values) for option, values in by_option.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs=2, type=Path)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=ENCODERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--trained", nargs="*", type=int, default=[0], help="translator seeds")
    parser.add_argument("--epochs", type=int, help="of the translator")
    parser.add_argument("--out", type=Path, default=Path("translators"))
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    pairs = open_dataset(tuple(options.folders), pairs=True)
    kept = json.loads(options.json.read_text()) if options.json.is_file() else {}
    found, runs = dict(kept.get("results", {})), dict(kept.get("translator", {}))
    bars: dict[str, bool] = {}
    for name in options.encoders:
        found[name] = of_encoder(name, pairs, options, runs)
        bars = judged(found, list(runs.values()))
        result = {
            "pairs": len(pairs) // 2,
            "results": found,
            "translator": runs,
            "bars": bars,
            "machine": describe(),
        }
        options.json.write_text(json.dumps(result, indent=1, default=str) + "\n")
    for text, holds in bars.items():
        print("holds " if holds else "FAILS ", text)


if __name__ == "__main__":
    main()
