"""Makers of files that hold many items each, for the tests of their readers."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

RNG = np.random.default_rng(14)
PICTURES = RNG.integers(0, 256, (12, 9, 8)).astype(np.uint8)
LABELS = np.arange(12) % 3


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, kind, array.ndim]) + sizes + array.tobytes()


def mnist(folder: Path, *, packed: bool = False) -> Path:
    """8 pictures to train on, 4 to test with."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", slice(0, 8)), ("t10k", slice(8, 12))):
        for name, array in (("images-idx3", PICTURES), ("labels-idx1", LABELS.astype(np.uint8))):
            data = idx(array[rows])
            end = ".gz" if packed else ""
            (folder / f"{split}-{name}-ubyte{end}").write_bytes(
                gzip.compress(data, mtime=0) if packed else data
            )
    return folder


def cifar(folder: Path, *, fine: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (6, 3, 32, 32)).astype(np.uint8)
    for name, start in (
        ("train" if fine else "data_batch_1", 0),
        ("test" if fine else "test_batch", 3),
    ):
        records = b""
        for i in range(start, start + 3):
            records += bytes([1 - i % 2] if fine else []) + bytes([i % 3]) + pixels[i].tobytes()
        (folder / f"{name}.bin").write_bytes(records)
    names = "fine_label_names.txt" if fine else "batches.meta.txt"
    (folder / names).write_text("cat\ndog\nfox\n\n")
    if fine:
        (folder / "coarse_label_names.txt").write_text("tame\nwild\n")
    np.save(folder / "pixels", pixels)
    return folder


def png(i: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PICTURES[i]).save(buffer, "PNG")
    return buffer.getvalue()


def shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def shards(folder: Path) -> Path:
    for split, rows in (("train", range(8)), ("val", range(8, 12))):
        members: dict[str, bytes] = {}
        for i in rows:
            members[f"{i:04}.png"] = png(i)
            members[f"{i:04}.cls"] = f"{LABELS[i]}\n".encode()
            members[f"{i:04}.txt"] = f"picture {i}".encode()
            members[f"{i:04}.json"] = json.dumps({"camera": f"c{i % 2}", "label": "x"}).encode()
        shard(folder / f"set-{split}-000.tar", members)
    return folder


def parquet(folder: Path, rows: range = range(12), name: str = "train-00000-of-00001") -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    features = {
        "image": {"_type": "Image"},
        "label": {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"},
    }
    table = pa.table(
        {
            "image": [{"bytes": png(i), "path": f"{i}.png"} for i in rows],
            "label": pa.array([int(LABELS[i]) for i in rows], pa.int64()),
            "width": [8 for _ in rows],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, folder / f"{name}.parquet", row_group_size=5)
    return folder


def keras(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mnist.npz"
    np.savez_compressed(
        path,
        x_train=PICTURES[:8],
        y_train=LABELS[:8, None],
        x_test=PICTURES[8:],
        y_test=LABELS[8:, None],
    )
    return path


def two_parquets(folder: Path) -> Path:
    return parquet(parquet(folder, range(8)), range(8, 12), "test-00000-of-00001")


MAKERS: dict[str, Callable[[Path], Path]] = {
    "idx": mnist,
    "packed idx": lambda folder: mnist(folder, packed=True),
    "tar": shards,
    "parquet": two_parquets,
    "npz": keras,
}


def grey(item: Any) -> np.ndarray:
    return np.asarray(item)
