"""Imagined queries on the page: with generators that the operator names, never a visitor."""

from __future__ import annotations

from typing import Any

from fastretrieve.gallery import Gallery, GalleryError, Imagine
from fastretrieve.gallery.lookup.imagining import Artists, device_of
from fastretrieve.server.limits import Limits, Refused


class Imagining:
    """What a server imagines: nothing, unless its operator names generators."""

    def __init__(self, gallery: Gallery, limits: Limits, imagine: Any) -> None:
        """Read the generators at once, so that a wrong one is an error of the start."""
        self._imagine: Imagine | None = None
        self.n = self.side = 0
        if imagine is None:
            return
        wanted = imagine if isinstance(imagine, Imagine) else Imagine(imagine)
        if wanted.n > limits.imagined:
            raise GalleryError(
                f"one search may imagine {limits.imagined} pictures, got n={wanted.n}; imagine "
                "fewer, or raise Limits.imagined"
            )
        artists = Artists(
            wanted, modality=gallery.manifest.modality, device=device_of(gallery.encoder)
        )
        self._imagine = artists.imagine
        self.n, self.side = wanted.n, artists.side

    def asked(self, imagine: bool) -> Imagine | None:
        """What ``search`` gets, if a visitor asked for it."""
        if imagine and self._imagine is None:
            raise Refused(422, "imagine: this server has no generator")
        return self._imagine if imagine else None
