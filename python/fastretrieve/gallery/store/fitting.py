"""The encoder of a gallery, and whether another encoder, metric or option fits what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastretrieve._common.needs import is_installed, remedy
from fastretrieve.encoders import as_encoder, create_encoder, load_encoder
from fastretrieve.encoders.defaults import FITTED_PRETRAINED
from fastretrieve.encoders.encoding import refuse_untrained
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.encoders.saved import files
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store.manifest import Manifest
from fastretrieve.gallery.store.storage import Storage


def chosen_encoder(chosen: Any, options: dict[str, Any], *, device: str) -> Encoder:
    """The encoder that a new gallery will keep; an untrained one is an error."""
    if chosen is None:
        chosen, defaults = default_encoder()
        options = {**defaults, **options}
    is_name = isinstance(chosen, str) and not files.is_saved_encoder(chosen)
    if options and is_name:
        made = create_encoder(chosen, device=device, **options)
    else:
        made = as_encoder(chosen, device=device)
        refuse_other_options(made, options)
    refuse_untrained(made)
    return made


def default_encoder() -> tuple[str, dict[str, Any]]:
    """What finds most without training, of what is installed: a name and options."""
    if not (is_installed("pretrained") and is_installed("networks")):
        return "pixels", {}
    return "pretrained", FITTED_PRETRAINED


def advice_on_default() -> str:
    """How to get a better encoder than the default is here; "" where there is no better one."""
    if default_encoder()[0] != "pixels":
        return ""
    return (
        "indexing raw pixels, which find little but copies; for pictures of things: "
        f"{remedy('pretrained')}"
    )


def kept_encoder(storage: Storage, given: Any, *, device: str) -> Encoder:
    """The encoder that a gallery keeps, or the given one in its place."""
    folder, manifest = storage.folder, storage.manifest
    if given is not None and not isinstance(given, str):
        encoder = as_encoder(given, device=device)
        if not is_fitted(encoder) and (saved := storage.saved_encoder()).fitted_to:
            encoder = type(encoder).load(saved.directory, device=device)
        return fitting(encoder, folder, manifest)
    saved = storage.saved_encoder()
    if saved.weights_sha256 != manifest.weights_sha256:
        raise GalleryError(
            f"{saved.directory} is not the encoder that made the vectors of this gallery; "
            "restore it"
        )
    loaded = load_encoder(saved.directory, device=device, encoder=given)
    return fitting(loaded, folder, manifest)


def is_fitted(encoder: Encoder) -> bool:
    """Whether nothing is to be fitted to the items of a gallery."""
    return "fit" not in encoder.capabilities or getattr(encoder, "is_fitted", True) is not False


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
