"""The checks of encoders that travel: to a device, to disk, to processes and threads."""

from __future__ import annotations

import json
import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from fastretrieve.encoders.checking.tools import (
    TOLERANCE,
    CheckFailed,
    Subject,
    gap,
    held_tensors,
    parts,
    require,
    same,
    vectors,
)
from fastretrieve.encoders.checking.worker import encoded_elsewhere
from fastretrieve.encoders.saved import files

_PICKLES = ("*.pt", "*.pth", "*.pkl", "*.pickle", "*.bin", "*.ckpt", "*.npy")


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
    batch, found = encoded_elsewhere(packed)
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
