"""Fit the encoder of a gallery to a random sample of its items: of those that are added first, or
of all that it holds by now.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastretrieve.data import Loader, longest_side
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import Batch, Encoder
from fastretrieve.gallery.intake.added import AddOptions
from fastretrieve.gallery.intake.reading import Pending, Queue
from fastretrieve.gallery.progress import Report
from fastretrieve.gallery.store.storage import Storage

FIT_ITEMS = (64, 1000)  # the fewest and the most, where an encoder does not say


def fit(
    storage: Storage, encoder: Encoder, pending: list[Pending], options: AddOptions, report: Report
) -> int:
    """Fit a copy of the encoder and keep it in the gallery; returns to how many items, 0 if there
    are too few. Random ones, since folders come class by class. New downloads are left out: each
    would be fetched twice.
    """
    fewest, most = getattr(encoder, "fit_items", FIT_ITEMS)
    here = [one for one in pending if one.candidate.url is None or one.known is not None]
    chosen = np.random.default_rng(0).permutation(len(here))[:most]
    sample = [here[i] for i in chosen]
    queue = Queue(storage.folder, encoder.modality, sample, options.limits, anew=True)
    if len(chosen) < fewest:
        return 0
    fitted: Any = copy.deepcopy(encoder)
    n = 0
    loader = Loader(
        queue,
        encoder.preprocess,
        batch_size=options.batch_size,
        workers=options.workers,
        size=longest_side(encoder),
    )

    def batches() -> Iterator[Batch]:
        nonlocal n
        for loaded in loader:
            n += len(loaded.rows)
            report("fitting", n, len(chosen))
            yield loaded.batch

    with loader:
        try:
            fitted.fit(batches())
        except EncoderError:  # hardly any could be read
            return 0
    storage.replace_encoder(fitted)
    return n
