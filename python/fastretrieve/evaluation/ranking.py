"""Rank the gallery for every query and measure where its class mates come.

``fastretrieve.Index`` does the search. Queries go in chunks, so that memory holds
the rankings of one chunk only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.metric import Metric
from fastretrieve._queries.results import without_self
from fastretrieve.encoders.encoding import track
from fastretrieve.evaluation.labelled import Labelled
from fastretrieve.evaluation.metrics import all_metrics

_CHUNK = 1 << 20  # ranked pairs at once; with the search each takes about 130 bytes


@dataclass(frozen=True)
class Ranking:
    """The metrics and the first neighbours of every query that can be scored."""

    rows: NDArray[np.int64]  # [n], positions in the queries
    values: dict[str, NDArray[np.float64]]  # metric -> [n]
    neighbours: NDArray[np.int64]  # [n, k], positions in the gallery
    metric: str
    depth: int


def rank_class_mates(
    queries: Labelled,
    gallery: Labelled,
    *,
    alone: bool,
    ks: Sequence[int],
    metric: Metric = "cosine",
    depth: int | None = None,
) -> Ranking:
    """Rank for every query whose class is in the gallery, under the same numbers in both.

    ``alone`` says that the gallery is the queries themselves: no item finds itself.
    """
    import fastretrieve as fr

    n_others = len(gallery) - alone
    depth = n_others if depth is None else min(max(depth, *ks, 1), n_others)
    if depth < 1:
        raise ValueError("there is nothing to search: give a gallery, or at least two items")
    n_relevant = _class_sizes(queries, gallery) - alone
    scored = np.flatnonzero(n_relevant > 0)
    if len(scored) == 0:
        raise ValueError(
            "no query has a label that another item shares, so nothing can be measured; labels are "
            "the class folders, the column 'label', or labels=..."
        )
    index = fr.Index(gallery.vectors.shape[1], metric=metric)
    index.add(gallery.vectors)
    parts, firsts = [], []
    n_chunks = min(-(-len(scored) * (depth + 1) // _CHUNK), len(scored))
    chunks = np.array_split(scored, n_chunks)
    for chunk in track(chunks, len(chunks), text="evaluating"):
        scores, ids = index.search(queries.vectors[chunk], k=depth + alone)
        if alone:
            _, ids = without_self(scores, ids, chunk)
        relevant = gallery.labels[ids] == queries.labels[chunk][:, None]
        parts.append(all_metrics(relevant, n_relevant[chunk], ks=ks))
        firsts.append(ids[:, : max(ks)])
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if depth < n_relevant.max():
        del values["map@r"]  # the ranking is shorter than R
    return Ranking(scored, values, np.concatenate(firsts), metric, depth)


def _class_sizes(queries: Labelled, gallery: Labelled) -> NDArray[np.int64]:
    """How many items of the gallery have the label of each query; 0 where it has no label."""
    known = gallery.labels[gallery.labels >= 0]
    counts = np.bincount(known, minlength=len(queries.classes) + 1)
    return np.where(queries.labels >= 0, counts[queries.labels], 0)
