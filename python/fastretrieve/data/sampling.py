"""In which order the items of a data set are visited. Equal seeds give equal orders."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray


def epoch_order(n_items: int, *, seed: int = 0, epoch: int = 0) -> NDArray[np.int64]:
    """A permutation of the items, another one each epoch."""
    return np.random.default_rng((seed, epoch)).permutation(n_items).astype(np.int64)


def balanced_order(
    labels: NDArray[np.int64], *, n: int | None = None, seed: int = 0, epoch: int = 0
) -> NDArray[np.int64]:
    """``n`` item numbers in which every class appears equally often, up to one.

    Each class is walked in a random order again and again, so no item repeats before every other
    item of its class has come. Unlabelled items (-1) are left out.

    >>> labels = np.array([0] * 98 + [1] * 2)
    >>> np.bincount(labels[balanced_order(labels, n=100)]).tolist()
    [50, 50]
    """
    rng = np.random.default_rng((seed, epoch))
    members = _members(labels)
    n_wanted = int((labels >= 0).sum()) if n is None else n
    if not members:
        raise ValueError("balanced sampling needs labels, but no item has one")
    share, extra = divmod(n_wanted, len(members))
    lucky = set(rng.permutation(len(members))[:extra].tolist())
    picked = [
        list(islice(_endless(rows, rng), share + (i in lucky))) for i, rows in enumerate(members)
    ]
    return rng.permutation(np.array(list(chain.from_iterable(picked)), np.int64))


def balanced_batches(
    labels: NDArray[np.int64], *, batch_size: int, per_class: int, seed: int = 0, epoch: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Batches of ``per_class`` items from each of ``batch_size // per_class`` classes.

    This is what a metric loss needs: every item meets others of its own class. No batch holds an
    item twice: a class of fewer items gives all it has, and more classes fill the batch.

    >>> labels = np.repeat(np.arange(4), 5)
    >>> batch = next(balanced_batches(labels, batch_size=6, per_class=3))
    >>> sorted(np.unique(labels[batch], return_counts=True)[1].tolist())
    [3, 3]
    """
    members = _members(labels)
    n_classes = batch_size // per_class
    if n_classes < 1 or not members:
        raise ValueError(
            f"a batch of {batch_size} with {per_class} items a class, from {len(members)} labelled "
            "classes, is empty; make the batch larger or give labels"
        )
    rng = np.random.default_rng((seed, epoch))
    walks = [_Walk(rows, rng) for rows in members]
    for _ in range(max(int((labels >= 0).sum()) // batch_size, 1)):
        batch: list[int] = []
        for c in rng.permutation(len(members)):
            if len(batch) + min(per_class, len(members[c])) <= n_classes * per_class:
                batch += walks[c].take(per_class)
        yield np.array(batch, np.int64)


class _Walk:
    """Random rounds through ``rows``; an item is passed over where it was just taken."""

    def __init__(self, rows: NDArray[np.int64], rng: np.random.Generator) -> None:
        self._rows, self._rng, self._left = rows, rng, list[int]()

    def take(self, n: int) -> list[int]:
        """The next ``n`` items, all different; all items where there are fewer."""
        taken = [self._left.pop() for _ in range(min(n, len(self._left)))]
        missing = min(n, len(self._rows)) - len(taken)
        if missing:
            fresh = [i for i in self._rng.permutation(self._rows).tolist() if i not in taken]
            self._left = fresh[missing:] + taken  # these come last in the new round
            self._left.reverse()
            taken = taken + fresh[:missing]
        return taken


def _members(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    starts = np.unique(labels[order], return_index=True)[1]
    return np.split(order, starts[1:]) if len(order) else []


def _endless(rows: NDArray[np.int64], rng: np.random.Generator) -> Iterator[int]:
    """Random rounds through ``rows``, for ever."""
    while True:
        yield from rng.permutation(rows).tolist()
