"""CIFAR-10 and CIFAR-100 in their binary form: records of labels and 3 x 32 x 32 bytes.

The pickled "python version" is refused: a pickle is a program.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numpy as np

from fastretrieve.data.errors import DataError
from fastretrieve.data.opening import open_file
from fastretrieve.data.parts import Rows, Volume

NAME = re.compile(r"(data_batch_\d+|test_batch|train|test)\.bin")
_PICKLED = re.compile(r"data_batch_\d+|test_batch|batches\.meta|train|test|meta")
_PIXELS = 3 * 32 * 32
_MAX_NAMES = 1 << 16  # bytes of a file of class names


def is_cifar(name: str) -> bool:
    """Whether a file is called as those of CIFAR are."""
    return NAME.fullmatch(name) is not None


def is_pickled(path: Path) -> bool:
    """Whether it is a file of the python version: its name, and the first byte of a pickle."""
    if not _PICKLED.fullmatch(path.name) or not path.is_file():
        return False
    with contextlib.closing(open_file(path)) as file:
        return file.read(1) == b"\x80"


def refuse_pickled(path: Path) -> DataError:
    return DataError(
        f"{path} is a pickle of CIFAR's python version, and nothing is unpickled; download the "
        "binary version (cifar-10-binary.tar.gz, cifar-100-binary.tar.gz) and unpack it"
    )


def open_cifar(path: Path) -> Volume:
    """One file of records: CIFAR-10 has one label each, CIFAR-100 a coarse and a fine one."""
    n_labels = 2 if path.name in ("train.bin", "test.bin") else 1
    size = n_labels + _PIXELS
    n_bytes = path.stat().st_size
    if n_bytes == 0 or n_bytes % size:
        name = "CIFAR-10" if n_labels == 1 else "CIFAR-100"
        raise DataError(
            f"{path} has {n_bytes:,} bytes, no multiple of the {size:,} that a picture of {name} "
            "has; it is cut off, or another file"
        )
    record = np.dtype([("labels", "u1", (n_labels,)), ("pixels", "u1", (3, 32, 32))])
    with contextlib.closing(open_file(path)) as file:
        records = np.memmap(file, record, "r", 0, (n_bytes // size,))
    labels = np.array(records["labels"])
    coarse, fine = labels[:, 0].tolist(), labels[:, -1].tolist()
    volume = Volume(Rows(path, records["pixels"].transpose(0, 2, 3, 1)), fine)
    if n_labels == 1:
        volume.classes = _names(path.with_name("batches.meta.txt"), fine)
    else:
        volume.classes = _names(path.with_name("fine_label_names.txt"), fine)
        names = _names(path.with_name("coarse_label_names.txt"), coarse)
        volume.columns["coarse"] = [names[i] for i in coarse] if names else coarse
    return volume


def _names(path: Path, labels: list[int]) -> list[str] | None:
    """The names of the classes, one a line, if they are there."""
    if not path.is_file():
        return None
    with contextlib.closing(open_file(path)) as file:
        text = file.read(_MAX_NAMES).decode("utf-8", "replace")
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if max(labels) >= len(names):
        raise DataError(f"label {max(labels)} has no name: {path} holds {len(names)}")
    return names
