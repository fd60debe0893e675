"""The end of a training on captions: once more on all pairs, those held out too.

Held-out pictures say how long to train and how good the encoder is. A tenth of the pairs is worth
more than that afterwards, and on vectors the second training takes seconds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastretrieve.data import Dataset
from fastretrieve.training.launching import run_on
from fastretrieve.training.options import TrainingOptions
from fastretrieve.training.result import TrainingResult
from fastretrieve.training.validation import Items, sampled


def train_on_all(
    encoder: Any, pairs: Dataset, options: TrainingOptions, result: TrainingResult
) -> None:
    """Train the head anew for as many epochs as were best; 0 is the start alone."""
    head = encoder.head
    if result.best_epoch:
        alone = replace(options, epochs=result.best_epoch, out=None, progress=False)
        run_on(head, pairs, None, alone, whole=encoder, n_items=len(pairs))
    else:
        some = sampled(pairs, head.sees_items, seed=options.seed)
        head.before_training(Items(head, some, options.workers).limited(len(some)))
    if options.folder is not None:
        encoder.save(options.folder)
    result.trained_on_all = True
