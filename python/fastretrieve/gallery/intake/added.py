"""``Added``: what an addition did; and ``AddOptions``: how to add."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastretrieve._common.arguments import whole
from fastretrieve.data import Skipped
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.intake.downloads import DownloadLimits


@dataclass
class Added:
    """What an addition did."""

    added: int = 0
    updated: int = 0  # changed files, encoded anew
    relabelled: int = 0  # a new label, caption or metadata; the vector stays
    unchanged: int = 0
    left_out: int = 0  # were removed from the gallery before
    removed: int = 0  # by an update, because their files are gone
    fitted_to: int | None = None  # items that the encoder was fitted to; 0: they were too few
    unreadable: list[Skipped] = field(default_factory=list)
    seconds: float = 0.0
    encode_seconds: float = 0.0  # spent in the encoder

    @property
    def encoder_share(self) -> float:
        """The share of the time in which the encoder was at work."""
        return self.encode_seconds / self.seconds if self.seconds else 0.0

    @property
    def n_usable(self) -> int:
        """How many of the items that were named are in the gallery, or could be."""
        return self.added + self.updated + self.relabelled + self.unchanged + self.left_out

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "fitted_to": self.fitted_to,
            "unreadable": [item._asdict() for item in self.unreadable],
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        counts = [f"{getattr(self, name):,} {text}" for name, text in _COUNTS.items()]
        counts = [text for text in counts if not text.startswith("0 ")] or ["nothing to add"]
        if self.unreadable:
            counts.append(f"{len(self.unreadable):,} could not be read")
        fitted = ""
        if self.fitted_to is not None:
            fitted = (
                f"; the encoder was fitted to {self.fitted_to:,} of them"
                if self.fitted_to
                else "; they are too few to fit the encoder to: refit it when there are more"
            )
        return f"{', '.join(counts)} in {self.seconds:.1f} s{fitted}"


_COUNTS = {
    "added": "added",
    "updated": "updated",
    "relabelled": "with new metadata",
    "unchanged": "unchanged",
    "left_out": "left out because they were removed before",
    "removed": "removed because their files are gone",
}


class AddOptions(NamedTuple):
    """How to add."""

    batch_size: int = 128
    workers: int | None = None
    progress: bool | None = None
    commit_seconds: float = 5.0
    restore: bool = False
    retry: bool = False
    limits: DownloadLimits = DownloadLimits()
    anew: bool = False  # fit the encoder and encode all again, changed or not

    def checked(self) -> AddOptions:
        """These options, or an error that says what is wrong with one."""
        whole(self.batch_size, "batch_size")
        if self.workers is not None and self.workers < 0:
            raise GalleryError(
                f"workers is the number of threads that read files, 0 for none beside the caller's,"
                f" got {self.workers}"
            )
        return self
