"""Groups of near duplicates: the connected components of the pairs within a threshold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import fastretrieve as fr
from fastretrieve._common.progress import Progress


def groups(index: fr.Index, threshold: float, progress: Progress | None = None) -> list[list[int]]:
    """The connected components of the pairs within the threshold, the largest first."""
    ids = np.sort(index.ids)
    parent = np.arange(len(ids))  # positions; a root is its own parent, and the smallest
    for part in index.iter_pairs(threshold, progress=progress):
        _join(parent, np.searchsorted(ids, part.ids))
    roots = _roots(parent)
    order = np.argsort(roots, kind="stable")
    starts = np.flatnonzero(np.diff(roots[order], prepend=-1))
    found = [part.tolist() for part in np.split(ids[order], starts[1:]) if len(part) > 1]
    return sorted(found, key=lambda group: (-len(group), group[0]))


def _join(parent: NDArray[np.int64], pairs: NDArray[np.int64]) -> None:
    """Link the roots of pairs. Ten thousand equal rows make fifty million pairs but few links, so
    all pairs are looked up at once and only those that link something are walked.
    """
    while True:
        parent[:] = _roots(parent)
        linked = np.sort(parent[pairs], axis=1)
        linked = np.unique(linked[linked[:, 0] != linked[:, 1]], axis=0)
        if not len(linked):
            return
        # Of several links of one root the smallest stays; the others come in the next round.
        np.minimum.at(parent, linked[:, 1], linked[:, 0])


def _roots(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """The root of every position."""
    while True:
        above = parent[parent]
        if (above == parent).all():
            return parent
        parent = above
