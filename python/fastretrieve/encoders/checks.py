"""What every encoder must do: one function a promise of ``protocol.Encoder``.

A check takes a ``Subject`` and raises ``CheckFailed`` with what was wanted, what came and what to
do. The promises of optional capabilities are in ``capability_checks.py``; ``fastretrieve.testing``
runs them all.
"""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastretrieve.encoders import files, registry
from fastretrieve.encoders.check_tools import (
    TOLERANCE,
    CheckFailed,
    RestoredRandomness,
    Subject,
    as_array,
    gap,
    held_tensors,
    modes,
    parts,
    random_states,
    require,
    same,
    vectors,
)

_PICKLES = ("*.pt", "*.pth", "*.pkl", "*.pickle", "*.bin", "*.ckpt", "*.npy")


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
    items = [np.array(as_array(item)) for item in subject.sample.items]
    before = [item.copy() for item in items]
    batch = encoder.preprocess(items)
    require(
        all(same(a, b) for a, b in zip(items, before, strict=True)), "preprocess wrote to its items"
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
    """Encoding, saving and loading leave the global random generators alone."""
    encoder = subject.make()
    with RestoredRandomness(), tempfile.TemporaryDirectory() as folder:
        before = random_states()
        vectors(encoder, subject.sample.items)
        encoder.save(folder)
        after = random_states()
    changed = [name for name, state in before.items() if after[name] != state]
    require(
        not changed,
        f"the global random state of {', '.join(changed)} changed; use a generator of your own, "
        "or fastretrieve.encoders.base.seeded",
    )


def check_device(subject: Subject) -> None:
    """``to`` returns the encoder and takes every tensor along."""
    encoder = subject.make()
    items = subject.sample.items
    here = vectors(encoder, items)
    moved = encoder.to("cpu")
    require(
        hasattr(moved, "encode"), f"to(device) returned {type(moved).__name__}, not the encoder"
    )
    require(same(here, vectors(moved, items)), "to('cpu') changed the vectors")
    if isinstance(encoder, torch.nn.Module):
        left = [
            name
            for name, tensor in held_tensors(encoder.to("meta"))
            if tensor.device.type != "meta"
        ]
        require(
            not left,
            f"to(device) left {', '.join(left)} behind; register tensors as buffers or parameters",
        )
    if torch.cuda.is_available():
        there = subject.make().to("cuda")
        on_gpu = vectors(there, items)
        require(
            same(here, on_gpu, tolerance=1e-2),
            f"vectors on cuda differ from those on the CPU by {gap(here, on_gpu):.3g}",
        )
        require(same(here, vectors(there.to("cpu"), items)), "cuda and back changed the vectors")


def check_save(subject: Subject) -> None:
    """``save`` then ``load`` gives an encoder with the same vectors, from JSON and safetensors."""
    encoder = subject.make()
    items = subject.sample.items
    expected = vectors(encoder, items)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder.save(folder / "encoder")
        encoder.save(folder / "encoder")  # saving again replaces
        _check_files(folder / "encoder", encoder)
        copy = subject.load(folder / "encoder")
        found = vectors(copy, items)
        for attribute in ("name", "dim", "modality", "capabilities"):
            before, after = getattr(encoder, attribute), getattr(copy, attribute)
            require(before == after, f"{attribute} was {before!r} and came back as {after!r}")
        require(same(expected, found), "the loaded encoder gives other vectors than the saved one")
        for state in (True, False) if hasattr(encoder, "is_trained") else ():
            encoder.is_trained = state
            encoder.save(folder / "state")
            back = subject.load(folder / "state").is_trained
            require(back is state, f"is_trained was saved as {state} and came back as {back}")


def check_workers(subject: Subject) -> None:
    """A worker process gives the same batch and the same vectors."""
    encoder = subject.make()
    try:
        packed = pickle.dumps((encoder, subject.sample.items))
    except Exception as error:
        raise CheckFailed(
            f"the encoder cannot be sent to a worker process: {error}; define its class at the top "
            "of a module, and hold no locks, lambdas or open files"
        ) from error
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        batch, found = pool.submit(_encode_packed, packed).result()
    here = parts(encoder.preprocess(subject.sample.items))
    require(
        len(batch) == len(here) and all(same(a, b) for a, b in zip(here, batch, strict=True)),
        "preprocess gives another batch in a worker process",
    )
    expected = vectors(encoder, subject.sample.items)
    require(
        same(expected, found, tolerance=TOLERANCE),
        "encode gives other vectors in a worker process; keep no state outside the encoder",
    )


def check_threads(subject: Subject) -> None:
    """Threads that share an encoder get the vectors that one alone gets."""
    encoder = subject.make()
    if hasattr(encoder, "eval"):
        encoder.eval()
    items = subject.sample.items
    cuts = [items[i:] for i in range(min(8, len(items)))]
    expected = [vectors(encoder, cut) for cut in cuts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda cut: vectors(encoder, cut), cuts))
    require(
        all(same(a, b, tolerance=TOLERANCE) for a, b in zip(expected, found, strict=True)),
        "threads that share the encoder get other vectors; keep intermediate results in locals",
    )


def _encode_packed(packed: bytes) -> tuple[list[NDArray[Any]], NDArray[np.float32]]:
    encoder, items = pickle.loads(packed)  # made by this test a moment ago
    return parts(encoder.preprocess(items)), vectors(encoder, items)


def _check_files(folder: Path, encoder: Any) -> None:
    for name in (files.CONFIG, files.WEIGHTS):
        require((folder / name).is_file(), f"save wrote no {name}; use files.write_encoder")
    pickled = [path.name for pattern in _PICKLES for path in folder.rglob(pattern)]
    require(not pickled, f"save wrote {pickled}; only JSON and safetensors may hold an encoder")
    try:
        header = json.loads((folder / files.CONFIG).read_text("utf-8"))
        weights = (folder / files.WEIGHTS).read_bytes()
        size = int.from_bytes(weights[:8], "little")
        json.loads(weights[8 : 8 + size])
    except ValueError as error:
        raise CheckFailed(
            f"{files.CONFIG} must be JSON and {files.WEIGHTS} safetensors: {error}"
        ) from error
    recorded = header.get("encoder") if isinstance(header, dict) else None
    require(
        recorded == encoder.name,
        f"{files.CONFIG} names encoder {recorded!r} instead of {encoder.name!r}, so load_encoder "
        "cannot find it; use files.write_encoder",
    )


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
