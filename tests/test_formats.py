"""Vectors in the files of others come back as they were, or with an error that says where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
from fastretrieve._files.formats import read_vectors, write_vectors
from fastretrieve._files.tensorfile import StorageError

WHOLE = np.arange(60).reshape(12, 5)
KINDS = {"npy": np.int64, "fvecs": np.float32, "bvecs": np.uint8, "ivecs": np.int32}


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_what_was_written(kind: str, mmap: bool, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    write_vectors(path, WHOLE)
    found = read_vectors(path, mmap=mmap)
    assert found.dtype == KINDS[kind]
    np.testing.assert_array_equal(found, WHOLE)
    index = fr.Index(5)
    index.add(found)
    np.testing.assert_array_equal(index.get(np.arange(12)), WHOLE)


def test_the_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.bvecs", [[1, 255]])
    assert (tmp_path / "a.bvecs").read_bytes() == b"\x02\0\0\0\x01\xff"
    write_vectors(tmp_path / "a.fvecs", [[1.0], [-2.0]])
    assert (tmp_path / "a.fvecs").read_bytes().hex() == "010000000000803f01000000000000c0"


def test_no_vectors_are_no_bytes(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.fvecs", np.zeros((0, 7)))
    assert (tmp_path / "a.fvecs").read_bytes() == b""
    assert len(read_vectors(tmp_path / "a.fvecs")) == 0


def test_tensors_can_be_written(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    write_vectors(tmp_path / "a.npy", torch.eye(3, requires_grad=True))
    np.testing.assert_array_equal(read_vectors(tmp_path / "a.npy"), np.eye(3))


WRONG = {
    "cut in a vector": ("fvecs", bytes.fromhex("0200000000000000000000000200"), "at byte 12: "),
    "cut in the dimension": ("ivecs", b"\1\0", "at byte 0: expected 4 bytes"),
    "no dimension": ("fvecs", bytes(8), "at byte 0: expected a dimension of at least 1, found 0"),
    "a negative dimension": ("bvecs", b"\xff" * 8, "found -1"),
    "a huge dimension": ("fvecs", b"\xff\xff\xff\x7f" + bytes(8), "at byte 0: .* end of the file"),
    "two dimensions": ("bvecs", b"\1\0\0\0\7\2\0\0\0\7", "at byte 5: expected the dimension 1"),
    "no array": ("npy", b"hello", "expected an array in NumPy's format"),
    "nothing": ("npy", b"", "expected an array in NumPy's format"),
    "a pickle": ("npy", b"\x80\x04N.", "expected an array in NumPy's format"),
}


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_wrong_says_where(name: str, mmap: bool, tmp_path: Path) -> None:
    kind, content, message = WRONG[name]
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=message) as raised:
        read_vectors(path, mmap=mmap)
    assert str(path) in str(raised.value)


def test_arrays_of_objects_and_of_one_dimension_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(StorageError, match="Object arrays"):
        read_vectors(tmp_path / "a.npy", mmap=False)
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(StorageError, match=r"two dimensions, found \(3,\)"):
        read_vectors(tmp_path / "b.npy")
    with pytest.raises(TypeError, match="must be numbers"):
        write_vectors(tmp_path / "c.npy", np.array([[{}]]))


CANNOT: dict[str, tuple[str, Any, str]] = {
    "a fraction as an integer": ("ivecs", [[0.5]], "int32, which cannot represent all"),
    "more than a byte": ("bvecs", [[256]], "uint8, which cannot represent all"),
    "more than float32": ("fvecs", [[1e300]], "float32, which cannot represent all"),
    "one vector": ("fvecs", [1.0], r"two dimensions, got shape \(1,\)"),
    "an unknown name": ("csv", [[1.0]], "must end with one of .npy, .fvecs, .bvecs, .ivecs"),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_a_format_cannot_hold_is_refused(name: str, tmp_path: Path) -> None:
    kind, vectors, message = CANNOT[name]
    with pytest.raises(ValueError, match=message):
        write_vectors(tmp_path / f"a.{kind}", vectors)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ids", [None, np.array([5, 3, 8, 1, 0, 2, 9, 11, 20, 21, 22, 23])])
@pytest.mark.parametrize("metric", ["ip", "sqeuclidean"])
def test_flat_faiss_indexes_there_and_back(metric: Any, ids: np.ndarray | None) -> None:
    pytest.importorskip("faiss")
    index = fr.Index(5, metric=metric)
    index.add(WHOLE, ids=ids)
    flat = index.to_faiss()
    assert flat.ntotal == 12
    assert flat.search(WHOLE[:3].astype(np.float32), 1)[1].ravel().tolist() == (
        index.search(WHOLE[:3], 1).ids.ravel().tolist()
    )
    back = fr.Index.from_faiss(flat)
    assert back.metric == metric
    np.testing.assert_array_equal(back.ids, index.ids)
    np.testing.assert_array_equal(back.get(back.ids), index.get(index.ids))


def test_other_faiss_indexes_are_refused() -> None:
    faiss = pytest.importorskip("faiss")
    with pytest.raises(TypeError, match="got IndexHNSWFlat"):
        fr.Index.from_faiss(faiss.IndexHNSWFlat(8, 16))
    with pytest.raises(ValueError, match="FAISS has no cosine"):
        fr.Index(8).to_faiss()
