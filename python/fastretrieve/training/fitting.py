"""``fr.train``: fit an encoder to a data set."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fastretrieve.data import Dataset
from fastretrieve.data.captions import CAPTIONS, captioned
from fastretrieve.data.open import open_split
from fastretrieve.data.splits import HELD_OUT, TRAIN
from fastretrieve.data.styles import STYLES, open_styles
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.registry import as_encoder, create_encoder
from fastretrieve.training.captions import joined, learns_captions
from fastretrieve.training.features import (
    as_vectors,
    fit_frozen,
    fit_to_sample,
    has_head,
    without_pictures,
)
from fastretrieve.training.finishing import train_on_all
from fastretrieve.training.launching import run_on
from fastretrieve.training.options import Augment, Precision, TrainingOptions
from fastretrieve.training.rehearsal import rehearse
from fastretrieve.training.result import TrainingResult
from fastretrieve.training.run import nothing_read
from fastretrieve.training.stepping import own_randomness, resolve_device
from fastretrieve.training.synthetic import add_synthetic, compare
from fastretrieve.training.validation import (
    split_off,
)


def train(
    encoder: Any,
    dataset: Any = None,
    *,
    from_: Any = None,
    to: Any = None,
    epochs: int | None = None,
    device: str = "auto",
    seed: int = 0,
    labels: Any = None,
    validation: Any = None,
    split: str | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    batch_size: int | None = None,
    lr: float | None = None,
    augment: Augment = "auto",
    balanced: bool = False,
    patience: int | None = 10,
    precision: Precision = "auto",
    synthetic: Any = None,
    share: float = 0.0,
    workers: int | None = None,
    progress: bool | None = None,
    checkpoint_seconds: float = 60.0,
) -> TrainingResult:
    """Train ``encoder`` (an encoder, its name or its directory) on ``dataset``, in place.

    ``dataset`` is whatever ``open_dataset`` takes; ``split`` chooses a part of it. A ``translator``
    takes two in its place: pictures ``from_`` one style and ``to`` another. ``words`` takes
    pictures with captions: a table with the columns path and caption. Without ``split`` files with
    splits (IDX, CIFAR, ...) give "train" to train on and to ``validation`` what they hold out.

    A tenth, at most 2,000 items, is held out to
    measure retrieval after each epoch, unless ``validation`` brings items or is False; the best
    epoch's weights are kept, and ``patience`` epochs without a better one end the run. Fewer than
    500 items are all trained on.

    ``out`` is a directory: it receives the trained encoder, and ``out/training`` a checkpoint, a
    log, curves and sheets. The same call goes on where a killed one stopped, to the same result;
    ``resume=False`` starts over.

    On a CPU, ``precision`` "auto" tries a few steps with all threads and with one, in bfloat16 and
    in float32, and takes the fastest way; the log says which. Weights of two such runs may differ
    in their last bits; with a ``precision`` that is given they do not.

    ``augment`` "auto" shifts, recolours and, where the data are as mirrored as not, mirrors images
    of encoders that can bear it; True and False overrule the encoder, ``Views(...)`` says what.
    ``balanced`` shows every class equally often. ``synthetic`` is a trained encoder that can
    generate: a ``share`` of the items is then its drawings, equally many a class, labelled by their
    neighbours. The encoder is trained without them first, for as many steps, so that the result
    can say what they changed.

    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(0, 255, (32, 8, 8), np.uint8)
    >>> cnn = create_encoder("cnn", dim=8, image_size=8, channels=1, width=4)
    >>> result = train(cnn, images, epochs=1, labels=[0, 1] * 16, progress=False)
    >>> cnn.is_trained, len(result.epochs)
    (True, 1)
    """
    options = TrainingOptions(
        epochs=epochs,
        device=device,
        seed=seed,
        labels=labels,
        validation=validation,
        split=split,
        out=out,
        resume=resume,
        batch_size=batch_size,
        lr=lr,
        augment=augment,
        balanced=balanced,
        patience=patience,
        precision=precision,
        synthetic=synthetic,
        share=share,
        workers=workers,
        progress=progress,
        checkpoint_seconds=checkpoint_seconds,
    )
    return _trained(encoder, _Data(dataset, from_, to), options)


class _Data(NamedTuple):
    """What to train on: a data set, or two styles."""

    dataset: Any
    from_: Any
    to: Any

    def opened(self, learner: Any, options: TrainingOptions) -> Dataset:
        """One data set; errors say what the encoder needs."""
        given = {"modality": learner.modality}
        has_styles = self.from_ is not None or self.to is not None
        if has_styles and (self.dataset is not None or options.labels is not None):
            raise ValueError("from_= and to= take the place of a data set and its labels")
        if has_styles and not _translates(learner):
            raise ValueError(
                f"from_= and to= are for a translator; {learner.name!r} learns from one data set"
            )
        if has_styles:
            return open_styles(self.from_, self.to, split=options.split, **given)
        if self.dataset is None:
            wanted = "from_= and to=" if _translates(learner) else "a data set"
            raise ValueError(f"nothing to train on: give {wanted}")
        opened = open_split(
            self.dataset, split=options.split, otherwise=TRAIN, labels=options.labels, **given
        )
        if _translates(learner) and not 1 <= opened.labels.max(initial=-1) <= len(STYLES) - 1:
            raise ValueError(
                "a translator learns from two folders: give from_= and to= (in the shell --from "
                "and --to), or items of two labels"
            )
        return captioned(opened) if learns_captions(learner) else opened


def _translates(encoder: Any) -> bool:
    return "translate" in encoder.capabilities


def _trained(encoder: Any, given: _Data, options: TrainingOptions) -> TrainingResult:
    """``train``, with its keywords as one value."""
    learner = _learner(encoder)
    if learns_captions(learner) and options.synthetic is not None:
        raise ValueError(f"{learner.name!r} learns from captions, and synthetic drawings have none")
    data = given.opened(learner, options)
    if _translates(learner):
        options = replace(options, validation=_no_validation(options.validation))
    if "trainable" not in learner.capabilities:
        return _fit(learner, data, options)
    training, held_out = _divide(data, options)
    with own_randomness(resolve_device(options.device)):
        rehearse(learner, training, held_out, options, _train)
        if options.synthetic is None:
            return _train(learner, training, held_out, options)
        enlarged, synthesis = add_synthetic(
            training, options.synthetic, share=options.share, seed=options.seed
        )
        plain = _train(copy.deepcopy(learner), training, held_out, _beside(options))
        # As many steps as without the drawings: more steps alone would help, too.
        result = _train(learner, enlarged, held_out, options, n_items=len(training))
        result.synthetic = compare(
            synthesis, plain.figures, result.figures, n_held_out=result.n_held_out
        )
        return result


def _train(
    encoder: Any,
    dataset: Dataset,
    held_out: Dataset | None,
    options: TrainingOptions,
    *,
    n_items: int | None = None,
) -> TrainingResult:
    """Train on ``n_items`` items an epoch, or all."""
    if getattr(encoder, "needs_labels", False) and not dataset.is_labelled:
        raise ValueError(
            f"encoder {encoder.name!r} learns from labels or pairs, and no item has a label; give "
            "labels=..., class folders or a table with a column of labels"
        )
    encoder.to(resolve_device(options.device))
    n_items = n_items or len(dataset)
    if has_head(encoder):
        return _train_head(encoder, dataset, held_out, options, n_items=n_items)
    return run_on(encoder, dataset, held_out, options, whole=encoder, n_items=n_items)


def _train_head(
    encoder: Any,
    dataset: Dataset,
    held_out: Dataset | None,
    options: TrainingOptions,
    *,
    n_items: int,
) -> TrainingResult:
    """Train the head of an encoder on the vectors of what is frozen."""
    fit_frozen(encoder, dataset, options)
    rows, skipped = as_vectors(encoder, dataset, options)
    if len(rows) == 0:
        raise nothing_read(dataset, skipped)
    asked = None
    if held_out is not None:
        asked, unread = as_vectors(encoder, held_out, options)
        skipped += unread
    vectors_only = without_pictures(options)
    if learns_captions(encoder):
        n_items = len(rows)  # an item of the head is a pair
    result = run_on(encoder.head, rows, asked, vectors_only, whole=encoder, n_items=n_items)
    result.skipped = skipped
    if learns_captions(encoder) and asked is not None and options.validation is None:
        train_on_all(encoder, joined(rows, asked), vectors_only, result)
    return result


def _learner(encoder: Any) -> Any:
    """The encoder to train: an instance, a saved one, or a new one by its name."""
    if isinstance(encoder, str) and not Path(encoder).exists():
        encoder = create_encoder(encoder)
    learner = as_encoder(encoder)
    if not {"trainable", "fit"} & set(learner.capabilities):
        raise EncoderError(
            f"encoder {learner.name!r} has nothing to learn (its capabilities are "
            f"{sorted(learner.capabilities)}); use it as it is"
        )
    return learner


def _divide(dataset: Dataset, options: TrainingOptions) -> tuple[Dataset, Dataset | None]:
    """The items to train on, and those held out."""
    validation = options.validation
    if len(dataset) < 2:
        raise ValueError(f"training needs at least 2 items, the data set has {len(dataset)}")
    if validation is None:
        return split_off(dataset, seed=options.seed)
    if validation is False:
        return dataset, None
    held_out = open_split(validation, split=None, otherwise=HELD_OUT, modality=dataset.modality)
    if CAPTIONS in dataset.columns:
        return dataset, captioned(held_out)
    return dataset, held_out.relabel(dataset.classes)


def _no_validation(validation: Any) -> bool:
    """A translator is not measured by held-out items: their labels say nothing of its pictures."""
    if validation not in (None, False):
        raise ValueError(
            "validation is for encoders that search; look at a translator's sheets, "
            "out/training/translated-*.png"
        )
    return False


def _fit(encoder: Any, dataset: Dataset, options: TrainingOptions) -> TrainingResult:
    """Train an encoder that learns in closed form."""
    skipped = fit_to_sample(encoder, dataset, options)
    if options.folder is not None:
        encoder.save(options.folder)
    return TrainingResult(
        encoder=encoder,
        epochs=[],
        best_epoch=None,
        seconds=0.0,
        n_items=len(dataset),
        n_held_out=0,
        skipped=skipped,
    )


def _beside(options: TrainingOptions) -> TrainingOptions:
    """The same options for the run that another is compared with."""
    out = options.folder and options.folder / "training" / "without-synthetic"
    return replace(options, out=out)
