"""Small things to train and small data to train them on, for the tests of ``fr.train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastretrieve.encoders.models.cnn import CnnEncoder
from fastretrieve.training import TrainingResult, train
from fastretrieve.training.checkpoint import weights_of

SIDE = 10


def stripes(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images of stripes across (0) or along (1), of any phase: hard for pixels, easy for a cnn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    waves = np.sin(np.arange(SIDE) * 1.4 + rng.uniform(0, 6.3, (n, 1)))
    planes = np.repeat(waves[:, None, :], SIDE, axis=1)
    planes = np.where(labels[:, None, None] == 1, planes.transpose(0, 2, 1), planes)
    noisy = planes * 80 + 128 + rng.normal(0, 20, planes.shape)
    return noisy.clip(0, 255).astype(np.uint8), labels


def small(cls: type = CnnEncoder, **options: Any) -> Any:
    defaults = {"dim": 8, "image_size": SIDE, "channels": 1, "width": 4}
    return cls(**{**defaults, **options})


def fit(encoder: Any, *, n: int = 64, **options: Any) -> TrainingResult:
    images, labels = stripes(n)
    return train(
        encoder,
        images,
        **{"labels": labels, "epochs": 2, "workers": 0, "progress": False, **options},
    )


def same_weights(a: Any, b: Any) -> bool:
    ours, theirs = weights_of(a), weights_of(b)
    return set(ours) == set(theirs) and all(torch.equal(ours[k], theirs[k]) for k in ours)


def log_of(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "training" / "log.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def without_times(epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    timed = ("seconds", "cpu_seconds", "wait_share")
    return [{k: v for k, v in epoch.items() if k not in timed} for epoch in epochs]
