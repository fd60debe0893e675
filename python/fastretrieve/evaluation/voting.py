"""``classify``: label items by a vote of their nearest neighbours."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.metric import Metric
from fastretrieve.data import Skipped
from fastretrieve.encoders import as_encoder
from fastretrieve.evaluation.labelled import (
    from_items,
    from_vectors,
    gallery_pair,
)


class Classification(NamedTuple):
    """Labels by vote; ``head`` holds the encoder's own probabilities where it has a head."""

    names: list[str]  # [n]
    labels: NDArray[np.int64]  # [n], positions in classes
    shares: NDArray[np.float64]  # [n, n_classes], of the votes
    classes: tuple[str, ...]
    neighbours: NDArray[np.int64]  # [n, k], positions in the gallery
    head: NDArray[np.float32] | None  # [n, n_head_classes]
    head_classes: tuple[str, ...]
    skipped: list[Skipped]  # items that could not be read; the others keep their order


def classify(
    items: Any,
    gallery: Any,
    *,
    encoder: Any = None,
    k: int = 10,
    metric: Metric = "cosine",
    weights: Literal["uniform", "rank"] = "rank",
    balanced: bool = False,
    device: str | None = None,
) -> Classification:
    """Label each item by a vote of its ``k`` nearest labelled neighbours in the gallery.

    Without an encoder, ``items`` are vectors and ``gallery`` is ``(vectors, labels)``; with one,
    both are data sets. ``weights="rank"`` counts a neighbour as one over its rank; "uniform" counts
    each the same, which named 1 to 6 of 100 items fewer where it was measured. Of classes with
    equally many votes, the one with the nearest neighbour wins. ``balanced`` divides each vote by
    the number of items that its class has in the gallery: frequent classes have items near to
    everything, and would outvote rare ones.

    >>> rows = np.array([[1, 0], [0, 1]], np.float32)
    >>> classify([[2.0, 0.1]], (rows, ["cat", "dog"]), k=1).names
    ['cat']
    """
    import fastretrieve as fr

    if encoder is None:
        asked = from_vectors(items, None, name="items")
        rows = from_vectors(*gallery_pair(gallery), name="gallery")
    else:
        encoder = as_encoder(encoder, device=device)
        asked = from_items(encoder, items, probabilities=True)
        rows = from_items(encoder, gallery)
    labelled = np.flatnonzero(rows.labels >= 0)
    if len(labelled) == 0:
        raise ValueError("no item of the gallery has a label, so there is nothing to vote with")
    hits = fr.topk(asked.vectors, rows.vectors[labelled], k=min(k, len(labelled)), metric=metric)
    found = labelled[np.asarray(hits.ids)]
    sizes = np.bincount(rows.labels[labelled], minlength=len(rows.classes))
    counts = sizes.clip(min=1) if balanced else np.ones(len(rows.classes))
    shares, best = _vote(rows.labels[found], counts, weights)
    return Classification(
        names=[rows.classes[label] for label in best],
        labels=best,
        shares=shares,
        classes=rows.classes,
        neighbours=found,
        head=asked.probabilities,
        head_classes=tuple(getattr(encoder, "classes", ())),
        skipped=list(asked.skipped),
    )


def _vote(
    labels: NDArray[np.int64], counts: NDArray[Any], weights: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    if weights not in ("uniform", "rank"):
        raise ValueError(f"weights is 'uniform' or 'rank', got {weights!r}")
    n, k = labels.shape
    vote = 1 / np.arange(1, k + 1) if weights == "rank" else np.ones(k)
    votes = vote / counts[labels]
    shares = np.zeros((n, len(counts)))
    np.add.at(shares, (np.arange(n)[:, None], labels), votes)
    shares /= votes.sum(1, keepdims=True)
    mine = np.take_along_axis(shares, labels, axis=1)  # of each neighbour's class, nearest first
    winner = (mine >= mine.max(axis=1, keepdims=True) - 1e-12).argmax(axis=1)
    return shares, labels[np.arange(n), winner]
