"""Retrieval figures on items held out of training.

With labels: held-out items search a sample of the training items. Images without labels: a
changed view of each held-out image searches for its original among them and the sample. Mild views
give "view recall@1", which people understand, and which hardly tells one encoder from another once
it is near 1. Strong views give "view mrr", which picks the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fastretrieve.data import Dataset, Loaded, Loader, Skipped, longest_side
from fastretrieve.data.modalities import kind_of
from fastretrieve.encoders.base import move_batch, take_batch
from fastretrieve.encoders.blocks.shares import see
from fastretrieve.encoders.blocks.steps import losses_of
from fastretrieve.encoders.blocks.views import Views
from fastretrieve.encoders.encoding import as_array
from fastretrieve.encoders.protocol import Batch, Trainable
from fastretrieve.evaluation.directions import n_directions

if TYPE_CHECKING:
    from fastretrieve.evaluation import Evaluation

HELD_OUT_SHARE, MOST_HELD_OUT = 0.1, 2000
FEWEST_ITEMS = 500  # fewer are all trained on: a tenth of them would say little
GALLERY_ITEMS = 5000
FIT_ITEMS = 4000  # that an encoder's after_training sees
Encoded: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]  # vectors and labels
_KS = (1, 10)
_BATCH = 256
_MOST_BYTES = 256 << 20  # of items kept in memory; more are read again each time
_PROBE = Views(crop=0.85, colour=0.2)
_HARD_PROBE = Views(crop=0.4, shift=0.1, colour=0.4, hue=0.2)
EASY = 0.8  # a view recall@1 from here on does not rank encoders


def split_off(dataset: Dataset, *, seed: int) -> tuple[Dataset, Dataset | None]:
    """(items to train on, items held out), by class; few items are all trained on."""
    if len(dataset) < FEWEST_ITEMS:
        return dataset, None
    return dataset.split(min(HELD_OUT_SHARE, MOST_HELD_OUT / len(dataset)), seed=seed)


def sampled(dataset: Dataset, n: int, *, seed: int) -> Dataset:
    """``n`` random items, or all."""
    if len(dataset) <= n:
        return dataset
    picked = np.random.default_rng(seed).choice(len(dataset), n, replace=False)
    return dataset.subset(np.sort(picked))


class Items:
    """Items of a data set as batches, again and again; kept in memory while they are few."""

    def __init__(self, encoder: Trainable, dataset: Dataset, workers: int | None) -> None:
        self.encoder, self.dataset, self.workers = encoder, dataset, workers
        self.skipped: list[Skipped] = []
        self._kept: list[Loaded] | None = None

    def __iter__(self) -> Iterator[Loaded]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Loaded] | None = []
        n_bytes = 0
        with Loader(
            self.dataset,
            self.encoder.preprocess,
            batch_size=_BATCH,
            workers=self.workers,
            size=longest_side(self.encoder),
        ) as loader:
            for loaded in loader:
                n_bytes += _n_bytes(loaded.batch)
                kept = None if kept is None or n_bytes > _MOST_BYTES else [*kept, loaded]
                yield loaded
            self.skipped = loader.skipped
        self._kept = kept

    @property
    def is_labelled(self) -> bool:
        return self.dataset.is_labelled

    def first(self) -> Batch | None:
        """One batch, or None where no item can be read."""
        return next((loaded.batch for loaded in self), None)

    def limited(self, n: int) -> Iterator[Batch]:
        """The batches up to ``n`` items."""
        for loaded in self:
            if n <= 0:
                return
            yield take_batch(loaded.batch, slice(0, n))
            n -= len(loaded.labels)

    def labelled(self) -> Iterator[tuple[Batch, torch.Tensor]]:
        """The batches with their labels."""
        return ((loaded.batch, torch.from_numpy(loaded.labels)) for loaded in self)

    def encoded(self) -> Encoded:
        """Vectors and labels of all items that can be read."""
        vectors = [np.empty((0, self.encoder.dim), np.float32)]
        labels = [np.empty(0, np.int64)]
        for loaded in self:
            vectors.append(as_array(self.encoder.encode(loaded.batch)))
            labels.append(loaded.labels)
        return np.concatenate(vectors), np.concatenate(labels)


def asked_and_shown(
    labels: NDArray[np.int64], row_labels: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which held-out items search, and which of them are searched beside the training items.

    Where a class is held out whole, its first item searches for the others.

    >>> masks = asked_and_shown(np.array([3, 5, 5, 7]), np.arange(4))
    >>> [mask.astype(int).tolist() for mask in masks]
    [[1, 1, 0, 0], [0, 0, 1, 1]]
    """
    is_new = (labels >= 0) & ~np.isin(labels, row_labels)
    is_first = np.zeros(len(labels), bool)
    is_first[np.unique(labels, return_index=True)[1]] = True
    counts = np.bincount(labels[labels >= 0], minlength=int(labels.max(initial=0)) + 1)
    has_mates = counts[labels.clip(0)] > 1
    shown = is_new & ~(is_first & has_mates)
    return (labels >= 0) & ~shown, shown


def _n_bytes(batch: Batch) -> int:
    parts = batch if isinstance(batch, (tuple, list)) else [batch]
    return sum(int(torch.as_tensor(part).nbytes) for part in parts)


