"""``fr.train``: fit an encoder to a data set."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fastretrieve.data import Dataset
from fastretrieve.data.open import open_split
from fastretrieve.data.splits import HELD_OUT, TRAIN
from fastretrieve.encoders.blocks.views import Views
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.registry import as_encoder, create_encoder
from fastretrieve.training.augmentation import choose_views
from fastretrieve.training.checkpoint import run_fingerprint
from fastretrieve.training.features import (
    as_vectors,
    fit_frozen,
    has_head,
    without_pictures,
)
from fastretrieve.training.journal import Journal
from fastretrieve.training.options import Augment, Plan, Precision, TrainingOptions, make_plan
from fastretrieve.training.pace import Pace, choose_pace
from fastretrieve.training.rehearsal import rehearse
from fastretrieve.training.result import TrainingResult
from fastretrieve.training.run import Run, nothing_read
from fastretrieve.training.stepping import own_randomness, resolve_device, uses_bfloat16
from fastretrieve.training.synthetic import add_synthetic, compare
from fastretrieve.training.validation import (
    GALLERY_ITEMS,
    Items,
    Validator,
    sampled,
    split_off,
)


def train(
    encoder: Any,
    dataset: Any,
    *,
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

    ``dataset`` is whatever ``open_dataset`` takes; ``split`` chooses a part of it. Without it files
    with splits (IDX, CIFAR, ...) give "train" to train on and to ``validation`` what they hold out.

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
    return _trained(encoder, dataset, options)


def _trained(encoder: Any, dataset: Any, options: TrainingOptions) -> TrainingResult:
    """``train``, with its keywords as one value."""
    learner = _learner(encoder)
    data = open_split(
        dataset,
        split=options.split,
        otherwise=TRAIN,
        labels=options.labels,
        modality=learner.modality,
    )
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
    return _run(encoder, dataset, held_out, options, whole=encoder, n_items=n_items)


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
    result = _run(encoder.head, rows, asked, vectors_only, whole=encoder, n_items=n_items)
    result.skipped = skipped
    return result


def _run(
    encoder: Any,
    dataset: Dataset,
    held_out: Dataset | None,
    options: TrainingOptions,
    *,
    whole: Any,
    n_items: int,
) -> TrainingResult:
    """Train ``encoder``, which is ``whole`` or its head; ``whole`` is what is saved."""
    device = resolve_device(options.device)
    if "classify" in encoder.capabilities and dataset.is_labelled:
        encoder.set_classes(dataset.classes)
    plan = make_plan(encoder, options, n_items=n_items)
    gallery = Items(encoder, sampled(dataset, GALLERY_ITEMS, seed=options.seed), options.workers)
    first = gallery.first()
    if first is None:
        raise nothing_read(dataset, gallery.skipped)
    views = choose_views(encoder, first, options.augment)
    if hasattr(encoder, "before_training"):
        encoder.before_training(gallery.limited(GALLERY_ITEMS))
    weighs = getattr(encoder, "weighs_parts", False) and dataset.is_labelled
    if weighs and hasattr(encoder, "choose"):
        encoder.choose(gallery.labelled())
    facts = (
        _facts(encoder, plan, options, views)
        | _below(whole)
        | {
            "classes": dataset.classes,
            "n_held_out": 0 if held_out is None else len(held_out),
        }
    )
    half = uses_bfloat16(device, options.precision, wanted=plan.recipe.half)
    pace = Pace(torch.get_num_threads(), half)
    if device.type == "cpu" and options.precision == "auto":
        pace = choose_pace(encoder, plan, next(iter(gallery)), half=half)
    run = Run(
        encoder=encoder,
        dataset=dataset,
        plan=plan,
        options=options,
        device=device,
        views=views,
        validator=Validator(
            encoder,
            held_out=None if held_out is None else Items(encoder, held_out, options.workers),
            gallery=gallery,
        ),
        journal=Journal(options.folder and options.folder / "training", start=facts | pace.facts()),
        pace=pace,
        fingerprint=run_fingerprint(**facts, labels=dataset.labels.tolist()),
    )
    run.go()
    return _finished(run, held_out, whole)


def _below(whole: Any) -> dict[str, Any]:
    """The frozen encoder of one that has a head, for the log and the fingerprint."""
    if not has_head(whole):
        return {}
    return {"frozen": [whole.frozen.name, dict(getattr(whole.frozen, "config", {}))]}


def _facts(
    encoder: Any, plan: Plan, options: TrainingOptions, views: Views | None
) -> dict[str, Any]:
    """Encoder, plan and options of a run, for its log and the fingerprint of its checkpoint."""
    return {
        "encoder": encoder.name,
        "config": dict(getattr(encoder, "config", {})),
        "seed": options.seed,
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "n_items": plan.n_items,
        "recipe": plan.recipe._asdict(),
        "views": None if views is None else views._asdict(),
        "balanced": options.balanced,
    }


def _finished(run: Run, held_out: Dataset | None, whole: Any) -> TrainingResult:
    encoder, folder = run.encoder, run.journal.folder
    encoder.is_trained = whole.is_trained = True
    encoder.eval()
    whole.eval()
    result = TrainingResult(
        encoder=whole,
        epochs=run.progress.epochs,
        best_epoch=run.progress.best_epoch if run.best else None,
        seconds=run.progress.seconds,
        n_items=len(run.dataset),
        n_held_out=0 if held_out is None else len(held_out),
        skipped=run.skipped,
        views=run.views,
        start=run.progress.start,
    )
    if run.options.folder is not None and folder is not None:
        whole.save(run.options.folder)
        end = {
            **({"start": result.start} if result.start else {}),
            "seconds": result.seconds,
            "best_epoch": result.best_epoch,
            "notes": result.notes,
            "skipped": [item._asdict() for item in result.skipped],
        }
        run.journal.write(result.epochs, end=end)
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)  # the encoder is saved now
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
    return dataset, held_out.relabel(dataset.classes)


def _fit(encoder: Any, dataset: Dataset, options: TrainingOptions) -> TrainingResult:
    """An encoder that learns in closed form sees all items once, or as many as help it."""
    _, most = getattr(encoder, "fit_items", (0, len(dataset)))
    items = Items(encoder, sampled(dataset, most, seed=options.seed), options.workers)
    encoder.fit(items.limited(most))
    if options.folder is not None:
        encoder.save(options.folder)
    return TrainingResult(
        encoder=encoder,
        epochs=[],
        best_epoch=None,
        seconds=0.0,
        n_items=len(dataset),
        n_held_out=0,
        skipped=items.skipped,
    )


def _beside(options: TrainingOptions) -> TrainingOptions:
    """The same options for the run that another is compared with."""
    out = options.folder and options.folder / "training" / "without-synthetic"
    return replace(options, out=out)
