"""Fit the encoder of a gallery to the items that it holds by now, and make all vectors anew."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastretrieve.encoders.protocol import Encoder
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.intake import adding, first_fit, revisiting
from fastretrieve.gallery.intake.added import AddOptions
from fastretrieve.gallery.store import changing, clustering, clusters, fitting
from fastretrieve.gallery.store.storage import Storage


def refuse_unfittable(encoder: Encoder) -> None:
    """Raise where an encoder has nothing to fit."""
    if "fit" not in encoder.capabilities or getattr(encoder, "is_fitted", None) is None:
        raise GalleryError(
            f"encoder {encoder.name!r} has nothing to fit to the items of a gallery; train it, and "
            "index the items into another directory"
        )


def refit(storage: Storage, given: Any, *, progress: bool | None, device: str) -> None:
    """Do it in a gallery that nobody else sees yet: between two commits its vectors are of two
    encoders. Items whose files are gone or unreadable leave it. Clusters are made anew.
    """
    load = partial(fitting.kept_encoder, storage, given, device=device)
    with storage.database.snapshot() as connection:
        n_clusters = clusters.count(connection)
    vanished: list[int] = []
    found = revisiting.candidates(storage, vanished)
    options = AddOptions(progress=progress, retry=True, anew=True)
    result = adding.add(storage, load, found, options, wait=0)
    if not result.fitted_to:
        fewest, _ = getattr(load(), "fit_items", first_fit.FIT_ITEMS)
        raise GalleryError(
            f"fitting the encoder takes at least {fewest} items with readable files, and the "
            f"gallery has {len(result.unreadable) + result.updated + result.added}; add more first"
        )
    if vanished:
        changing.remove(storage, vanished, wait=0)
    with storage.writing() as writer:
        clustering.remake(writer, n_clusters)
