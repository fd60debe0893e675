"""Train what stands on a frozen encoder: encode each item once, then train on the vectors.

An encoder asks for this by two attributes: ``frozen``, an encoder that training leaves as it is,
and ``head``, a trainable encoder whose items are the vectors of ``frozen``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastretrieve.data import Dataset, Skipped
from fastretrieve.data.sources import Memory
from fastretrieve.encoders.encoding import encode_dataset
from fastretrieve.training.captions import learns_captions, paired
from fastretrieve.training.options import TrainingOptions
from fastretrieve.training.validation import Items, sampled


def has_head(encoder: Any) -> bool:
    """Whether only a head of it learns."""
    return hasattr(encoder, "head") and hasattr(encoder, "frozen")


def fit_frozen(encoder: Any, dataset: Dataset, options: TrainingOptions) -> None:
    """Fit the frozen encoder to the training items first, where it still may be fitted."""
    frozen = encoder.frozen
    if "fit" in frozen.capabilities and not getattr(frozen, "is_fitted", True):
        fit_to_sample(frozen, dataset, options)


def fit_to_sample(encoder: Any, dataset: Dataset, options: TrainingOptions) -> list[Skipped]:
    """Fit an encoder to all items, or to as many random ones as help it; returns what could not be
    read.
    """
    _, most = getattr(encoder, "fit_items", (0, len(dataset)))
    items = Items(encoder, sampled(dataset, most, seed=options.seed), options.workers)
    encoder.fit(items.limited(most))
    return items.skipped


def as_vectors(
    encoder: Any, dataset: Dataset, options: TrainingOptions
) -> tuple[Dataset, list[Skipped]]:
    """The items that can be read as a data set of the frozen encoder's vectors, in memory; those
    of captions beside them, where the encoder learns captions.
    """
    found = encode_dataset(
        encoder.frozen, dataset, workers=options.workers, progress=options.progress
    )
    if learns_captions(encoder):
        return paired(encoder, dataset, found), found.skipped
    kept = Dataset(
        Memory(np.ascontiguousarray(found.vectors)),
        labels=dataset.labels[found.rows],
        classes=dataset.classes,
        modality=dataset.modality,
    )
    return kept, found.skipped


def without_pictures(options: TrainingOptions) -> TrainingOptions:
    """The options of the run on vectors: its loader has nothing to decode."""
    return replace(options, workers=0)
