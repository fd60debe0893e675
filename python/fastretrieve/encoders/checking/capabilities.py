"""The checks of the capabilities that an encoder declares."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastretrieve.encoders.blocks.steps import make_optimizers, training_step
from fastretrieve.encoders.checking.tools import (
    TOLERANCE,
    CheckFailed,
    Subject,
    as_array,
    gap,
    parts,
    require,
    same,
    untouched_generators,
    vectors,
)
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import Figure

CLASSES = ("across", "along")
TEXTS = ("", "a boot", "two birds on a wire above a street of low houses, at night", "Ein Stiefel")
CODE_TOLERANCE = 1e-2  # of "invert", relative to the largest entry


def check_trainable(subject: Subject) -> None:
    """The progress figure improves within a few steps on one batch."""
    encoder = subject.make()
    if "classify" in encoder.capabilities:
        encoder.set_classes(CLASSES)
    figure = encoder.progress_figure
    require(
        isinstance(figure, Figure) and figure.direction in ("lower", "higher"),
        f"progress_figure is Figure(name, 'lower' or 'higher'), got {figure!r}",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        history = _train(subject, encoder)
    values = [step[figure.name] for step in history]
    require(bool(np.isfinite(values).all()), f"{figure.name!r} became NaN or infinite: {values}")
    n = max(len(values) // 5, 1)
    before, after = float(np.mean(values[:n])), float(np.mean(values[-n:]))
    require(
        figure.improved(before=before, after=after),
        f"{figure.name!r} should get {figure.direction} but went from {before:.4g} to {after:.4g} "
        f"in {len(values)} steps on one batch",
    )


def _train(subject: Subject, encoder: Any) -> list[dict[str, float]]:
    encoder.train()
    batch = encoder.preprocess(subject.sample.items)
    labels = torch.from_numpy(subject.sample.labels)
    try:
        optimizers = make_optimizers(encoder)
        before = [p.detach().clone() for p in encoder.parameters()]
        history = [training_step(encoder, batch, labels, optimizers) for _ in range(subject.steps)]
    except (RuntimeError, ValueError, EncoderError) as error:
        raise CheckFailed(f"a step of training fails: {error}") from error
    moved = [
        not torch.equal(a, b.detach()) for a, b in zip(before, encoder.parameters(), strict=True)
    ]
    require(any(moved), "training moved no parameter: does loss depend on parameters()?")
    found = vectors(encoder, subject.sample.items)
    require(bool(np.isfinite(found).all()), "vectors hold NaN or infinity after training")
    return history


def check_fit(subject: Subject) -> None:
    """``fit`` learns from batches, sets ``is_trained`` and returns the encoder."""
    encoder = subject.make()
    items = subject.sample.items
    half = len(items) // 2
    batches = [encoder.preprocess(items[:half]), encoder.preprocess(items[half:])]
    fitted = encoder.fit(batches)
    require(fitted is encoder, "fit(batches) must return the encoder")
    require(bool(encoder.is_trained), "fit(batches) must set is_trained")
    require(bool(np.isfinite(vectors(encoder, items)).all()), "vectors are not finite after fit")


def check_classify(subject: Subject) -> None:
    """``probabilities`` has a column for each class, rows sum to one, and classes are saved."""
    encoder = subject.make()
    encoder.set_classes(CLASSES)
    require(tuple(encoder.classes) == CLASSES, f"classes is {encoder.classes}, wanted {CLASSES}")
    found = as_array(encoder.probabilities(encoder.preprocess(subject.sample.items)))
    wanted = (len(subject.sample.items), len(CLASSES))
    require(found.shape == wanted, f"probabilities returned {found.shape}, wanted {wanted}")
    require(
        bool((found >= 0).all()) and bool(np.allclose(found.sum(axis=1), 1, atol=1e-4)),
        "probabilities must not be negative and their rows must sum to one",
    )
    with tempfile.TemporaryDirectory() as folder:
        encoder.save(folder)
        copy = subject.load(Path(folder))
    require(tuple(copy.classes) == CLASSES, f"classes came back from save as {copy.classes}")
    again = as_array(copy.probabilities(copy.preprocess(subject.sample.items)))
    require(same(found, again), "the loaded encoder gives other probabilities")


def check_reconstruct(subject: Subject) -> None:
    """``reconstruct`` returns the shape of the batch, finite, without gradients, repeatably."""
    encoder = subject.make()
    batch = encoder.preprocess(subject.sample.items)
    found = encoder.reconstruct(batch)
    shape, wanted = tuple(found.shape), parts(batch)[0].shape
    require(shape == wanted, f"reconstruct returned shape {shape}, wanted {wanted}")
    require(bool(torch.isfinite(found).all()), "reconstruct returned NaN or infinity")
    require(not found.requires_grad, "reconstruct returned a tensor that requires gradients")
    again = encoder.reconstruct(batch)
    require(same(as_array(found), as_array(again)), "reconstruct differs from call to call")


def check_generate(subject: Subject) -> None:
    """``generate`` gives ``n`` items like a batch; the seed alone decides which."""
    encoder = subject.make()
    wanted = parts(encoder.preprocess(subject.sample.items[:3]))[0].shape
    with untouched_generators("generate"):
        made = encoder.generate(3, seed=5)
    first, again, other = (
        parts(x)[0] for x in (made, encoder.generate(3, 5), encoder.generate(3, 6))
    )
    require(first.shape == wanted, f"generate(3) returned {first.shape}, a batch of 3 is {wanted}")
    require(bool(np.isfinite(first).all()), "generate returned NaN or infinity")
    require(same(first, again), "generate gives other items for the same seed")
    require(not same(first, other), "generate gives the same items for different seeds")
    none = parts(encoder.generate(0, seed=5))[0]
    require(len(none) == 0, f"generate(0) returned {len(none)} items")
    encoded = as_array(encoder.encode(made))
    require(encoded.shape == (3, encoder.dim), "encode does not take what generate returns")


def check_invert(subject: Subject) -> None:
    """``invert`` gives an item the same code in any batch; ``draw`` makes items of codes alone."""
    encoder = subject.make()
    items = subject.sample.items
    batch = encoder.preprocess(items)
    with untouched_generators("invert or draw"):
        codes = encoder.invert(batch)
        drawn = encoder.draw(codes)
    _check_codes(encoder, codes, items)
    first, wanted = parts(drawn)[0], parts(batch)[0].shape
    require(first.shape == wanted, f"draw returned shape {first.shape}, a batch is {wanted}")
    require(bool(np.isfinite(first).all()), "draw returned NaN or infinity")
    require(
        not any(getattr(part, "requires_grad", False) for part in (codes, drawn)),
        "invert or draw returned a tensor that requires gradients",
    )
    require(same(first, parts(encoder.draw(codes))[0]), "draw gives other items for equal codes")
    other = parts(encoder.draw(codes + torch.ones_like(codes)))[0]
    require(not same(first, other), "draw gives the same items for other codes")
    require(len(parts(encoder.draw(codes[:0]))[0]) == 0, "draw makes items of no codes")
    encoded = as_array(encoder.encode(drawn))
    require(encoded.shape == (len(items), encoder.dim), "encode does not take what draw returns")


def _check_codes(encoder: Any, codes: Any, items: Any) -> None:
    """Codes have a form, and belong to the item alone. A descent from rounded values may end a
    little elsewhere, so more than rounding is allowed.
    """
    require(
        codes.ndim == 2 and len(codes) == len(items) and as_array(codes).dtype == np.float32,
        f"invert returned {codes.dtype} {tuple(codes.shape)}, wanted float32 [n, code_dim]",
    )
    found = as_array(codes)
    require(bool(np.isfinite(found).all()), "invert returned NaN or infinity")
    alone = as_array(encoder.invert(encoder.preprocess(items[:1])))
    require(
        same(found[:1], alone, tolerance=CODE_TOLERANCE),
        f"the code of an item changes by {gap(found[:1], alone):.3g} with its batch",
    )
    require(not same(found[:1], found[1:2]), "invert gives different items the same code")


def check_layers(subject: Subject) -> None:
    """``layers`` gives float32 [n, d] for each name, the same for an item alone and in a batch."""
    encoder = subject.make()
    items = subject.sample.items
    found = encoder.layers(encoder.preprocess(items))
    require(bool(found), "layers returned no layer")
    alone = encoder.layers(encoder.preprocess(items[:1]))
    for name, value in found.items():
        require(
            value.ndim == 2 and len(value) == len(items) and as_array(value).dtype == np.float32,
            f"layer {name!r} is {value.dtype} {tuple(value.shape)}, wanted float32 [n, d]",
        )
        require(not getattr(value, "requires_grad", False), f"layer {name!r} requires gradients")
        a, b = as_array(value)[:1], as_array(alone[name])
        require(bool(np.isfinite(a).all()), f"layer {name!r} holds NaN or infinity")
        require(
            same(a, b, tolerance=TOLERANCE),
            f"layer {name!r} of an item changes by {gap(a, b):.3g} with its batch",
        )


def check_parts(subject: Subject) -> None:
    """``parts`` and their constant sum to the vectors, and are those of an item alone."""
    encoder = subject.make()
    items = subject.sample.items
    batch = encoder.preprocess(items)
    found = encoder.parts(batch)
    require(
        isinstance(found, tuple) and len(found) == 2,
        f"parts returned {type(found).__name__}, wanted a tuple of parts and a constant",
    )
    located, constant = map(as_array, found)
    n, dim = len(items), encoder.dim
    require(
        located.ndim == 4 and located.shape[::3] == (n, dim) and constant.shape == (n, dim),
        f"parts returned {located.shape} and {constant.shape}, wanted "
        f"({n}, positions_y, positions_x, {dim}) and ({n}, {dim})",
    )
    kinds = {str(each.dtype) for each in (located, constant)}
    require(kinds == {"float32"}, f"parts returned {', '.join(sorted(kinds))}, wanted float32")
    require(not any(getattr(each, "requires_grad", False) for each in found), "parts has gradients")
    sums = located.sum((1, 2), dtype=np.float64) + constant
    rows = as_array(encoder.encode(batch))
    require(
        same(sums, rows, tolerance=TOLERANCE),
        f"parts and constant sum to other numbers than encode returns, by {gap(sums, rows):.3g}",
    )
    alone = as_array(encoder.parts(encoder.preprocess(items[:1]))[0])
    require(
        same(located[:1], alone, tolerance=TOLERANCE),
        f"parts of an item change by {gap(located[:1], alone):.3g} with its batch",
    )
    require(
        bool(np.ptp(located, axis=0).max() > 0),
        "parts are the same for every item, so the constant holds all that tells them apart",
    )


def check_translate(subject: Subject) -> None:
    """``translate`` returns pictures like the batch, the same for an item alone and in a batch."""
    encoder = subject.make()
    batch = encoder.preprocess(subject.sample.items)
    with untouched_generators("translate"):
        made = encoder.translate(batch)
    found, wanted = as_array(made), parts(batch)[0]
    require(
        found.shape == wanted.shape, f"translate returned {found.shape}, a batch is {wanted.shape}"
    )
    require(not getattr(made, "requires_grad", False), "translate returned gradients")
    is_picture = bool(np.isfinite(found).all()) and found.min() >= -TOLERANCE
    require(is_picture and found.max() <= 1 + TOLERANCE, "translate returned values outside [0, 1]")
    alone = as_array(encoder.translate(encoder.preprocess(subject.sample.items[:1])))
    require(
        same(found[:1], alone, tolerance=TOLERANCE),
        f"what translate makes of an item changes by {gap(found[:1], alone):.3g} with its batch",
    )


def check_text(subject: Subject) -> None:
    """``encode_text`` gives float32 [n, dim]: a text the same alone, in a batch and after save."""
    encoder = subject.make()
    with untouched_generators("encode_text"):
        found = as_array(encoder.encode_text(list(TEXTS)))
    wanted = (len(TEXTS), encoder.dim)
    require(
        found.shape == wanted and found.dtype == np.float32,
        f"encode_text returned {found.dtype} {found.shape}, wanted float32 {wanted}",
    )
    require(bool(np.isfinite(found).all()), "encode_text returned NaN or infinity")
    again = as_array(encoder.encode_text(list(TEXTS)))
    require(same(found, again), "encode_text differs from call to call")
    alone = np.concatenate([as_array(encoder.encode_text([text])) for text in TEXTS])
    require(
        same(found, alone, tolerance=TOLERANCE),
        f"the vector of a text changes by {gap(found, alone):.3g} with its batch",
    )
    require(not same(found[1:2], found[2:3]), "encode_text gives different texts the same vector")
    none = as_array(encoder.encode_text([]))
    require(none.shape == (0, encoder.dim), f"encode_text of no text returned {none.shape}")
    with tempfile.TemporaryDirectory() as folder:
        encoder.save(folder)
        copy = subject.load(Path(folder))
    loaded = as_array(copy.encode_text(list(TEXTS)))
    require(same(found, loaded), "the loaded encoder gives texts other vectors")


CAPABILITY_CHECKS: dict[str, Callable[[Subject], None]] = {
    "trainable": check_trainable,
    "fit": check_fit,
    "classify": check_classify,
    "reconstruct": check_reconstruct,
    "generate": check_generate,
    "invert": check_invert,
    "layers": check_layers,
    "parts": check_parts,
    "translate": check_translate,
    "text": check_text,
}
