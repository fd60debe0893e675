"""Rehearsals: how much of a vector should be learned, where there are too few items to hold out.

An encoder that ``rehearses`` weighs its parts by how well items find their neighbours that its
training has not seen. Of few items none is held out. So copies of it are trained beforehand, each
without some of the items; their scores are added, and the encoder that is trained on all items
adopts the best.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data import DataError, Dataset
from fastretrieve.encoders.blocks.shares import see
from fastretrieve.training.options import TrainingOptions
from fastretrieve.training.validation import FEWEST_ITEMS, Items

N_FOLDS = 3  # each held out once; every copy costs two thirds of the training
_Train = Callable[[Any, Dataset, None, TrainingOptions], Any]


def rehearse(
    encoder: Any,
    dataset: Dataset,
    held_out: Dataset | None,
    options: TrainingOptions,
    train: _Train,
) -> None:
    """Let the encoder adopt shares; where items are held out, it does so after every epoch."""
    folds = fold_numbers(dataset.labels, N_FOLDS, seed=options.seed)
    is_asked = getattr(encoder, "rehearses", False) and held_out is None
    if not is_asked or len(dataset) >= FEWEST_ITEMS or (folds >= 0).sum() < N_FOLDS:
        return
    alone = replace(options, out=None, progress=False)
    scores = []
    for i in range(N_FOLDS):
        rest, asked = dataset.subset(folds != i), dataset.subset(folds == i)
        try:
            twin = train(copy.deepcopy(encoder), rest, None, alone).encoder
        except DataError:
            return  # nothing can be read: the training itself will say so, of all items
        rows, queries = (Items(twin, part, options.workers) for part in (rest, asked))
        if rows.first() is not None and queries.first() is not None:
            scores.append(
                twin.share_scores(*(see(twin, part.labelled()) for part in (rows, queries)))
            )
    if scores:
        encoder.adopt(sum(scores))


def fold_numbers(labels: NDArray[np.int64], n_folds: int, *, seed: int) -> NDArray[np.int64]:
    """In which of the folds an item is held out, class by class; -1 where it never is.

    An item alone with its label, or without one, could find nothing that it should.

    >>> fold_numbers(np.array([0, 0, 0, 1, -1]), 3, seed=0).tolist()
    [1, 2, 0, -1, -1]
    """
    rng = np.random.default_rng(seed)
    folds = np.full(len(labels), -1, np.int64)
    first = 0
    for label in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == label)
        if len(members) > 1:
            folds[rng.permutation(members)] = (first + np.arange(len(members))) % n_folds
            first += len(members)  # so that small classes do not all fill the same fold
    return folds
