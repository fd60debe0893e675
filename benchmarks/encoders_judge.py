"""Are generated images varied, and none of them a training image? A trained cnn is the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import fastretrieve as fr
from encoders_data import Labelled, pad_pixels
from fastretrieve.training.pictures import draw_sheet

CHUNK = 500
COPY = 0.02  # root mean square difference of pixels in [0, 1] below which an image is a copy
SHEET = (10, 16)  # rows, columns


def judge_samples(
    artist: Any, judge: Any, data: Labelled, *, n: int, sheet: Path
) -> dict[str, Any]:
    """The share of each class, how sure the judge is, and how near training images are."""
    samples = torch.cat([artist.generate(min(CHUNK, n - i), seed=i) for i in range(0, n, CHUNK)])
    shares = torch.cat([judge.probabilities(part) for part in samples.split(CHUNK)])
    counts = torch.bincount(shares.argmax(1), minlength=len(judge.classes))
    rows = pad_pixels(data.items)
    distances = nearest_distances(samples.flatten(1), rows)
    of_tests = nearest_distances(pad_pixels(data.queries[:n]), rows)
    draw_sheet(sheet, list(samples[: SHEET[0] * SHEET[1]].split(SHEET[1])))
    return {
        "n": n,
        "class_shares": {
            name: float(count) / n for name, count in zip(judge.classes, counts, strict=True)
        },
        "mean_confidence": float(shares.max(1).values.mean()),
        "n_copies": int((distances < COPY).sum()),
        "nearest_training_image": float(distances.min()),
        "median_distance": float(np.median(distances)),
        "median_distance_of_test_images": float(np.median(of_tests)),
    }


def nearest_distances(images: torch.Tensor, rows: torch.Tensor) -> np.ndarray[Any, Any]:
    """Root mean square pixel difference to the nearest row."""
    found = fr.topk(images, rows, k=1, metric="l2").scores
    return np.asarray(found)[:, 0] / images.shape[1] ** 0.5