class Validator:
    """Measures an encoder after each epoch."""

    def __init__(self, encoder: Trainable, *, held_out: Items | None, gallery: Items) -> None:
        self.encoder, self.held_out, self.gallery = encoder, held_out, gallery
        self.has_labels = (
            held_out is not None and held_out.is_labelled and gallery.dataset.is_labelled
        )

    @property
    def judge(self) -> str | None:
        """The retrieval figure that tells epochs apart, or None where there is none.

        Not recall@1: it is one bit a query, and picks the luckiest epoch rather than the best.
        """
        if self.has_labels:
            return str(getattr(self.encoder, "judge", "precision@10"))
        return "view mrr" if self._finds_views() else None

    @property
    def n_held_out(self) -> int:
        return 0 if self.held_out is None else len(self.held_out.dataset)

    @property
    def metric(self) -> str | None:
        """The retrieval figure that people watch, or None where there is none."""
        if self.has_labels:
            return "recall@1"
        return "view recall@1" if self._finds_views() else None

    @torch.no_grad()
    def measure(self, *, device: torch.device) -> dict[str, float]:
        """Figures of the encoder as it is; ``validation <name>`` are its losses."""
        if self.held_out is None:
            self.refit()
            return {}
        if hasattr(self.encoder, "measure"):
            self.refit()
            own: dict[str, float] = self.encoder.measure(self.held_out.labelled())
            return self._losses(device) | own
        if self.has_labels:
            asked, shown = self._weighed() if self._weighs_parts else self._encoded()
            return self._losses(device) | _label_figures(asked, shown)
        self.refit()
        return self._losses(device) | (self._by_views() if self._finds_views() else {})

    def refit(self) -> None:
        """Let the encoder fit its parts without gradients (a reduction) to training items."""
        fit = getattr(self.encoder, "after_training", None)
        if fit is not None:
            fit(self.gallery.limited(FIT_ITEMS))

    @property
    def _weighs_parts(self) -> bool:
        return bool(getattr(self.encoder, "weighs_parts", False))

    def _weighed(self) -> tuple[Encoded, Encoded]:
        """Held-out items and gallery by the parts that held-out items choose, in one pass."""
        assert self.held_out is not None
        encoder: Any = self.encoder
        shown, asked = (see(encoder, items.labelled()) for items in (self.gallery, self.held_out))
        encoder.adopt(encoder.share_scores(shown, asked))
        if hasattr(encoder, "fit_parts"):
            encoder.fit_parts(shown.of(slice(0, FIT_ITEMS)).parts)
        vectors = [as_array(encoder.join(seen.parts)) for seen in (asked, shown)]
        return (vectors[0], asked.labels.numpy()), (vectors[1], shown.labels.numpy())

    def _encoded(self) -> tuple[Encoded, Encoded]:
        assert self.held_out is not None
        self.refit()
        return self.held_out.encoded(), self.gallery.encoded()

    def _finds_views(self) -> bool:
        return self.held_out is not None and kind_of(self.encoder.modality).is_picture

    def _losses(self, device: torch.device) -> dict[str, float]:
        assert self.held_out is not None
        sums: dict[str, float] = {}
        total = 0
        self.encoder.eval()
        for loaded in self.held_out:
            n = len(loaded.labels)
            labels = torch.from_numpy(loaded.labels).to(device) if self.has_labels else None
            for name, value in losses_of(
                self.encoder, move_batch(loaded.batch, device), labels
            ).items():
                sums[name] = sums.get(name, 0.0) + n * float(value)
            total += n
        return {f"validation {name}": value / max(total, 1) for name, value in sums.items()}

    def _by_views(self) -> dict[str, float]:
        assert self.held_out is not None
        originals, _ = self.held_out.encoded()
        others, _ = self.gallery.encoded()
        mild = _ranks(self._views(_PROBE, len(originals)), originals)
        strong = _ranks(
            self._views(_HARD_PROBE, len(originals)), np.concatenate([originals, others])
        )
        return {
            "view recall@1": float((mild == 1).mean()),
            "view mrr": float((1 / strong).mean()),
            "directions": float(n_directions(others)),
        }

    def _views(self, views: Views, n: int) -> NDArray[np.float32]:
        """Vectors of the first ``n`` held-out images, changed."""
        assert self.held_out is not None
        return np.concatenate(
            [
                as_array(self.encoder.encode(views(torch.as_tensor(batch))))
                for batch in self.held_out.limited(n)
            ]
        )


def _label_figures(asking: Encoded, gallery: Encoded) -> dict[str, float]:
    """How well held-out items find items of their class in the gallery."""
    from fastretrieve.evaluation import evaluate

    (queries, labels), (rows, row_labels) = asking, gallery
    asked, shown = asked_and_shown(labels, row_labels)
    found = evaluate(
        queries[asked],
        labels=labels[asked],
        gallery=(
            np.concatenate([rows[row_labels >= 0], queries[shown]]),
            np.concatenate([row_labels[row_labels >= 0], labels[shown]]),
        ),
        k=_KS,
        depth=max(_KS),
    )
    kept = ("recall@1", "recall@10", "precision@10", "ndcg@10")
    figures = {name: float(found.metrics[name]) for name in kept} | _worst_class(found)
    return figures | {"directions": float(n_directions(rows))}


def _worst_class(found: Evaluation) -> dict[str, float]:
    """The recall@1 of the class that is found worst, where classes have queries enough."""
    worst = found.worst_class("recall@1")
    return {} if worst is None else {"worst class recall@1": worst[1]}


def _ranks(queries: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """The rank, from 1 on, of row i for query i, by cosine; of equals the query's own is last."""
    from fastretrieve import normalize

    asked, shown = normalize(queries), normalize(rows)
    ranks = [
        (part @ shown.T >= (part * own).sum(1, keepdims=True) - 1e-6).sum(1)
        for part, own in zip(
            np.array_split(asked, -(-len(asked) // _BATCH)),
            np.array_split(shown[: len(asked)], -(-len(asked) // _BATCH)),
            strict=True,
        )
    ]
    return np.concatenate(ranks).clip(1)
