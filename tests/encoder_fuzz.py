"""Damages saved encoders in many ways: what the fuzz test of the suite and ``tests/fuzz`` share.

A damaged directory must load as an encoder that encodes, or raise EncoderError; nothing else may
happen, no more time be taken than a second a megabyte, and no more memory than ten times the files
and 256 MiB. The checksum of the weights is made to fit in most cases, so that what lies behind it
is reached.
"""

from __future__ import annotations

import hashlib
import json
import random
import resource
import shutil
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import storage_fuzz
from fastretrieve.encoders import EncoderError, create_encoder, load_encoder
from fastretrieve.encoders.saved.files import CONFIG, WEIGHTS
from fastretrieve.encoders.saved.opening import brief
from storage_fuzz import WORDS, some_place

KINDS: dict[str, dict[str, Any]] = {
    "pixels": {"image_size": 4},
    "cnn": {"dim": 4, "image_size": 8, "channels": 1, "width": 2},
    "autoencoder": {"dim": 4, "image_size": 8, "channels": 1, "width": 2},
    "vae": {"dim": 4, "image_size": 8, "channels": 1, "width": 2},
    "gan": {"dim": 4, "image_size": 8, "channels": 1, "width": 2, "latent": 2},
    "autoregressive": {"dim": 4, "image_size": 8, "channels": 1, "width": 2, "blocks": 2},
    "rnn": {"dim": 4, "n_features": 2, "hidden": 4},
}
STRINGS = ("", "x", "./x.py:X", "module:os.system", "module", "cnn", "timm/x", "\ud800", "é" * 99)
SPARE_BYTES = 256 << 20
Files = dict[str, bytes]


class Cost(NamedTuple):
    """What a file took."""

    seconds: float  # of processors
    n_bytes: int  # by which the process grew beyond its largest size before


def seeds(folder: Path) -> list[Files]:
    """A whole directory of every encoder."""
    made = []
    for name, config in KINDS.items():
        create_encoder(name, **config).save(folder / name)
        made.append(files_of(folder / name))
    images = np.random.default_rng(0).integers(0, 255, (9, 4, 4)).astype(np.uint8)
    pca = create_encoder("pixels", image_size=4, channels=1, dim=3)
    pca.fit([pca.preprocess(images)]).save(folder / "pca")  # type: ignore[attr-defined]
    labelled = create_encoder("cnn", **KINDS["cnn"])
    labelled.set_classes(["a", "b"])  # type: ignore[attr-defined]
    labelled.save(folder / "labelled")
    return [*made, files_of(folder / "pca"), files_of(folder / "labelled")]


def files_of(folder: Path) -> Files:
    return {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def write(files: Files, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def pack(files: Files, path: Path) -> None:
    """Keep a directory as one file, which no tool takes for a text to mend."""
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def unpack(path: Path) -> Files:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in (CONFIG, WEIGHTS)}


def damaged(files: Files, chance: random.Random) -> Files:
    """The directory with one to three things wrong."""
    files = dict(files)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        way = chance.choice((_option, _option, _option, _config_value, _config_text, _weights))
        way(files, chance)
    return fitted(files) if chance.random() < 0.9 else files


def _config_value(files: Files, chance: random.Random) -> None:
    """Another value of any kind somewhere in the config."""
    try:
        header = json.loads(files[CONFIG])
        place, key = some_place(header, chance)
        values = (None, -1, True, 0.5, 1e308, [], {}, [[]], [1, 2], 10**12, *WORDS, *STRINGS)
        if chance.random() < 0.1:
            del place[key]
        elif chance.random() < 0.1 and isinstance(place, dict):
            place[chance.choice(("more", "dim", "classes"))] = chance.choice(values)
        else:
            place[key] = chance.choice(values)
        files[CONFIG] = json.dumps(header).encode()
    except (ValueError, AttributeError, RecursionError):
        return


def _option(files: Files, chance: random.Random) -> None:
    """Another value of an option, mostly of its kind."""
    try:
        header = json.loads(files[CONFIG])
        options = header["config"]
        name = chance.choice([*options, "dim"])
        is_number = type(options.get(name)) is int and chance.random() < 0.8
        numbers = (0, 2, 3, 5, 8, 31, 33, 100, 512, 1000, 3000, 10**4, 10**5, *WORDS)
        options[name] = chance.choice(numbers if is_number else (*STRINGS, *numbers, None, [8, 9]))
        files[CONFIG] = json.dumps(header).encode()
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return


def _config_text(files: Files, chance: random.Random) -> None:
    """Another text: other bytes, cut, grown, nested without end."""
    text = files[CONFIG]
    at = chance.randint(0, len(text))
    ways = (
        lambda: text[:at],
        lambda: text[:at] + chance.randbytes(chance.randint(1, 8)) + text[at + 1 :],
        lambda: text[:at] + b"[" * 10 ** chance.randint(1, 5) + text[at:],
        lambda: text.replace(b": 1,", b": " + b"9" * 10 ** chance.randint(1, 4) + b",", 1),
        lambda: text.replace(b": 1,", b": NaN,", 1),
        lambda: text[:1] + text[1:].lstrip()[:at] + text[1:],
    )
    files[CONFIG] = chance.choice(ways)()


def _weights(files: Files, chance: random.Random) -> None:
    files[WEIGHTS] = storage_fuzz.damaged(files[WEIGHTS], chance)


def fitted(files: Files) -> Files:
    """The directory with a config whose checksum of the weights is right, where it has one."""
    try:
        header = json.loads(files[CONFIG])
        if "weights_sha256" in header:
            header["weights_sha256"] = hashlib.sha256(files[WEIGHTS]).hexdigest()
            return {**files, CONFIG: json.dumps(header).encode()}
    except (ValueError, TypeError, RecursionError):
        pass
    return files


def survives(files: Files, folder: Path) -> tuple[str, Cost]:
    """Load the directory and encode with what comes: ``loaded``, or the error with which it was
    refused, and what it cost. Any other error is raised.
    """
    write(files, folder)
    before, began = _largest(), time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outcome = _used(folder)
    except EncoderError as error:
        outcome = str(error).replace(str(folder), "FOLDER")
        if isinstance(error.__cause__, MemoryError):
            raise AssertionError(f"it asked for all memory: {outcome}") from error
    return outcome, Cost(time.process_time() - began, _largest() - before)


def _used(folder: Path) -> str:
    encoder = load_encoder(folder)
    if encoder.modality == "sequence":
        n_features = getattr(encoder, "n_features", 1)
        items: list[Any] = [np.zeros((3, min(n_features, 4096)), np.float32)]
    else:
        items = [np.zeros((5, 7), np.uint8)]
    try:
        found = encoder.encode(encoder.preprocess(items))
    except EncoderError as error:
        return f"loaded, but {brief(error)}"
    if tuple(found.shape) != (1, encoder.dim):
        raise AssertionError(f"shape {tuple(found.shape)} from an encoder of dim {encoder.dim}")
    return "loaded"


def excess(files: Files, cost: Cost) -> str:
    """What is too much of it, or ""."""
    n_bytes = sum(map(len, files.values()))
    if cost.seconds > 2 + n_bytes / 1e6:
        return f"{cost.seconds:.1f} s for {n_bytes} bytes"
    if cost.n_bytes > SPARE_BYTES + 10 * n_bytes:
        return f"{cost.n_bytes >> 20} MiB of memory for {n_bytes} bytes"
    return ""


def _largest() -> int:
    """The largest size that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory() -> None:
    """No more memory from here on than a small file may take."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 2 * SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
