"""Set up one run of the training loop, and make a result of it."""

from __future__ import annotations

from typing import Any

import torch

from fastretrieve.data import Dataset
from fastretrieve.encoders.blocks.views import Views
from fastretrieve.training.augmentation import choose_views
from fastretrieve.training.checkpoint import run_fingerprint
from fastretrieve.training.features import has_head
from fastretrieve.training.journal import Journal
from fastretrieve.training.options import Plan, TrainingOptions, make_plan
from fastretrieve.training.pace import Pace, choose_pace
from fastretrieve.training.result import TrainingResult
from fastretrieve.training.run import Run, nothing_read
from fastretrieve.training.stepping import resolve_device, uses_bfloat16
from fastretrieve.training.validation import GALLERY_ITEMS, Items, Validator, sampled


def run_on(
    encoder: Any,
    dataset: Dataset,
    held_out: Dataset | None,
    options: TrainingOptions,
    *,
    whole: Any,
    n_items: int,
) -> TrainingResult:
    """Train ``encoder``, which is ``whole`` or its head; ``whole`` is what is saved."""
    if "classify" in encoder.capabilities and dataset.is_labelled:
        encoder.set_classes(dataset.classes)
    plan = make_plan(encoder, options, n_items=n_items)
    most = getattr(encoder, "sees_items", GALLERY_ITEMS)
    gallery = Items(encoder, sampled(dataset, most, seed=options.seed), options.workers)
    first = gallery.first()
    if first is None:
        raise nothing_read(dataset, gallery.skipped)
    views = choose_views(encoder, first, options.augment)
    if hasattr(encoder, "before_training"):
        encoder.before_training(gallery.limited(most))
    weighs = getattr(encoder, "weighs_parts", False) and dataset.is_labelled
    if weighs and hasattr(encoder, "choose"):
        encoder.choose(gallery.labelled())
    n_held_out = 0 if held_out is None else len(held_out)
    facts = _facts(encoder, plan, options, views) | _below(whole)
    facts |= {"classes": dataset.classes, "n_held_out": n_held_out}
    pace = _pace(encoder, plan, options, gallery)
    run = Run(
        encoder=encoder,
        dataset=dataset,
        plan=plan,
        options=options,
        device=resolve_device(options.device),
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
    return _finished(run, n_held_out, whole)


def _pace(encoder: Any, plan: Plan, options: TrainingOptions, gallery: Items) -> Pace:
    """Threads and precision of the run."""
    device = resolve_device(options.device)
    half = uses_bfloat16(device, options.precision, wanted=plan.recipe.half)
    if device.type == "cpu" and options.precision == "auto":
        return choose_pace(encoder, plan, next(iter(gallery)), half=half)
    return Pace(torch.get_num_threads(), half)


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


def _finished(run: Run, n_held_out: int, whole: Any) -> TrainingResult:
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
        n_held_out=n_held_out,
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
