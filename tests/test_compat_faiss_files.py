"""FAISS's files: what either writes the other reads, byte for byte; damaged ones are refused."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fastretrieve.compat import faiss as ours

KINDS = ("IndexFlatL2", "IndexFlatIP", "IndexIDMap", "IndexIDMap2")


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(61).integers(-50, 50, (70, 5)).astype(np.float32)


def made(faiss: ModuleType, kind: str, rows: np.ndarray) -> Any:
    if kind.startswith("IndexFlat"):
        index = getattr(faiss, kind)(rows.shape[1])
        index.add(rows)
        return index
    index = getattr(faiss, kind)(faiss.IndexFlatIP(rows.shape[1]))
    index.add_with_ids(rows, np.arange(len(rows))[::-1] * 3)
    return index


def same(one: Any, other: Any, queries: np.ndarray) -> None:
    assert type(one).__name__ == type(other).__name__
    assert (one.d, one.ntotal, one.metric_type) == (other.d, other.ntotal, other.metric_type)
    for mine, theirs in zip(one.search(queries, 3), other.search(queries, 3), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("n", [0, 1, 70])
@pytest.mark.parametrize("kind", KINDS)
def test_written_and_read(
    faiss: ModuleType, kind: str, n: int, rows: np.ndarray, tmp_path: Path
) -> None:
    index = made(faiss, kind, rows[:n])
    faiss.write_index(index, str(tmp_path / "a"))
    same(faiss.read_index(str(tmp_path / "a")), index, rows[:4])
    same(faiss.read_index(str(tmp_path / "a"), faiss.IO_FLAG_READ_ONLY), index, rows[:4])
    data = faiss.serialize_index(index)
    assert data.dtype == np.uint8
    assert data.tobytes() == (tmp_path / "a").read_bytes()
    same(faiss.deserialize_index(data), index, rows[:4])


@pytest.mark.parametrize("n", [0, 70])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_are_those_of_faiss(kind: str, n: int, rows: np.ndarray) -> None:
    theirs = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    data = ours.serialize_index(made(ours, kind, rows[:n]))
    assert data.tobytes() == theirs.serialize_index(made(theirs, kind, rows[:n])).tobytes()
    same(ours.deserialize_index(data), theirs.deserialize_index(data), rows[:4])


def test_nothing_else_is_read(faiss: ModuleType, rows: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"not an index, but long enough to hold the header of one")
    with pytest.raises(RuntimeError):
        faiss.read_index(str(tmp_path / "a"))
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(RuntimeError):
        faiss.read_index(str(tmp_path / "a"))


def outcome(data: np.ndarray) -> str:
    try:
        index = ours.deserialize_index(data)
    except RuntimeError as error:
        return str(error)
    except ValueError as error:  # a number of a vector, which is not finite
        return str(error)
    if index.d < 1000:
        index.search(np.zeros((2, index.d), np.float32), 3)
    return "an index"


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_of_a_file_may_be_wrong(kind: str, rows: np.ndarray) -> None:
    data = ours.serialize_index(made(ours, kind, rows[:3, :2]))
    refused = 0
    for at in range(len(data)):
        assert outcome(data[:at]).startswith("at byte ")
        for bits in (0xFF, 0x80, 0x01):
            damaged = data.copy()
            damaged[at] ^= bits
            refused += outcome(damaged).startswith("at byte ")
    assert refused > 50
    assert outcome(np.append(data, np.uint8(0))).endswith("found 1 more bytes")


def test_errors_name_the_file_and_the_byte(rows: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "short"
    ours.write_index(made(ours, "IndexFlatL2", rows), path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RuntimeError, match=r"short: at byte 45: expected 1400 bytes of numbers"):
        ours.read_index(path)
    with pytest.raises(RuntimeError, match=r"at byte 0: expected a flat index .* found b'IwPQ'"):
        ours.deserialize_index(np.frombuffer(b"IwPQ" + bytes(60), np.uint8))
    with pytest.raises(TypeError, match="data must be uint8"):
        ours.deserialize_index(np.zeros(60))
