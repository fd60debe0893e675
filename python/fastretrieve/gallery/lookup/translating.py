"""Carry a query into the style of the gallery before searching: ``search(..., translate=...)``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from fastretrieve._common.arguments import shown
from fastretrieve.data import open_dataset
from fastretrieve.data.styles import FEWEST
from fastretrieve.encoders import EncoderError, load_encoder
from fastretrieve.encoders.encoding import encode_dataset
from fastretrieve.encoders.saved import files
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup import finding
from fastretrieve.gallery.lookup.opened import Opened
from fastretrieve.gallery.lookup.styles import (
    NAME,
    PictureStyle,
    Style,
    VectorStyle,
    checked_how,
)

FIT_PICTURES, FIT_ITEMS = 1000, 4000  # random ones that a fit looks at, at most


class Translate:
    """How to carry a query into the gallery's style.

    ``Translate("my-style/")`` is a saved style: a translator that ``fr.train`` made, or what
    ``Gallery.fit_style`` saved. ``Translate("photos/", how="whiten")`` fits one to pictures of the
    queries' style, when it is first used; an open gallery keeps it. ``how`` is "mean" (the
    difference of the means is added), "coral" (and the spread is made the gallery's) or "whiten"
    (each direction weighs the less, the more the pictures of one style differ in it).

    >>> Translate("photos/", how="mean")
    Translate('photos/', how='mean')
    """

    def __init__(self, source: Any, *, how: str | None = None) -> None:
        self.source, self.how = source, how

    def __repr__(self) -> str:
        return f"Translate({shown(self.source)}" + (f", how={self.how!r})" if self.how else ")")


def style_of(opened: Opened, asked: Any) -> Style:
    """The style that ``asked`` names or is, if it suits the gallery."""
    style = _found(opened, asked)
    encoder = opened.queries.encoder  # first: another process may have fitted it
    style.refuse_others(opened.storage.manifest, encoder)
    return style


def _found(opened: Opened, asked: Any) -> Style:
    if isinstance(asked, (PictureStyle, VectorStyle)):
        return asked
    wanted = asked if isinstance(asked, Translate) else Translate(asked)
    if wanted.how is not None:
        checked_how(wanted.how, opened.storage.manifest.metric)
    elif not isinstance(wanted.source, (str, os.PathLike)):
        if not hasattr(wanted.source, "capabilities"):
            raise GalleryError(
                "translate is the directory of a style, a translator, or fr.Translate("
                f'pictures, how="mean"); got {shown(wanted.source)}'
            )
        return PictureStyle(wanted.source, name=str(getattr(wanted.source, "name", "an encoder")))
    key = (wanted.how, *_identity(opened, wanted))
    found = opened.styles.get(key)
    if found is None:
        found = (
            load_style(Path(wanted.source))
            if wanted.how is None
            else fit_style(opened, wanted.source, how=wanted.how, progress=None)
        )
        opened.styles.put(key, found, source=wanted.source)
    return found


def load_style(directory: Path) -> Style:
    """The style in a directory."""
    name = directory.name or str(directory)
    if not files.is_saved_encoder(directory):
        what = "has no config.json" if directory.is_dir() else "does not exist"
        raise GalleryError(
            f"{directory} is no style: it {what}; train one (fastretrieve train --encoder "
            "translator --from A/ --to B/ --out my-style/), or fit one to a folder of pictures "
            "(fastretrieve style GALLERY PICTURES/ --out my-style/)"
        )
    try:
        saved = files.read_encoder(directory)
        if saved.encoder == NAME:
            return VectorStyle.load(saved, name=name)
        return PictureStyle(load_encoder(directory), name=name)
    except EncoderError as error:
        raise GalleryError(str(error)) from error


def fit_style(opened: Opened, source: Any, *, how: str, progress: bool | None) -> VectorStyle:
    """Fit a style to pictures like the queries, and to what the gallery holds."""
    encoder, manifest = opened.queries.encoder, opened.storage.manifest
    chosen = checked_how(how, manifest.metric)
    data = open_dataset(source, modality=encoder.modality)
    picked = np.random.default_rng(0).permutation(len(data))[:FIT_PICTURES]
    found = encode_dataset(encoder, data.subset(np.sort(picked)), progress=progress)
    rows = finding.sample(opened, FIT_ITEMS)
    for what, n in (("readable pictures of the queries' style", len(found.vectors)),
                    ("items in the gallery", len(rows))):  # fmt: skip
        if n < FEWEST:
            raise GalleryError(
                f"{n} {what} are too few to fit a style to; at least {FEWEST}, better some hundred"
            )
    return VectorStyle.fit(
        chosen,
        found.vectors,
        rows,
        metric=manifest.metric,
        made_for=manifest.weights_sha256,
        name=Path(source).name if isinstance(source, (str, os.PathLike)) else "pictures",
    )


def _identity(opened: Opened, wanted: Translate) -> tuple[Any, ...]:
    """What must be the same for a kept style to be the one that is asked for."""
    source = wanted.source
    if not isinstance(source, (str, os.PathLike)):
        return id(source), opened.storage.manifest.weights_sha256
    path = Path(source).absolute()
    if wanted.how is not None:
        return str(path), opened.storage.manifest.weights_sha256
    try:
        facts = (path / files.CONFIG).stat()
    except OSError:
        return str(path), None  # reading it says what is wrong
    return str(path), facts.st_mtime_ns, facts.st_ino
