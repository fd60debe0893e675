"""How well labels are found again."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup.opened import Opened


def evaluate_labels(
    opened: Opened, queries: Any, options: dict[str, Any], *, split: str | None = None
) -> Any:
    """Figures of retrieval by label."""
    from fastretrieve.data.open import open_split
    from fastretrieve.data.splits import HELD_OUT
    from fastretrieve.encoders.encoding import encode_dataset
    from fastretrieve.evaluation import evaluate

    folder, manifest = opened.storage.folder, opened.storage.manifest
    with opened.view() as view:
        ids = np.sort(view.index.ids)
        vectors = np.asarray(view.index.get(ids), np.float32)
        rows = view.connection.execute("SELECT label FROM item WHERE deleted = 0 ORDER BY id")
        labels = [row[0] for row in rows]
    if len(labels) != len(ids):
        raise GalleryError(f"{folder}: items and vectors do not fit; check the gallery")
    if not any(label is not None for label in labels):
        raise GalleryError(f"no item of {folder} has a label, so nothing can be evaluated")
    options = {"metric": manifest.metric, **options}
    if queries is None and split is not None:
        raise GalleryError(f"split={split!r} chooses among queries, and none were given")
    if queries is None:
        return evaluate(vectors, labels=labels, **options)
    dataset = open_split(queries, split=split, otherwise=HELD_OUT, modality=manifest.modality)
    found = encode_dataset(opened.queries.encoder, dataset)
    return evaluate(found.vectors, dataset.subset(found.rows), gallery=(vectors, labels), **options)
