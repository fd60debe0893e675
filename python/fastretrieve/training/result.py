"""What ``fr.train`` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastretrieve.data import Skipped
from fastretrieve.encoders.blocks.views import Views
from fastretrieve.evaluation.directions import warning
from fastretrieve.training.synthetic import Synthesis
from fastretrieve.training.validation import EASY


@dataclass
class TrainingResult:
    """What ``fr.train`` did. The encoder is the one that was given, trained in place.

    ``best_epoch`` 0 says that no epoch was better than an encoder that was useful before, such as
    an adapter, by more than luck: it is as it was.
    """

    encoder: Any
    epochs: list[dict[str, Any]]  # the figures of each epoch, as in the log
    best_epoch: int | None  # the encoder has its weights; None: those of the last epoch
    seconds: float
    n_items: int  # trained on, without those held out
    n_held_out: int
    skipped: list[Skipped] = field(default_factory=list)
    views: Views | None = None  # how images were changed
    synthetic: Synthesis | None = None  # the effect of generated images
    start: dict[str, Any] = field(default_factory=dict)  # before the first step, where measured
    trained_on_all: bool = False  # in the end anew, with what the figures were measured on

    @property
    def figures(self) -> dict[str, Any]:
        """The figures of the epoch whose weights the encoder has."""
        if self.best_epoch == 0:
            return self.start
        if not self.epochs:
            return {}
        return self.epochs[-1 if self.best_epoch is None else self.best_epoch - 1]

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures should know."""
        found = []
        if self.best_epoch == 0:
            found.append("no epoch was better than the start by more than luck, so it is kept")
        if self.trained_on_all:
            found.append(
                "the figures are those of held-out pictures; the encoder was then trained on all"
            )
        if self.figures.get("view recall@1", 0.0) >= EASY:
            found.append(
                "view recall@1 says that views of an image are alike, not that a search finds what "
                "people want: compare encoders on labelled items (fastretrieve evaluate)"
            )
        few = warning(int(self.figures.get("directions", 0)), self.encoder.dim)
        return found + ([few] if few else [])
