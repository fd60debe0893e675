"""Retrieval figures on items held out of training.

With labels: held-out items search a sample of the training items. Images without labels: a
mildly changed view of each held-out image searches for its original among all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastretrieve.data import Dataset, Loaded, Loader, Skipped, longest_side
from fastretrieve.data.modalities import kind_of
from fastretrieve.encoders.base import move_batch, take_batch
from fastretrieve.encoders.blocks.steps import losses_of
from fastretrieve.encoders.blocks.views import Views
from fastretrieve.encoders.encoding import as_array
from fastretrieve.encoders.protocol import Batch, Trainable

HELD_OUT_SHARE, MOST_HELD_OUT = 0.1, 2000
FEWEST_ITEMS = 500  # fewer are all trained on: a tenth of them would say little
GALLERY_ITEMS = 5000
FIT_ITEMS = 4000  # that an encoder's after_training sees
_KS = (1, 10)
_BATCH = 256
_MOST_BYTES = 256 << 20  # of items kept in memory; more are read again each time
_PROBE = Views(crop=0.85, colour=0.2)


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

    def encoded(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Vectors and labels of all items that can be read."""
        vectors = [np.empty((0, self.encoder.dim), np.float32)]
        labels = [np.empty(0, np.int64)]
        for loaded in self:
            vectors.append(as_array(self.encoder.encode(loaded.batch)))
            labels.append(loaded.labels)
        return np.concatenate(vectors), np.concatenate(labels)


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
        return "precision@10" if self.has_labels else self.metric

    @property
    def metric(self) -> str | None:
        """The retrieval figure that people watch, or None where there is none."""
        if self.has_labels:
            return "recall@1"
        return "view recall@1" if self._finds_views() else None

    @torch.no_grad()
    def measure(self, *, device: torch.device) -> dict[str, float]:
        """Figures of the encoder as it is; ``validation <name>`` are its losses."""
        self.refit()
        if self.held_out is None:
            return {}
        weighing: Any = self.encoder  # where it has parts to weigh
        if self.has_labels and getattr(weighing, "weighs_parts", False):
            scores = weighing.share_scores(self.gallery.labelled(), self.held_out.labelled())
            weighing.adopt(scores)
        figures = self._losses(device)
        if self.has_labels:
            return figures | self._by_labels()
        return figures | (self._by_views() if self._finds_views() else {})

    def refit(self) -> None:
        """Let the encoder fit its parts without gradients (a reduction) to training items."""
        fit = getattr(self.encoder, "after_training", None)
        if fit is not None:
            fit(self.gallery.limited(FIT_ITEMS))

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

    def _by_labels(self) -> dict[str, float]:
        from fastretrieve.evaluation import evaluate

        assert self.held_out is not None
        queries, labels = self.held_out.encoded()
        rows, row_labels = self.gallery.encoded()
        asked, known = labels >= 0, row_labels >= 0
        found = evaluate(
            queries[asked],
            labels=labels[asked],
            gallery=(rows[known], row_labels[known]),
            k=_KS,
            depth=max(_KS),
        ).metrics
        kept = ("recall@1", "recall@10", "precision@10")
        return {name: float(found[name]) for name in kept}

    def _by_views(self) -> dict[str, float]:
        from fastretrieve import topk

        assert self.held_out is not None
        originals, _ = self.held_out.encoded()
        views = [
            as_array(self.encoder.encode(_PROBE(torch.as_tensor(batch))))
            for batch in self.held_out.limited(len(originals))
        ]
        ids = topk(np.concatenate(views), originals, k=1, metric="cosine").ids
        return {"view recall@1": float((ids[:, 0] == np.arange(len(originals))).mean())}
