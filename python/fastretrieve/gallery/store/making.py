"""Make the directory of a new gallery."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import fastretrieve as fr
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.encoders.saved import files
from fastretrieve.gallery.store.manifest import Manifest
from fastretrieve.gallery.store.storage import Storage


def make(folder: Path, encoder: Encoder, *, metric: str, dtype: str, device: str) -> None:
    """Make the directory, with a copy of the encoder in it."""
    # A wrong metric, dtype or device is an error before anything is written.
    fr.Index(encoder.dim, metric=metric, dtype=dtype, device=device)  # type: ignore[arg-type]

    def manifest(saved: files.SavedEncoder) -> Manifest:
        return Manifest(
            encoder=saved.encoder,
            weights_sha256=saved.weights_sha256,
            dim=encoder.dim,
            modality=encoder.modality,
            metric=metric,
            dtype=dtype,
            made_by=version("fastretrieve"),
        )

    Storage.create(folder, encoder.save, manifest)
