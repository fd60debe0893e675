"""The encoder of a gallery, and whether another encoder, metric or option fits what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastretrieve.encoders import as_encoder, create_encoder, load_encoder
from fastretrieve.encoders.encoding import refuse_untrained
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.encoders.saved import files
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store.manifest import Manifest
from fastretrieve.gallery.store.storage import ENCODER, Storage


def chosen_encoder(chosen: Any, options: dict[str, Any], *, device: str) -> Encoder:
    """The encoder that a new gallery will keep; an untrained one is an error."""
    is_name = isinstance(chosen, str) and not files.is_saved_encoder(chosen)
    if options and is_name:
        made = create_encoder(chosen, device=device, **options)
    else:
        made = as_encoder(chosen, device=device)
        refuse_other_options(made, options)
    refuse_untrained(made)
    return made


def kept_encoder(storage: Storage, given: Any, *, device: str) -> Encoder:
    """The encoder that a gallery keeps, or the given one in its place."""
    folder, manifest = storage.folder, storage.manifest
    if given is not None and not isinstance(given, str):
        return fitting(as_encoder(given, device=device), folder, manifest)
    if (folder / ENCODER).is_symlink():
        raise GalleryError(
            f"{folder / ENCODER} is a link, and no part of a gallery may lead elsewhere; put "
            " the encoder's directory itself there"
        )
    saved = files.read_encoder(folder / ENCODER)
    if saved.weights_sha256 != manifest.weights_sha256:
        raise GalleryError(
            f"{saved.directory} is not the encoder that made the vectors of this gallery; "
            "restore it"
        )
    return fitting(load_encoder(folder / ENCODER, device=device, encoder=given), folder, manifest)


def fitting(encoder: Encoder, folder: Path, manifest: Manifest) -> Encoder:
    """The encoder, if it can encode queries for this gallery."""
    if (encoder.dim, encoder.modality) != (manifest.dim, manifest.modality):
        raise GalleryError(
            f"encoder {encoder.name!r} makes {encoder.dim} numbers of a {encoder.modality}, but "
            f"the gallery {folder} holds {manifest.dim} of a {manifest.modality}; open it "
            f"with {manifest.encoder!r}"
        )
    return encoder


def refuse_other_options(encoder: Encoder, options: dict[str, Any]) -> None:
    """An encoder that is made already may only be asked for what it is."""
    for name, wanted in options.items():
        has = getattr(encoder, name, None)
        if has not in (wanted, (wanted, wanted)):  # 64 pixels a side, or (64, 64)
            raise GalleryError(
                f"encoder {encoder.name!r} is made already, with {name}={has} instead of {wanted}; "
                f"leave {name} out, or take another encoder"
            )


def refuse_another(
    folder: Path, manifest: Manifest, *, encoder: str | None, metric: str | None
) -> None:
    """Raise where a gallery was made with another encoder or metric; None says nothing."""
    name = encoder
    if encoder is not None and files.is_saved_encoder(encoder):
        saved = files.read_encoder(encoder)
        name = manifest.encoder if saved.weights_sha256 == manifest.weights_sha256 else None
    if encoder is not None and name != manifest.encoder:
        raise GalleryError(
            f"{folder} was made with another encoder ({manifest.encoder}) than {encoder}; "
            "index into another directory"
        )
    if metric not in (None, manifest.metric):
        raise GalleryError(
            f"{folder} was made with the metric {manifest.metric}, not {metric}; index into "
            "another directory"
        )
