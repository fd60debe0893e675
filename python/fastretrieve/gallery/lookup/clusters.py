"""The clusters of an open gallery: what they hold, and the one that a search stays within.

``store/clusters.py`` keeps them; what is worked out from them here is remembered until the next
commit.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastretrieve as fr
from fastretrieve._common.arguments import shown
from fastretrieve._common.locks import ForkSafeLock
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup.cluster_names import names
from fastretrieve.gallery.lookup.cluster_results import Cluster
from fastretrieve.gallery.lookup.conditions import rows_of
from fastretrieve.gallery.store import clusters as kept
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store import parts
from fastretrieve.gallery.store.vectors import View

NEAREST = "cluster"  # the word for ``within``
FIRST = 8  # items nearest to a centre among which its nearest member is looked for first
KEPT_MASKS = 32

Mask = NDArray[np.bool_]


class _Known(NamedTuple):
    """The clusters of one commit that have members."""

    generation: int
    sizes: dict[int, int]
    centres: fr.Index  # ids are numbers


class Clusters:
    """Answers questions about the clusters of one gallery."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = ForkSafeLock()
        self._known: _Known | None = None
        self._listed: tuple[int, list[Cluster]] = (-1, [])
        self._masks: OrderedDict[tuple[int, int], Mask] = OrderedDict()

    def are_there(self, view: View) -> bool:
        """Whether clusters are kept, and some have members."""
        with self._lock:
            if self._known is not None and self._known.generation == view.generation:
                return True
        return kept.have_members(view.connection)

    def listed(self, view: View) -> list[Cluster]:
        """All clusters that have members, in order of their numbers."""
        with self._lock:
            if self._listed[0] != view.generation:
                self._listed = (view.generation, self._described(view))
            return self._listed[1]

    def nearest(self, vector: NDArray[Any], view: View, *, k: int) -> list[Cluster]:
        """The ``k`` clusters with the centres nearest to a query."""
        by_number = {each.number: each for each in self.listed(view)}
        hits = self._centres(view).centres.search(vector, k=min(k, len(by_number)))
        return [
            replace(by_number[int(number)], score=float(score))
            for number, score in zip(hits.ids, hits.scores, strict=True)
        ]

    def mask(self, number: int, view: View) -> Mask:
        """Which rows of ``view.index.ids`` are members of a cluster."""
        key = (number, view.generation)
        with self._lock:
            if key in self._masks:
                self._masks.move_to_end(key)
                return self._masks[key]
        mask = rows_of(kept.members(view.connection, number), view.index.ids)
        with self._lock:
            self._masks[key] = mask
            while len(self._masks) > KEPT_MASKS:
                self._masks.popitem(last=False)
        return mask

    def chosen(self, within: Any, vector: NDArray[Any] | None, view: View) -> int:
        """The number of the cluster that ``within`` names, or of the one nearest to a query."""
        number = within.number if isinstance(within, Cluster) else within
        if isinstance(number, (int, np.integer)) and not isinstance(number, bool):
            if (known := self._centres(view)) and int(number) not in known.sizes:
                raise GalleryError(
                    f"{self._folder} has no cluster {number}; it has {_range(known.sizes)}"
                )
            return int(number)
        if vector is None or not (isinstance(number, str) and number == NEAREST):
            word = "" if vector is None else f"{NEAREST!r}, the nearest one, or "
            raise GalleryError(
                f"within is {word}the number of a cluster, or one of gallery.clusters(); got "
                f"{shown(within)}"
            )
        return int(self._centres(view).centres.search(vector, k=1).ids[0])

    def _centres(self, view: View) -> _Known:
        with self._lock:
            known = self._known
            if known is not None and known.generation == view.generation:
                return known
            if not kept.are_kept(view.connection):
                raise GalleryError(
                    f"{self._folder} has no clusters yet; make them: gallery.clusters(20), or "
                    f"fastretrieve clusters {self._folder} -n 20"
                )
            sizes = kept.sizes(view.connection)
            if not sizes:
                raise GalleryError(f"{self._folder} holds no items, so all clusters are empty")
            every = kept.centres(view.connection, view.index)
            numbers = every.ids[np.isin(every.ids, list(sizes))]
            # A writer of a version that knows no clusters, which had the gallery open already.
            if len(numbers) < len(sizes) or sum(sizes.values()) != len(view.index):
                raise GalleryError(
                    f"{self._folder} has items in no cluster, or in one that is not there; make "
                    "the clusters anew: gallery.clusters(20)"
                )
            points = every.get(numbers)
            self._known = _Known(view.generation, sizes, kept.index_of(numbers, points, view.index))
            return self._known

    def _described(self, view: View) -> list[Cluster]:
        _, sizes, centres = self._centres(view)
        named = names(view.connection, sizes)
        numbers = [int(each) for each in np.sort(centres.ids)]
        points = centres.get(numbers)
        items = db.fetch_all(view.connection, self._examples(view, numbers, points))
        return [
            Cluster(
                number,
                named[number].name,
                sizes[number],
                named[number].share,
                item,
                path=parts.item_path(self._folder, item.path),
                centre=point,
            )
            for number, item, point in zip(numbers, items, points, strict=True)
        ]

    def _examples(self, view: View, numbers: list[int], points: NDArray[Any]) -> list[int]:
        """The member nearest to each centre. It nearly always is among the few items nearest to the
        centre; else the search is within the cluster.
        """
        hits = view.index.search(points, k=min(FIRST, len(view.index))).ids
        owner = kept.owners(view.connection, np.unique(hits))
        found = []
        for number, point, near in zip(numbers, points, hits.tolist(), strict=True):
            own = next((item for item in near if owner.get(item) == number), None)
            if own is None:
                members = kept.members(view.connection, number)
                own = int(view.index.search(point, k=1, where=members).ids[0])
            found.append(own)
        return found


class Within:
    """The cluster that one search stays within, and which one that was."""

    def __init__(self, asked: Any, clusters: Clusters) -> None:
        self._asked = asked
        self._clusters = clusters
        self.cluster: int | None = None  # once the search has chosen

    def narrowed(self, mask: Mask | None, vector: NDArray[Any] | None, view: View) -> Mask | None:
        """The rows that a condition allows, of the cluster alone."""
        if self._asked is None:
            return mask
        self.cluster = self._clusters.chosen(self._asked, vector, view)
        own = self._clusters.mask(self.cluster, view)
        return own if mask is None else own & mask


def _range(sizes: dict[int, int]) -> str:
    return f"{len(sizes)}, numbered {min(sizes)} to {max(sizes)}"
