"""Do words find pictures: with captions to learn from, without any, and where words are written?

    python benchmarks/words.py --symbols openmoji/color/72x72 --names openmoji/data/openmoji.json
    python benchmarks/words.py --fashion --folder out/encoders     # what encoders.py trained

Symbols: half of them are known, with two captions each: half of their name and tags, and the other
half. The others, which no encoder has seen with words, are asked for by half of their words; only
BM25 and hybrid know the other half, as captions. ``pretrained`` is fitted once, to every second
picture, without words. Three seeds divide symbols and words.

Fashion-MNIST: 4,000 pictures are known by the names of their classes in five phrasings, and 1,000
others are asked for in five other ones.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import fastretrieve as fr
from encoders_data import fashion_mnist
from fastretrieve.benchmarking.environment import describe
from fastretrieve.data import Dataset, open_dataset
from fastretrieve.encoders.defaults import FITTED_PRETRAINED
from fastretrieve.encoders.encoding import as_array, encode_dataset, encode_texts
from fastretrieve.gallery import GalleryError

RESULTS = Path(__file__).parent / "results" / "words.json"
CNN: dict[str, Any] = {"dim": 128, "image_size": 32, "channels": 3, "width": 16}
CNN_EPOCHS = 15
K = 10
LAMBDAS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # of ridge, times the mean variance
FOLDS = 5
KNOWN, SHOWN = 4000, 1000  # pictures of Fashion-MNIST
NAMES = (
    *("t-shirt", "trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
PHRASES = (
    "{}",
    "a photo of a {}",
    "a grey {}",
    "{} in an online shop",
    "show me a {}",
    "a picture that shows a {}",
    "one {}, from the front",
    "clothing: {}",
    "I would like to buy a {}",
    "do you have a {} like this?",
)
Vectors = NDArray[np.float32]
Ask = Callable[[Sequence[str]], NDArray[np.int64]]  # texts -> answers [n, K], positions


class Remembering:
    """A frozen encoder that keeps the vector of each item: seeds ask for the same ones. With a
    ``file`` it keeps them between runs.
    """

    def __init__(self, encoder: Any, file: Path | None = None) -> None:
        self.encoder, self.file = encoder, file
        self.kept: dict[bytes, Vectors] = {}
        if file is not None and file.is_file():
            with np.load(file) as found:
                self.kept = dict(zip(map(bytes, found["keys"]), found["rows"], strict=True))
        for name in ("name", "dim", "modality", "api_version"):
            setattr(self, name, getattr(encoder, name))
        self.image_size = getattr(encoder, "image_size", None)
        self.capabilities: frozenset[str] = frozenset()

    def preprocess(self, items: Any) -> Any:
        return [item if isinstance(item, str) else np.asarray(item) for item in items]

    def encode(self, batch: Any) -> Vectors:
        texts_or_bytes = (i.encode() if isinstance(i, str) else i.tobytes() for i in batch)
        keys = [hashlib.sha1(each).digest() for each in texts_or_bytes]
        new = [i for i, key in enumerate(keys) if key not in self.kept]
        if new:
            made = self.encoder.preprocess([batch[i] for i in new])
            for i, row in zip(new, as_array(self.encoder.encode(made)), strict=True):
                self.kept[keys[i]] = row
        return np.stack([self.kept[key] for key in keys])

    def keep(self) -> None:
        if self.file is not None:
            keys = np.stack([np.frombuffer(key, np.uint8) for key in self.kept])
            np.savez(self.file, keys=keys, rows=np.stack([*self.kept.values()]))

    def to(self, device: Any) -> Remembering:
        return self

    def save(self, directory: Any) -> None:
        self.encoder.save(directory)

    @classmethod
    def load(cls, directory: Any, *, device: str = "cpu") -> Remembering:
        return cls(fr.load_encoder(directory, device=device))


class Division(NamedTuple):
    """Symbols that are known with captions, and others that are asked for."""

    known: Dataset  # with a column caption: two a symbol
    paths: list[Path]  # of the others
    captions: list[list[str]]  # the words of these that are written
    asked: list[list[str]]  # the words with which they are asked for


# --- symbols --------------------------------------------------------------------------------------


def symbols(folder: Path, names: Path) -> tuple[list[Path], list[list[str]]]:
    """The pictures that have a name, and the words of each: the name, then the tags."""
    told = {}
    for row in json.loads(names.read_text("utf-8")):
        tags = f"{row['tags']},{row['openmoji_tags']}".split(",")
        words = [row["annotation"], *(tag.strip() for tag in tags)]
        told[row["hexcode"].lower()] = list(dict.fromkeys(word for word in words if word))
    paths = [path for path in sorted(folder.glob("*.png")) if path.stem.lower() in told]
    return paths, [told[path.stem.lower()] for path in paths]


def divided(paths: list[Path], words: list[list[str]], seed: int) -> Division:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(paths))
    known, others = order[: len(paths) // 2], order[len(paths) // 2 :]
    halves = []
    for each in words:
        mixed = rng.permutation(len(each))
        cut = max(len(each) // 2, 1)
        one, other = ([each[i] for i in sorted(part)] for part in (mixed[:cut], mixed[cut:]))
        halves.append((one, other or one))
    texts = [[", ".join(half) for half in halves[i]] for i in known]
    return Division(
        open_dataset([paths[i] for i in known], columns={"caption": texts}),
        [paths[i] for i in others],
        [halves[i][0] for i in others],
        [halves[i][1] for i in others],
    )


def by_vectors(images: Vectors, embed: Callable[[Sequence[str]], Any]) -> Ask:
    """Answers of an exact search by cosine."""

    def ask(texts: Sequence[str]) -> NDArray[np.int64]:
        found = fr.topk(as_array(embed(texts)), images, k=K, metric="cosine")
        return np.asarray(found.ids)

    return ask


def vectors_of(encoder: Any, data: Dataset) -> Vectors:
    return encode_dataset(encoder, data, progress=False).vectors


def ridge(frozen: Any, text: Any, known: Dataset, shown: Dataset) -> Ask:
    """A linear map from pictures to the vectors of their captions, its weight chosen by folds."""
    images = unit(vectors_of(frozen, known))
    rows = [(i, caption) for i, each in enumerate(known.columns["caption"]) for caption in each]
    picture = np.array([i for i, _ in rows])
    texts = encode_texts(text, [caption for _, caption in rows])
    folds = picture % FOLDS

    def score(weight: float) -> float:
        found = []
        for fold in range(FOLDS):
            rest = folds != fold
            project, mean = fitted(images[picture[rest]], texts[rest], weight)
            held = np.unique(picture[~rest])
            places = np.searchsorted(held, picture[~rest])
            scores = unit(texts[~rest] - mean) @ unit(project(images[held])).T
            own = scores[np.arange(len(places)), places]
            found.append((1 / (scores >= own[:, None] - 1e-7).sum(1)).mean())
        return float(np.mean(found))

    project, mean = fitted(images[picture], texts, max(LAMBDAS, key=score))
    made = project(unit(vectors_of(frozen, shown))).astype(np.float32)
    return by_vectors(made, lambda asked: encode_texts(text, asked) - mean)


def fitted(images: Vectors, texts: Vectors, weight: float) -> tuple[Callable[..., Any], Vectors]:
    means = images.mean(0), texts.mean(0)
    a, b = images - means[0], texts - means[1]
    square = a.T @ a
    square += weight * np.trace(square) / len(square) * np.eye(len(square), dtype=np.float32)
    weights = np.linalg.solve(square, a.T @ b)
    return (lambda rows: (rows - means[0]) @ weights), means[1]


def unit(rows: Vectors) -> Vectors:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)


def trained(frozen: Any, text: Any, known: Dataset, seed: int) -> Any:
    words = fr.create_encoder("words", image=frozen, text=text, seed=seed)
    fr.train(words, known, seed=seed, progress=False)
    return words


def with_captions(words: Any, given: Division, folder: Path) -> tuple[Ask, Ask]:
    """BM25 of the captions, and hybrid: a gallery of the unseen symbols with their captions."""
    table = folder / "captions.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "caption"])
        for path, captions in zip(given.paths, given.captions, strict=True):
            writer.writerow([path.resolve(), ", ".join(captions)])
    made = fr.Gallery.create(folder / "symbols.gallery", encoder=words)
    made.add(table, progress=False)
    places = {str(path.resolve()): position for position, path in enumerate(given.paths)}

    def listed(found: Any) -> NDArray[np.int64]:
        ids = [places[str(match.path)] for match in found]
        return np.array([*ids, *[-1] * (K - len(ids))])

    def written(text: str) -> Any:
        try:
            return made.find(" OR ".join(f'"{word}"' for word in text.split(", ")), k=K)
        except GalleryError:  # the name of a keycap is a sign, which is no word
            return ()

    def bm25(texts: Sequence[str]) -> NDArray[np.int64]:
        return np.stack([listed(written(each)) for each in texts])

    def hybrid(texts: Sequence[str]) -> NDArray[np.int64]:
        return np.stack([listed(made.search(text=each, hybrid=True, k=K)) for each in texts])

    return bm25, hybrid


def hits(ask: Ask, asked: list[list[str]]) -> NDArray[np.bool_]:
    """[2, n]: whether each text finds its picture first, and among the first ten."""
    answers = ask([", ".join(words) for words in asked])
    right = answers == np.arange(len(answers))[:, None]
    return np.stack([right[:, 0], right.any(1)])


def measure_symbols(chosen: argparse.Namespace) -> dict[str, NDArray[np.bool_]]:
    """The hits of each way, of all seeds."""
    paths, words = symbols(chosen.symbols, chosen.names)
    print(f"{len(paths)} symbols, {np.mean([len(each) for each in words]):.1f} words each")
    text = Remembering(fr.create_encoder("minilm"))
    fused = fr.create_encoder("pretrained", **FITTED_PRETRAINED)
    fr.train(fused, open_dataset(paths[::2]), progress=False)
    conse = fr.create_encoder("conse", text=text)
    frozen, shares = (
        Remembering(encoder, chosen.keep and chosen.keep / f"{encoder.name}.npz")
        for encoder in (fused, conse)
    )
    runs: dict[str, list[NDArray[np.bool_]]] = {}
    for seed in chosen.seeds:
        given = divided(paths, words, seed)
        shown = open_dataset(given.paths)
        cnn = fr.create_encoder("cnn", **CNN)
        fr.train(cnn, given.known, seed=seed, epochs=CNN_EPOCHS, progress=False)
        small = Remembering(cnn)
        print(f"seed {seed}: the cnn is trained", flush=True)
        ways: dict[str, Ask] = {
            "conse": by_vectors(vectors_of(shares, shown), conse.encode_text),
            "ridge on pretrained": ridge(frozen, text, given.known, shown),
            "ridge on cnn": ridge(small, text, given.known, shown),
        }
        for name, image in (("cnn", small), ("pretrained", frozen)):
            made = trained(image, text, given.known, seed)
            ways[f"words on {name}"] = by_vectors(vectors_of(made, shown), made.encode_text)
        with tempfile.TemporaryDirectory() as folder:
            ways["BM25"], ways["hybrid"] = with_captions(made, given, Path(folder))
            for name, ask in ways.items():
                runs.setdefault(name, []).append(hits(ask, given.asked))
                print(f"seed {seed} {name:22}", *runs[name][-1].mean(1).round(4), flush=True)
        frozen.keep()
        shares.keep()
    return {name: np.concatenate(each, axis=1) for name, each in runs.items()}


def summary(found: dict[str, NDArray[np.bool_]], n_shown: int) -> dict[str, Any]:
    rows: dict[str, Any] = {"chance": {"recall@1": 1 / n_shown, "recall@10": K / n_shown}}
    for name, each in found.items():
        rows[name] = {"recall@1": float(each[0].mean()), "recall@10": float(each[1].mean())}
    return {name: {k: round(v, 4) for k, v in row.items()} for name, row in rows.items()}


def judged(found: dict[str, NDArray[np.bool_]]) -> dict[str, Any]:
    """Differences in standard errors; the same texts ask in both ways."""
    bars = [("words on pretrained", other) for other in ("conse", "ridge on pretrained")]
    bars += [("hybrid", other) for other in ("words on pretrained", "BM25")]
    told = {}
    for ours, other in bars:
        for row, name in enumerate(("recall@1", "recall@10")):
            gains = found[ours][row].astype(float) - found[other][row]
            error = max(gains.std(ddof=1) / len(gains) ** 0.5, 1e-12)
            told[f"{ours} over {other}, {name}"] = {
                "difference": round(float(gains.mean()), 4),
                "standard errors": round(float(gains.mean() / error), 1),
                "holds": bool(gains.mean() > 2 * error),
            }
    return told


# --- Fashion-MNIST --------------------------------------------------------------------------------


def measure_fashion(chosen: argparse.Namespace) -> dict[str, Any]:
    """For each way and seed: how often the first answer is right, and how many of ten."""
    text = Remembering(fr.create_encoder("minilm"))
    data = fashion_mnist()
    shown_labels = np.asarray(data.query_labels[:SHOWN])
    shown = open_dataset(data.queries[:SHOWN])
    fused = fr.create_encoder("pretrained", **FITTED_PRETRAINED)
    fr.train(fused, data.items[:1000], progress=False)
    frozen, conse = Remembering(fused), fr.create_encoder("conse", text=text)
    towers = {"pretrained": frozen}
    if chosen.folder is not None and (chosen.folder / "cnn").is_dir():
        towers["cnn"] = Remembering(fr.load_encoder(chosen.folder / "cnn"))
    untrained = by_vectors(vectors_of(Remembering(conse), shown), conse.encode_text)
    found: dict[str, Any] = {}
    for seed in chosen.seeds:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(PHRASES))
        texts = [
            [PHRASES[order[rng.integers(5)]].format(NAMES[label])] for label in data.labels[:KNOWN]
        ]
        known = open_dataset(data.items[:KNOWN], columns={"caption": texts})
        asked = [(phrase, name) for phrase in order[5:] for name in range(len(NAMES))]
        ways = {"conse": untrained}
        for name, image in towers.items():
            start = time.perf_counter()
            made = trained(image, text, known, seed)
            print(f"seed {seed} words on {name}: {time.perf_counter() - start:.0f} s")
            found.setdefault("seconds for 4,000 pairs", {}).setdefault(
                name, round(time.perf_counter() - start, 1)
            )
            ways[f"words on {name}"] = by_vectors(vectors_of(made, shown), made.encode_text)
            ways[f"ridge on {name}"] = ridge(image, text, known, shown)
        wanted = np.array([name for _, name in asked])[:, None]
        for name, ask in ways.items():
            answers = ask([PHRASES[phrase].format(NAMES[label]) for phrase, label in asked])
            right = shown_labels[answers] == wanted
            figures = [right[:, 0].mean(), right.any(1).mean(), right.mean()]
            found.setdefault(name, []).append([round(float(each), 4) for each in figures])
            print(f"seed {seed} {name:22}", *found[name][-1], flush=True)
    return {"figures": ["recall@1", "recall@10", "precision@10"], **found}


def milliseconds(n: int = 50) -> dict[str, float]:
    """Of ``encode_text`` for one sentence."""
    words = fr.create_encoder("words")
    took = []
    for i in range(n):
        start = time.perf_counter()
        words.encode_text([f"a red boot on a wooden table, number {i}"])
        took.append(1e3 * (time.perf_counter() - start))
    return {"median": round(float(np.median(took)), 2), "least": round(min(took), 2)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--symbols", type=Path, help="a folder of pictures named by code points")
    parser.add_argument("--names", type=Path, help="openmoji.json, with their names and tags")
    parser.add_argument("--keep", type=Path, help="a folder that keeps vectors of symbols")
    parser.add_argument("--fashion", action="store_true", help="measure on Fashion-MNIST")
    parser.add_argument("--folder", type=Path, help="where encoders.py left a trained cnn")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    missed = []
    results = json.loads(chosen.results.read_text("utf-8")) if chosen.results.is_file() else {}
    about = {"seeds": chosen.seeds, "machine": describe()}
    if chosen.symbols is not None:
        found = measure_symbols(chosen)
        n_shown = len(found["conse"][0]) // len(chosen.seeds)
        bars = judged(found)
        missed += [bar for bar, told in bars.items() if not told["holds"]]
        ways = summary(found, n_shown)
        results["symbols"] = {"n_shown": n_shown, "ways": ways, "bars": bars} | about
    if chosen.fashion:
        results["fashion"] = measure_fashion(chosen) | about
    results["milliseconds of one text"] = milliseconds()
    print(results["milliseconds of one text"])
    chosen.results.parent.mkdir(parents=True, exist_ok=True)
    chosen.results.write_text(json.dumps(results, indent=1, default=str) + "\n", "utf-8")
    print("missed:", *missed or ["nothing"], sep="\n  ")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
