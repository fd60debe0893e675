"""aeon's sequence sets (``.ts`` files), read without importing aeon.

A file is lines of facts (``@dimensions 12``), ``@data``, then an item a line: its features divided
by colons, each a list of numbers divided by commas, and its label at the end.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from encoders_data import Labelled

MOST_BYTES = 256 << 20


class Part(NamedTuple):
    """What one file holds."""

    items: list[NDArray[np.float32]]  # [t, n_features] each, NaN where a value is missing
    labels: list[str]


def data_folder(given: Path | None) -> Path:
    """The folder with a folder for each set: as given, or of the installed package aeon."""
    if given is not None:
        return given
    found = importlib.util.find_spec("aeon")  # imports nothing
    if found is None or not found.submodule_search_locations:
        raise SystemExit(
            "the sequence sets are part of the package aeon, which is not installed; pip install "
            "aeon, or unpack its wheel and give --data .../aeon/datasets/data"
        )
    return Path(found.submodule_search_locations[0]) / "datasets" / "data"


def sequence_set(folder: Path, name: str) -> Labelled:
    """The training items of a set, and its test items as queries."""
    parts = [read_ts(folder / name / f"{name}_{part}.ts") for part in ("TRAIN", "TEST")]
    names = sorted({label for part in parts for label in part.labels})
    numbers = [np.array([names.index(label) for label in part.labels]) for part in parts]
    return Labelled(parts[0].items, numbers[0], parts[1].items, numbers[1])


def read_ts(path: Path) -> Part:
    """Read a ``.ts`` file; a ``ValueError`` names the line that is not as its facts say."""
    n_bytes = path.stat().st_size
    if n_bytes > MOST_BYTES:
        raise ValueError(
            f"{path} has {n_bytes:,} bytes, more than the {MOST_BYTES:,} that are read"
        )
    facts: dict[str, str] = {}
    items, labels = [], []
    with path.open(encoding="utf-8") as lines:
        for number, line in _meaningful(enumerate(lines, 1)):
            if line.startswith("@"):
                key, _, value = line[1:].partition(" ")
                facts[key.lower()] = value.strip()
                continue
            try:
                item, label = _item(line, facts)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            items.append(item)
            labels.append(label)
    return Part(items, labels)


def _meaningful(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Lines without comments and empty ones."""
    stripped = ((number, line.strip()) for number, line in lines)
    return ((number, line) for number, line in stripped if line and not line.startswith("#"))


def _item(line: str, facts: dict[str, str]) -> tuple[NDArray[np.float32], str]:
    if "data" not in facts:
        raise ValueError("an item before @data")
    if facts.get("timestamps", "false") != "false":
        raise ValueError("@timeStamps true: items with times are not read")
    *features, label = line.split(":")
    wanted = int(facts.get("dimensions", 1 if facts.get("univariate") == "true" else len(features)))
    if len(features) != wanted or not label:
        raise ValueError(f"{len(features)} features and label {label!r}, wanted {wanted} and one")
    rows = [feature.replace("?", "nan").split(",") for feature in features]
    if len({len(row) for row in rows}) != 1:
        raise ValueError(f"its features have lengths {[len(row) for row in rows]}, wanted equal")
    length = facts.get("serieslength")
    if length and facts.get("equallength") == "true" and len(rows[0]) != int(length):
        raise ValueError(f"{len(rows[0])} steps, @seriesLength says {length}")
    return np.array(rows, np.float32).T.copy(), label.strip()


def resampled_values(items: list[NDArray[np.float32]], steps: int) -> NDArray[np.float32]:
    """Each item interpolated linearly at ``steps`` places, its values as they are: [n, values]."""
    rows = [
        F.interpolate(torch.from_numpy(item.T)[None], size=steps, mode="linear").flatten()
        for item in items
    ]
    return torch.stack(rows).numpy()
