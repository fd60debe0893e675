"""The checks of every encoder: one function a promise of ``protocol.Encoder``.

A check takes a ``Subject`` and raises ``CheckFailed`` with the wanted value, the found one and the
remedy. Checks of devices, files, processes and threads are in ``travel.py``, those of optional
capabilities in ``capabilities.py``; ``fastretrieve.testing`` runs them all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import numpy as np
import torch

from fastretrieve.encoders import registry
from fastretrieve.encoders.checking.tools import (
    TOLERANCE,
    RestoredRandomness,
    Subject,
    as_array,
    gap,
    modes,
    parts,
    require,
    same,
    untouched_generators,
    vectors,
)
from fastretrieve.encoders.checking.travel import (
    check_device,
    check_save,
    check_threads,
    check_workers,
)


def check_protocol(subject: Subject) -> None:
    """Every attribute is there and has a legal value."""
    faults = registry.instance_faults(subject.make())
    require(not faults, "; ".join(faults))


def check_shape(subject: Subject) -> None:
    """``encode`` returns [n, dim]."""
    encoder = subject.make()
    found = vectors(encoder, subject.sample.items)
    wanted = (len(subject.sample.items), encoder.dim)
    require(found.shape == wanted, f"encode returned shape {found.shape}, wanted {wanted}")


def check_dtype(subject: Subject) -> None:
    """``encode`` returns float32."""
    found = vectors(subject.make(), subject.sample.items[:2])
    require(found.dtype == np.float32, f"encode returned {found.dtype}, wanted float32")


def check_finite(subject: Subject) -> None:
    """No vector holds a NaN or an infinity."""
    found = vectors(subject.make(), subject.sample.items)
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    require(len(bad) == 0, f"vectors of items {bad.tolist()} hold NaN or infinity")


def check_distinct(subject: Subject) -> None:
    """Different items get different vectors."""
    found = vectors(subject.make(), subject.sample.items)
    require(
        len(np.unique(found, axis=0)) > 1,
        f"all {len(found)} items got one and the same vector, so nothing can be found",
    )


def check_deterministic(subject: Subject) -> None:
    """The same items give the same vectors, whatever the random seed."""
    encoder = subject.make()
    items = subject.sample.items
    with RestoredRandomness():
        torch.manual_seed(1)
        first = vectors(encoder, items)
        torch.manual_seed(2)
        second = vectors(encoder, items)
    require(
        same(first, second),
        f"the same items gave vectors {gap(first, second):.3g} apart; "
        "encode in evaluation mode (dropout off) and without sampling",
    )


def check_batch(subject: Subject) -> None:
    """An item has the same vector alone, in a batch and in another order."""
    encoder = subject.make()
    items = subject.sample.items
    together = vectors(encoder, items)
    alone = np.concatenate([vectors(encoder, items[i : i + 1]) for i in range(len(items))])
    turned = vectors(encoder, items[::-1])[::-1]
    worst = max(gap(together, alone), gap(together, turned))
    require(
        same(together, alone, tolerance=TOLERANCE) and same(together, turned, tolerance=TOLERANCE),
        f"an item's vector changes by {worst:.3g} with the batch it is in (allowed: {TOLERANCE:g} "
        "of the largest entry); normalise with stored statistics, and mask the padding",
    )


def check_empty(subject: Subject) -> None:
    """An empty batch gives [0, dim]."""
    encoder = subject.make()
    found = vectors(encoder, [])
    wanted = (0, encoder.dim)
    require(
        found.shape == wanted and found.dtype == np.float32,
        f"encode(preprocess([])) returned {found.dtype} {found.shape}, wanted float32 {wanted}",
    )


def check_inputs(subject: Subject) -> None:
    """Neither ``preprocess`` nor ``encode`` writes to what it is given."""
    encoder = subject.make()
    if isinstance(subject.sample.items[0], str):  # nothing can write to a text
        items = before = list(subject.sample.items)
    else:
        items = [np.array(as_array(item)) for item in subject.sample.items]
        before = [item.copy() for item in items]
    batch = encoder.preprocess(items)
    require(
        all(a is b or same(a, b) for a, b in zip(items, before, strict=True)),
        "preprocess wrote to its items",
    )
    held = [part.copy() for part in parts(batch)]
    encoder.encode(batch)
    require(
        all(same(a, b) for a, b in zip(parts(batch), held, strict=True)),
        "encode wrote to its batch",
    )


def check_gradients(subject: Subject) -> None:
    """``encode`` records no gradients, leaves none behind, and leaves modes as they were."""
    encoder = subject.make()
    switch = getattr(encoder, "train", None)
    if switch is not None:
        switch()
    mode = modes(encoder)
    batch = encoder.preprocess(subject.sample.items)
    with torch.enable_grad():
        found = encoder.encode(batch)
        require(torch.is_grad_enabled(), "encode switched gradients off for the whole process")
    require(
        not (isinstance(found, torch.Tensor) and found.requires_grad),
        "encode returned a tensor that requires gradients; encode under torch.no_grad()",
    )
    held = [p for p in getattr(encoder, "parameters", list)() if p.grad is not None]
    require(not held, f"encode left gradients in {len(held)} parameters")
    require(modes(encoder) == mode, "encode left the encoder in another mode (train or eval)")


def check_random_state(subject: Subject) -> None:
    """Encoding and saving leave the global random generators alone."""
    encoder = subject.make()
    items = subject.sample.items
    for some in (items, items[:1], items[:0]):
        with untouched_generators("preprocess"):
            batch = encoder.preprocess(some)
        with untouched_generators("encode"):
            encoder.encode(batch)
    with tempfile.TemporaryDirectory() as folder, untouched_generators("save"):
        encoder.save(folder)


CHECKS: dict[str, Callable[[Subject], None]] = {
    "protocol": check_protocol,
    "shape": check_shape,
    "dtype": check_dtype,
    "finite": check_finite,
    "distinct": check_distinct,
    "deterministic": check_deterministic,
    "batch": check_batch,
    "empty": check_empty,
    "inputs": check_inputs,
    "gradients": check_gradients,
    "random state": check_random_state,
    "device": check_device,
    "save": check_save,
    "workers": check_workers,
    "threads": check_threads,
}
