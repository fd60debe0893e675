"""What ``encoders.py`` measures of an encoder: retrieval, baselines, densities, and training.

A finished training is not repeated: its folder holds the encoder and the log with its seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import fastretrieve as fr
from encoders_data import Labelled, pad_pixels
from fastretrieve.encoders.base import TorchEncoder, seeded
from fastretrieve.training import train

CHUNK = 250  # larger ones leave the cache
PCA_ITEMS = 20_000
FITTED_ITEMS = 4000  # what fr.train shows after_training, so that the twin sees as much


class Training(NamedTuple):
    """A trained encoder and the log of its epochs."""

    encoder: Any
    epochs: list[dict[str, Any]]
    best_epoch: int | None

    @property
    def spent(self) -> dict[str, float]:
        """Seconds include validation, sheets and checkpoints; the share is of the worst epoch."""
        return {
            "wall_seconds": self.epochs[-1]["seconds"],
            "cpu_seconds": self.epochs[-1]["cpu_seconds"],
            "wait_share": max(epoch["wait_share"] for epoch in self.epochs),
        }


def trained(
    encoder: TorchEncoder, data: Labelled, *, epochs: int | None, out: Path, seed: int = 0
) -> Training:
    """Train, go on where a stopped run left off, or take what a finished run left in ``out``."""
    finished = _finished(encoder, epochs=epochs, out=out)
    if finished is not None:
        return finished
    result = train(encoder, data.items, labels=data.labels, epochs=epochs, out=out, seed=seed)
    return Training(result.encoder, result.epochs, result.best_epoch)


def _finished(encoder: TorchEncoder, *, epochs: int | None, out: Path) -> Training | None:
    """The run in ``out``, if it is one of this encoder with as many epochs, and has ended."""
    log = out / "training" / "log.jsonl"
    lines = (
        [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.is_file() else []
    )
    if not lines or lines[-1]["event"] != "end" or not (out / "config.json").is_file():
        return None
    start, *between, end = lines
    if start["config"] != json.loads(json.dumps(encoder.config)) or start["epochs"] != epochs:
        return None
    return Training(type(encoder).load(out), between, end["best_epoch"])


def vectors(encoder: Any, items: Any) -> torch.Tensor:
    """Encode all items, trained or not."""
    parts = [
        torch.as_tensor(encoder.encode(encoder.preprocess(items[i : i + CHUNK])))
        for i in range(0, len(items), CHUNK)
    ]
    return torch.cat(parts)


def nearest_accuracy(gallery: Any, queries: Any, data: Labelled) -> float:
    """The share of queries whose nearest row has their label."""
    ids = np.asarray(fr.topk(queries, gallery, k=1, metric="cosine").ids)[:, 0]
    return float((data.labels[ids] == data.query_labels).mean())


def accuracy(encoder: Any, data: Labelled) -> float:
    return nearest_accuracy(vectors(encoder, data.items), vectors(encoder, data.queries), data)


def baselines(data: Labelled, dim: int) -> dict[str, float]:
    """The pixels, PCA and a random projection of them, at the encoder's dimension."""
    flat, asked = pad_pixels(data.items), pad_pixels(data.queries)
    with seeded(0):
        # Randomised, since an exact decomposition of 9,216 colour values takes minutes.
        mean = flat.mean(0)
        axes = torch.pca_lowrank(flat[:PCA_ITEMS] - mean, q=dim, center=False, niter=4)[2]
        projection = torch.randn(flat.shape[1], dim) / dim**0.5
    return {
        "pixels": nearest_accuracy(flat, asked, data),
        "pca": nearest_accuracy((flat - mean) @ axes, (asked - mean) @ axes, data),
        "random projection": nearest_accuracy(flat @ projection, asked @ projection, data),
    }


def untrained(make: Callable[[], Any], data: Labelled) -> dict[str, float]:
    """The twin as it is constructed; and, where training fits a reduction, with that alone."""
    twin = make().eval()
    found = {"untrained": accuracy(twin, data)}
    if hasattr(twin, "after_training"):
        sample = data.items[:FITTED_ITEMS]
        batches = [twin.preprocess(sample[i : i + CHUNK]) for i in range(0, len(sample), CHUNK)]
        twin.after_training(batches)
        found["untrained, reduction fitted"] = accuracy(twin, data)
    return found


def density(encoder: Any, data: Labelled) -> dict[str, float]:
    """What a density says of the test images."""
    asked = data.queries
    batches = [encoder.preprocess(asked[i : i + CHUNK]) for i in range(0, len(asked), CHUNK)]
    if hasattr(encoder, "elbo"):
        nats = torch.cat([encoder.elbo(batch) for batch in batches])
        return {"test_elbo_nats": float(nats.mean())}
    if hasattr(encoder, "bits_per_dim"):
        bits = torch.cat([encoder.bits_per_dim(batch) for batch in batches])
        return {"test_bits_per_dim": float(bits.mean())}
    return {}
