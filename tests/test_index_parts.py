"""Optional tensors of index files, and what is learned about all rows of a state.

No part is registered yet; these tests register one, ``axes``, and one with an entry for each row.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
import storage_fuzz
from fastretrieve._files import parts
from fastretrieve._files.parts import PARTS, Part
from fastretrieve._state.learned import frozen
from fastretrieve._state.state import State

DIM = 5
AXES = np.arange(2 * DIM, dtype=np.float32).reshape(2, DIM)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "axes", Part("F32", ("axes", "dim"), version=2))
    monkeypatch.setitem(PARTS, "leaf_of", Part("I32", ("rows",), version=3))


def learn(index: fr.Index, **arrays: np.ndarray) -> fr.Index:
    old = index._state
    index._state = State(old.form, old.segments, old.id_map, old.next_id, frozen(arrays))
    return index


def made(n: int = 200, **options: Any) -> fr.Index:
    index = fr.Index(DIM, metric="l2", **options)
    index.add(np.random.default_rng(n).standard_normal((n, DIM)), ids=np.arange(n) * 3)
    return learn(index, axes=AXES, leaf_of=np.arange(n, dtype=np.int32) % 7)


def assert_learned(index: fr.Index, n: int = 200) -> None:
    learned = index._state.learned
    assert list(learned) == ["axes", "leaf_of"]
    assert learned["axes"].dtype == np.float32
    np.testing.assert_array_equal(learned["axes"], AXES)
    np.testing.assert_array_equal(learned["leaf_of"], np.arange(n, dtype=np.int32) % 7)
    assert not any(array.flags.writeable for array in learned.values())


def version(path: Path) -> str:
    header, _ = storage_fuzz.parts(path.read_bytes())
    return str(header["__metadata__"]["version"])


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("codes", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("n", [0, 1, 200])
def test_parts_come_back_from_a_file(
    n: int, dtype: str, codes: bool, mmap: bool, tmp_path: Path
) -> None:
    index = made(n, dtype=dtype)
    index.save(tmp_path / "a", codes=codes)
    loaded = fr.Index.load(tmp_path / "a", mmap=mmap, verify="codes")
    assert_learned(loaded, n)
    np.testing.assert_array_equal(loaded.ids, index.ids)
    loaded.save(tmp_path / "b", codes=codes)
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert version(tmp_path / "a") == "3"


def test_a_pickle_holds_parts() -> None:
    assert_learned(pickle.loads(pickle.dumps(made())))


def test_without_parts_a_file_has_version_1(tmp_path: Path) -> None:
    learn(made()).save(tmp_path / "a")
    assert version(tmp_path / "a") == "1"
    learn(made(), axes=AXES).save(tmp_path / "a")
    assert version(tmp_path / "a") == "2"


def test_mapped_parts_stay_in_the_file(tmp_path: Path) -> None:
    made().save(tmp_path / "a")
    loaded = fr.Index.load(tmp_path / "a")
    assert not loaded._state.learned["axes"].flags.owndata
    assert loaded.nbytes == learn(loaded).nbytes + AXES.nbytes + 4 * 200


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("name", ["axes", "leaf_of"])
def test_verify_finds_a_damaged_part(name: str, mmap: bool, tmp_path: Path) -> None:
    path = tmp_path / "a"
    made().save(path)
    blob = bytearray(path.read_bytes())
    header, _ = storage_fuzz.parts(bytes(blob))
    at = 8 + int.from_bytes(blob[:8], "little") + header[name]["data_offsets"][0]
    blob[at + 5] ^= 1
    path.write_bytes(blob)
    fr.Index.load(path, mmap=mmap)
    with pytest.raises(fr.StorageError, match=f"at byte {at}: .* of {name} with the checksum"):
        fr.Index.load(path, mmap=mmap, verify=True)


# --- readers that do not know a part --------------------------------------------------------------


def test_an_older_reader_names_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made().save(tmp_path / "a")
    monkeypatch.delitem(PARTS, "leaf_of")
    message = "version 3 of the format, with the part 'leaf_of', and .* reads up to 2; load it with"
    with pytest.raises(fr.StorageError, match=message):
        fr.Index.load(tmp_path / "a")
    monkeypatch.delitem(PARTS, "axes")
    message = "version 3 of the format, with the part 'axes', and .* reads up to 1; load it with"
    with pytest.raises(fr.StorageError, match=message):
        fr.Index.load(tmp_path / "a")


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    made().save(path)
    header, data = storage_fuzz.parts(path.read_bytes())
    change(header)
    path.write_bytes(storage_fuzz.joined(header, data))
    return path


def renamed(header: dict[str, Any], name: str) -> None:
    """The same file with another name for the last tensor."""
    header[name] = header.pop("leaf_of")
    header["__metadata__"][f"crc32.{name}"] = header["__metadata__"].pop("crc32.leaf_of")


def facts(**values: str) -> Callable[[dict[str, Any]], object]:
    return lambda header: header["__metadata__"].update(values)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an unknown part": (lambda h: renamed(h, "x"), "tensors to be axes, codes, .*rows, found .*x"),
    "a name for a terminal": (
        lambda h: (renamed(h, "\x1b[2J"), facts(version="9")(h)),
        r"version 9 of the format, with the part '\\x1b\[2J', and",
    ),
    "a part of a later version": (
        facts(version="2"),
        "tensors to be axes, codes, ids, rows, found",
    ),
    "parts in version 1": (facts(version="1"), "tensors to be codes, ids, rows, found"),
    "a version of no part": (facts(version="4"), "version 4 of the format and .* reads up to 3"),
    "another type": (
        lambda h: h["leaf_of"].update(dtype="F32"),
        r"header's leaf_of to be I32 \(rows\), found 'F32 \(200,\)'",
    ),
    "another size": (
        lambda h: h["axes"].update(shape=[DIM, 2]),
        r"header's axes to be F32 \(axes, dim\), found 'F32 \(5, 2\)'",
    ),
    "another rank": (lambda h: h["axes"].update(shape=[2 * DIM]), "axes to be F32"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_part_that_cannot_be_is_named(name: str, tmp_path: Path) -> None:
    change, message = WRONG[name]
    with pytest.raises(fr.StorageError, match=message):
        fr.Index.load(rewritten(tmp_path / "a", change))


def test_a_wrong_array_is_not_written(tmp_path: Path) -> None:
    for wrong in (AXES.astype(np.float64), AXES[:, :4], AXES[0]):
        with pytest.raises(ValueError, match=r"axes must be F32 \(axes, dim\) in a file, got"):
            learn(made(), axes=wrong).save(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_sizes_may_be_numbers() -> None:
    part = Part("U8", (3, "any", "rows"), version=2)
    assert part.fits("U8", (3, 0, 8), n_rows=8, dim=2)
    assert not part.fits("U8", (4, 0, 8), n_rows=8, dim=2)
    assert str(part) == "U8 (3, any, rows)"


def test_no_part_is_registered_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert PARTS == {}
    assert parts.newest_version() == parts.FIRST_VERSION == 1


# --- what a change keeps --------------------------------------------------------------------------

VECTOR = np.ones((1, DIM), np.float32)
KEEPS: dict[str, Callable[[fr.Index], object]] = {
    "reserve": lambda index: index.reserve(5000),
    "compact": lambda index: index.compact(),
    "add nothing": lambda index: index.add(np.zeros((0, DIM), np.float32)),
    "remove nothing": lambda index: index.remove([]),
    "update nothing": lambda index: index.update([], np.zeros((0, DIM), np.float32)),
    "extend by nothing": lambda index: index.extend(fr.Index(DIM, metric="l2")),
}
DROPS: dict[str, Callable[[fr.Index], object]] = {
    "add": lambda index: index.add(VECTOR),
    "remove": lambda index: index.remove([3]),
    "update": lambda index: index.update([3], VECTOR),
    "extend": lambda index: index.extend(extension()),
}


def extension() -> fr.Index:
    other = fr.Index(DIM, metric="l2")
    other.add(VECTOR, ids=[1])
    return other


@pytest.mark.parametrize("name", [*KEEPS, *DROPS])
def test_a_change_of_the_rows_drops_what_was_learned(name: str) -> None:
    index = made()
    before = index._state
    {**KEEPS, **DROPS}[name](index)
    if name in KEEPS:
        assert_learned(index)
    else:
        assert not index._state.learned
    assert list(before.learned) == ["axes", "leaf_of"]


def test_what_is_learned_is_frozen() -> None:
    mine = AXES.copy()
    learned = frozen({"axes": mine})
    with pytest.raises(TypeError):
        learned["other"] = mine  # type: ignore[index]
    with pytest.raises(ValueError, match="read-only"):
        learned["axes"][0, 0] = 1
    assert mine.flags.writeable
