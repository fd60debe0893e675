"""Facts about files that are no gallery: an index file, a saved encoder."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import fastretrieve as fr
from fastretrieve._files.indexfile import FORMAT
from fastretrieve._files.tensorfile import read_header
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.saved.files import WEIGHTS, read_encoder
from fastretrieve.encoders.saved.opening import printable


def index_file(path: Path, *, check: bool = False) -> dict[str, Any]:
    """What a file of ``Index.save`` holds; with ``check``, what is wrong with its bytes."""
    n_bytes = path.stat().st_size
    with path.open("rb") as file:
        buffer: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if n_bytes else b""
    try:
        header = read_header(buffer)
        index = fr.Index.load(path)
    except fr.StorageError as error:
        raise fr.StorageError(f"{path} is no index file that can be read: {error}") from None
    ids = index.ids
    facts = {
        "path": str(path),
        "kind": FORMAT,
        "rows": len(index),
        "dim": index.dim,
        "metric": index.metric,
        "dtype": index.dtype,
        "ids": f"{ids.min()} to {ids.max()}" if len(ids) else "none",
        "next_id": int(header.metadata["next_id"]),
        "codes": header.metadata.get("codes", "none: computed when it is loaded"),
        "optimized_rows": int(index.stats()["optimized_rows"]),
        "bytes": n_bytes,
        "format_version": int(header.metadata["version"]),
    }
    if check:
        facts["faults"] = []
        try:
            fr.Index.load(path, verify="codes")
        except fr.StorageError as error:
            facts["faults"] = [str(error)]
    return facts


def saved_encoder(path: Path, *, check: bool = False) -> dict[str, Any]:
    """What the directory of a saved encoder says of itself. Its checksum is always compared."""
    try:
        saved = read_encoder(path)
    except EncoderError as error:
        if not check:
            raise
        return {"path": str(path), "kind": "encoder", "faults": [str(error)]}
    facts = {
        "path": str(path),
        "kind": "encoder",
        "encoder": printable(saved.encoder),
        "from": printable(saved.provider) or "unknown",
        "trained": saved.trained,
        "options": [_option(name, value) for name, value in saved.config.items()],
        "weights_bytes": (path / WEIGHTS).stat().st_size,
        "weights_sha256": saved.weights_sha256,
    }
    return {**facts, "faults": saved.faults()} if check else facts


def _option(name: str, value: Any) -> str:
    try:
        return printable(f"{name}={value}")
    except RecursionError:
        return f"{printable(name)}=..."
