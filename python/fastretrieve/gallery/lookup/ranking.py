"""One order of items for one query, or for several pictures, or for words and vectors together.

The order is the same however it is paged: its first items do not depend on how many are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.metric import is_distance
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup.matches import FoundIn
from fastretrieve.gallery.lookup.recommending import diverse

Fusion: TypeAlias = Literal["best", "ranks"]
FUSIONS = ("best", "ranks")
LISTED = 200  # nearest items of each picture whose ranks are added up
FIRST_RANK = 60  # the usual constant of reciprocal rank fusion: the first few ranks count alike
# Words and vectors are two lists, each of which often has the answer first: the first ranks count
# much more than later ones, and those of words more than those of vectors. Measured: docs/words.md.
FIRST_RANK_OF_TWO, WORDS_SHARE = 1, 1.5
BLOCK = 200  # nearest items that are reordered for variety, then as many more


class Place(NamedTuple):
    """An item in the order."""

    item_id: int
    score: float  # with the picture that found it
    found_by: int  # 0: the query; i: the i-th of the other pictures
    value: float  # by which the order goes, the larger the better
    found_in: FoundIn = "vectors"


class Order(NamedTuple):
    """How items are ordered."""

    fusion: Fusion = "best"
    diversity: float = 0.0
    words: Sequence[int] | None = None  # the items in which words are written, best first


def check_diversity(diversity: float) -> None:
    if not 0 <= diversity <= 1:
        raise GalleryError(f"diversity is between 0 (none) and 1, got {diversity}")


def ranked(
    index: Any,
    vectors: NDArray[Any],
    *,
    k: int,
    offset: int,
    where: Any,
    leave_out: Collection[int],
    order: Order,
) -> list[Place]:
    """The ``k`` best items after the first ``offset``, for the vectors [n, dim] of the pictures
    that ask; the first is that of the query.
    """
    asking = _Asking(index, vectors, where, leave_out)
    best = asking.by_ranks if order.fusion == "ranks" and len(vectors) > 1 else asking.by_best
    if order.words is not None:
        best = partial(asking.with_words, best, order.words)
    if order.diversity == 0:
        return best(offset + k)[offset:]
    first, last = offset // BLOCK * BLOCK, -(-(offset + k) // BLOCK) * BLOCK
    places = best(last)[first:]
    varied: list[Place] = []
    for start in range(0, len(places), BLOCK):
        varied += _varied(index, places[start : start + BLOCK], order.diversity)
    return varied[offset - first : offset - first + k]


def _varied(index: Any, places: list[Place], diversity: float) -> list[Place]:
    """The places in an order in which an item is unlike those before it."""
    picked = diverse(
        np.array([place.value for place in places]),
        np.asarray(index.get([place.item_id for place in places])),
        k=len(places),
        diversity=diversity,
        is_similarity=True,
    )
    return [places[i] for i in picked]


def _reciprocal_ranks(
    lists: Sequence[Sequence[int]], *, first: int = FIRST_RANK, shares: Sequence[float] = ()
) -> dict[int, float]:
    """The sum of the reciprocal ranks of each item in lists of items, best first, each list with
    its share.
    """
    sums: dict[int, float] = {}
    for listed, share in zip(lists, shares or [1.0] * len(lists), strict=True):
        for rank, item_id in enumerate(listed, first + 1):
            sums[item_id] = sums.get(item_id, 0.0) + share / rank
    return sums


def _behind(places: Sequence[Place], *, first: int = FIRST_RANK) -> list[Place]:
    """Places in their order, behind all that are in a list."""
    last = first + LISTED
    return [place._replace(value=1 / rank) for rank, place in enumerate(places, last + 1)]


class _Asking(NamedTuple):
    """The pictures that ask, and what may answer."""

    index: Any
    vectors: NDArray[Any]
    where: Any
    leave_out: Collection[int]

    def by_best(self, n: int) -> list[Place]:
        """The ``n`` items with the best scores with any of the pictures.

        They are among the ``n`` best of each picture, so the answer is exact.
        """
        sign = -1.0 if is_distance(self.index.metric) else 1.0
        rows = self._nearest(self.vectors, n)
        if len(rows) == 1:  # in the index's own order already
            return [Place(item_id, score, 0, sign * score) for item_id, score in rows[0]]
        best: dict[int, Place] = {}
        for picture, row in enumerate(rows):
            for item_id, score in row:
                value = sign * score
                if item_id not in best or value > best[item_id].value:
                    best[item_id] = Place(item_id, score, picture, value)
        return sorted(best.values(), key=lambda place: (-place.value, place.item_id))[:n]

    def by_ranks(self, n: int) -> list[Place]:
        """The ``n`` items with the largest sums of reciprocal ranks; after those that any picture
        has among its nearest, the query's own next ones.
        """
        rows = self._nearest(self.vectors, LISTED)
        found: dict[int, tuple[int, int, float]] = {}  # rank, picture, score
        for picture, row in enumerate(rows):
            for rank, (item_id, score) in enumerate(row, 1):
                found[item_id] = min(
                    found.get(item_id, (rank, picture, score)), (rank, picture, score)
                )
        sums = _reciprocal_ranks([[item_id for item_id, _ in row] for row in rows])
        fused = [Place(i, found[i][2], found[i][1], value) for i, value in sums.items()]
        fused.sort(key=lambda place: (-place.value, place.item_id))
        if len(fused) < n:
            (row,) = self._nearest(self.vectors[:1], n)
            fused += _behind([Place(*pair, 0, 0.0) for pair in row if pair[0] not in sums])
        return fused[:n]

    def with_words(
        self, best: Callable[[int], list[Place]], words: Sequence[int], n: int
    ) -> list[Place]:
        """The ``n`` items with the largest sums of reciprocal ranks in two lists: the nearest by
        their vectors, and those in which words are written. Then the next nearest ones.

        Each has the score of its vector.
        """
        near = {place.item_id: place for place in best(LISTED)}
        said = [item_id for item_id in words if item_id not in self.leave_out][:LISTED]
        far = np.array([item_id for item_id in said if item_id not in near], np.int64)
        places = dict(near)
        if len(far):
            others = self._replace(where=far).by_best(len(far))
            places |= {place.item_id: place._replace(found_in="words") for place in others}
        for item_id in {*near} & {*said}:
            places[item_id] = places[item_id]._replace(found_in="both")
        sums = _reciprocal_ranks(
            [list(near), said], first=FIRST_RANK_OF_TWO, shares=(1.0, WORDS_SHARE)
        )
        fused = [places[item_id]._replace(value=value) for item_id, value in sums.items()]
        fused.sort(key=lambda place: (-place.value, place.item_id))
        if len(fused) < n:
            rest = [place for place in best(n + len(far)) if place.item_id not in sums]
            fused += _behind(rest, first=FIRST_RANK_OF_TWO)
        return fused[:n]

    def _nearest(self, vectors: NDArray[Any], n: int) -> list[list[tuple[int, float]]]:
        """Ids and scores of the ``n`` nearest items to each picture, in one search."""
        wanted = min(n + len(self.leave_out), max(len(self.index), 1))
        hits = self.index.search(vectors, k=wanted, where=self.where)
        return [
            [
                (item_id, score)
                for item_id, score in zip(ids, scores, strict=True)
                if item_id >= 0 and item_id not in self.leave_out
            ][:n]
            for ids, scores in zip(hits.ids.tolist(), hits.scores.tolist(), strict=True)
        ]
