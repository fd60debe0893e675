"""The options of a training run, checked once, and the plan made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fastretrieve.encoders.blocks.recipe import Recipe
from fastretrieve.encoders.blocks.views import Views
from fastretrieve.encoders.protocol import Trainable

Augment: TypeAlias = 'Literal["auto"] | bool | Views'
Precision = Literal["auto", "float32", "bfloat16"]

_MIN_EPOCHS, _MAX_EPOCHS = 3, 200  # if the recipe decides


@dataclass(frozen=True, eq=False)
class TrainingOptions:
    """The keywords of ``fr.train``, with their defaults."""

    epochs: int | None = None
    device: str = "auto"
    seed: int = 0
    labels: Any = None
    validation: Any = None
    split: str | None = None
    out: str | Path | None = None
    resume: bool = True
    batch_size: int | None = None
    lr: float | None = None
    augment: Augment = "auto"
    balanced: bool = False
    patience: int | None = 10
    precision: Precision = "auto"
    synthetic: Any = None
    share: float = 0.0
    workers: int | None = None
    progress: bool | None = None
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        _at_least(1, epochs=self.epochs, batch_size=self.batch_size, patience=self.patience)
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"lr is a positive learning rate, got {self.lr}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(
                f'precision must be "auto", "float32" or "bfloat16", got {self.precision!r}'
            )
        if not (self.augment == "auto" or isinstance(self.augment, (bool, Views))):
            raise ValueError(
                'augment must be "auto", True, False or Views(crop=..., shift=..., flip=..., '
                f"colour=..., hue=..., grey=...), got {self.augment!r}"
            )

    @property
    def folder(self) -> Path | None:
        """``out`` as a path."""
        return None if self.out is None else Path(self.out)


@dataclass(frozen=True)
class Plan:
    """The numbers of a run; equal plans and seeds give equal weights."""

    epochs: int
    batch_size: int
    n_items: int
    recipe: Recipe

    @property
    def steps_per_epoch(self) -> int:
        return max(self.n_items // self.batch_size, 1)

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def lr_at(self, step: int) -> float:
        """A short warm-up, then a cosine down to zero.

        >>> plan = Plan(epochs=10, batch_size=10, n_items=1000, recipe=Recipe(lr=1.0))
        >>> [round(plan.lr_at(step), 2) for step in (0, 49, 500, 999)]
        [0.02, 0.99, 0.5, 0.0]
        """
        warm = min(1.0, (step + 1) / max(1.0, min(500.0, 0.05 * self.total_steps)))
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.total_steps))
        return self.recipe.lr * warm * (cosine if self.recipe.decay else 1.0)


def make_plan(encoder: Trainable, options: TrainingOptions, *, n_items: int) -> Plan:
    """Take from the encoder's recipe every number that the options leave open."""
    recipe: Recipe = getattr(encoder, "recipe", Recipe())
    if options.lr is not None:
        recipe = recipe._replace(lr=options.lr)
    # Few items: smaller batches, so that an epoch has some steps.
    batch_size = options.batch_size or min(recipe.batch_size, max(8, n_items // 8))
    batch_size = max(min(batch_size, n_items), 1)
    per_epoch = max(n_items // batch_size, 1)
    wanted = min(max(round(recipe.steps / per_epoch), _MIN_EPOCHS), _MAX_EPOCHS)
    return Plan(options.epochs or wanted, batch_size, n_items, recipe)


def _at_least(least: int, **values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
