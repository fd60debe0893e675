"""The screen in index files: what comes back, what is refused, and what a file must not hold."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
import oracle
import storage_fuzz
from fastretrieve._files import parts
from fastretrieve._files.parts import PARTS
from fastretrieve._state.screen import TENSORS, Screen
from fastretrieve.gallery import describing
from screens import HEAD, NEVER, always_screened, covered_ids, screened

DIM = 18
Change = Callable[[Any, Any], object]  # of a header and arrays by name
FILE_TYPES = {"U8": np.uint8, "I32": np.int32, "F32": np.float32, "F64": np.float64}


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([71, seed]).standard_normal((n, DIM)).astype(np.float32)


def made(n: int = 200, **options: Any) -> fr.Index:
    options = {"metric": "l2", **options}
    index = fr.Index(DIM, **options)
    index.add(vectors(n), ids=np.arange(n) * 3)
    return screened(index)


def header_of(path: Path) -> dict[str, Any]:
    return storage_fuzz.parts(path.read_bytes())[0]


def tensor_of(path: Path, name: str) -> np.ndarray:
    header, data = storage_fuzz.parts(path.read_bytes())
    begin, end = header[name]["data_offsets"]
    return np.frombuffer(data[begin:end], FILE_TYPES[header[name]["dtype"]]).reshape(
        header[name]["shape"]
    )


@always_screened()
def assert_answers(index: fr.Index, expected: fr.Index) -> None:
    np.testing.assert_array_equal(index.ids, expected.ids)
    rows = expected.get(expected.ids)
    found = index.search(vectors(4, 9), 12, score_dtype="float64")
    oracle.assert_same(found, oracle.topk(vectors(4, 9), rows, 12, index.metric, ids=expected.ids))


# --- what comes back ------------------------------------------------------------------------------


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize(
    ("metric", "dtype"), [("l2", "float32"), ("ip", "float16"), ("cosine", "bfloat16")]
)
def test_a_screen_comes_back_from_a_file(
    metric: str, dtype: str, mmap: bool, tmp_path: Path
) -> None:
    index = made(metric=metric, dtype=dtype)
    index.save(tmp_path / "a")
    assert header_of(tmp_path / "a")["__metadata__"]["version"] == "2"
    loaded = fr.Index.load(tmp_path / "a", mmap=mmap, verify="codes")
    assert covered_ids(loaded) == covered_ids(index) == list(range(0, 192 * 3, 3))
    before, after = index._state.screen, loaded._state.screen
    assert before is not None
    assert after is not None
    assert sorted(after.arrays) == sorted(before.arrays) == sorted(TENSORS)
    for name, array in after.arrays.items():
        np.testing.assert_array_equal(array, before.arrays[name])
        assert not array.flags.writeable
    assert_answers(loaded, index)
    loaded.save(tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    facts = describing.index_file(tmp_path / "a", check=True)
    assert (facts["optimized_rows"], facts["format_version"], facts["faults"]) == (192, 2, [])


def test_a_pickle_holds_the_screen() -> None:
    index = made()
    copy = pickle.loads(pickle.dumps(index))
    assert covered_ids(copy) == covered_ids(index)
    assert copy._state.screen.is_proved
    assert not copy._state.snapshot.is_doubtful


def test_a_file_without_codes_has_no_screen_and_older_readers_know_it(tmp_path: Path) -> None:
    made().save(tmp_path / "a", codes=False)
    header = header_of(tmp_path / "a")
    assert header["__metadata__"]["version"] == "1"
    assert {*header} == {"__metadata__", "rows", "ids"}
    assert fr.Index.load(tmp_path / "a").stats()["optimized_rows"] == 0


def test_a_mapped_screen_stays_in_the_file_and_begins_with_cache_lines(tmp_path: Path) -> None:
    index = made(333, dtype="float16")  # whose ids and rows end anywhere
    index.save(tmp_path / "a")
    loaded = fr.Index.load(tmp_path / "a")
    screen, rows = loaded._state.screen, loaded._state.segments[0].slab.rows
    assert screen is not None
    for name, array in screen.arrays.items():
        if name not in ("screen_mean", "screen_recall"):  # small, and the first is of any size
            assert not array.flags.owndata
            assert array.__array_interface__["data"][0] % 64 == 0, name
    assert not rows.flags.owndata
    assert loaded.nbytes > screen.nbytes > 320 * (HEAD + DIM)


def test_rows_move_and_the_screen_with_them(tmp_path: Path) -> None:
    """Removed and updated rows, several slabs; then the last rows lie after the last strip."""
    index = fr.Index(DIM, metric="l2")
    index.add(vectors(150))
    index.add(vectors(1100, 1), ids=np.random.default_rng(1).permutation(5000)[:1100] + 1000)
    screened(index)
    known = covered_ids(index)
    gone, new = index.ids[5:700:3], index.ids[[0, 201, 900]]
    index.remove(gone)
    index.update(new, vectors(3, 4))
    in_strips = index.ids[: len(index) // 64 * 64]
    index.save(tmp_path / "a")
    loaded = fr.Index.load(tmp_path / "a", verify="codes")
    assert set(covered_ids(loaded)) == (set(known) - {*gone, *new}) & {*in_strips.tolist()}
    assert_answers(loaded, index)
    index.compact()
    assert covered_ids(index) == covered_ids(loaded)
    assert_answers(index, loaded)


def test_a_file_holds_nothing_of_removed_rows(tmp_path: Path) -> None:
    index = made()
    screen = index._state.screen
    assert screen is not None
    index.remove([30])
    for _ in range(2):
        index.save(tmp_path / "a")
        places = tensor_of(tmp_path / "a", "screen_places")
        position = int(np.flatnonzero(screen.places == 10)[0])
        assert places[position] == -1
        records, heads = (tensor_of(tmp_path / "a", f"screen_{n}") for n in ("records", "heads"))
        changed = np.flatnonzero((records != screen.arrays["screen_records"]).any(axis=1))
        assert changed.tolist() == [p for p in range(192) if places[p] < 0]
        assert not records[position].any()
        strip, row = divmod(position, 64)
        codes = heads[strip, : 64 * HEAD].reshape(4, HEAD // 4, 16, 4)
        assert not codes[row // 16, :, row % 16].any()
        gone = np.flatnonzero(places[strip * 64 :][:64] < 0)
        assert set(gone.tolist()) == {r for r in range(64) if not codes[r // 16, :, r % 16].any()}
        starts = heads[strip, 64 * HEAD :].view(np.int32)
        assert starts[row] == NEVER
        assert (starts == NEVER).sum() == (places[strip * 64 :][:64] < 0).sum()
        index.compact()  # a later file holds nothing of it either


def test_no_row_is_left_and_no_screen(tmp_path: Path) -> None:
    index = made(130)
    index.remove(np.arange(64) * 3)
    index.remove(np.arange(70, 128) * 3)
    assert covered_ids(index) == [192, 195, 198, 201, 204, 207]
    index.save(tmp_path / "a")  # its eight rows have no strip
    assert header_of(tmp_path / "a")["__metadata__"]["version"] == "1"
    assert_answers(fr.Index.load(tmp_path / "a"), index)


# --- what is refused ------------------------------------------------------------------------------


def rewritten(path: Path, change: Change) -> Path:
    """A file of an index with a screen in which something was changed, with checksums that fit."""
    made().save(path)
    header, data = storage_fuzz.parts(path.read_bytes())
    names = sorted(
        (n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"]
    )
    arrays = {
        name: np.frombuffer(data[slice(*header[name]["data_offsets"])], np.uint8).copy()
        if name not in TENSORS
        else tensor_of(path, name).copy()
        for name in names
    }
    change(header, arrays)
    text, end = b"", 0
    for name, array in arrays.items():
        raw = array.tobytes()
        header[name]["data_offsets"] = [end, end + len(raw)]
        if name in TENSORS:
            header[name].setdefault("shape", list(array.shape))
        text, end = text + raw, end + len(raw)
        header["__metadata__"][f"crc32.{name}"] = storage_fuzz.checksums(raw)
    path.write_bytes(storage_fuzz.joined(header, text))
    return path


def without(name: str) -> Change:
    return lambda header, arrays: (header.pop(name), arrays.pop(name))


def reshaped(name: str) -> Change:
    """One entry less."""

    def change(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = arrays[name][:-1]
        header[name]["shape"] = list(arrays[name].shape)

    return change


def of_type(name: str, dtype: str) -> Change:
    def change(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = arrays[name].astype(FILE_TYPES[dtype])
        header[name]["dtype"] = dtype

    return change


def number(name: str, value: float, at: int = -1) -> Change:
    """A number that no screen has."""
    return lambda header, arrays: arrays[name].reshape(-1).__setitem__(at, value)


def version(number: str) -> Change:
    return lambda header, arrays: header["__metadata__"].update(version=number)


OTHER = {"U8": "I32", "I32": "F32", "F32": "F64", "F64": "F32"}
FLOATS = [name for name, (dtype, _) in TENSORS.items() if dtype.startswith("F")]
WRONG: dict[str, tuple[Change, str]] = {
    **{
        f"no {name}": (without(name), f"header's {name} to be a tensor of that name, .* screen")
        for name in TENSORS
    },
    **{
        f"{name}, an entry less": (reshaped(name), "header's screen_[a-z]+ to be ")
        for name in TENSORS
    },
    **{
        f"{name} of another type": (
            of_type(name, OTHER[dtype]),
            rf"header's {name} to be {dtype} \(.*\), found '{OTHER[dtype]} \(",
        )
        for name, (dtype, _) in TENSORS.items()
    },
    **{
        f"{name} with {value}": (number(name, value), f"expected finite numbers in {name}, found")
        for name in FLOATS
        for value in (np.nan, np.inf)
        if name != "screen_boxes" or np.isnan(value)  # a box may hold everything
    },
    "a place twice": (
        lambda header, arrays: number("screen_places", arrays["screen_places"][0])(header, arrays),
        "screen_places to name different rows, found one of them twice",
    ),
    "a place behind the rows": (
        number("screen_places", 200),
        "screen_places to be -1 or a row number below 192, found 200",
    ),
    "a place behind the strips": (number("screen_places", 192), "below 192, found 192"),
    "a place before the rows": (number("screen_places", -2), "below 192, found -2"),
    **{
        f"{name} that no rotation has": (
            lambda header, arrays, name=name: arrays[name].__imul__(3),
            f"expected {name} as optimize\\(\\) writes it, found the .* screen",
        )
        for name in ("screen_basis", "screen_axes")
    },
    "a step of zero": (number("screen_numbers", 0, 1), "screen_numbers as .* a step above 0"),
    "a head of no numbers": (
        lambda header, arrays: (
            header["screen_basis"].update(shape=[0, DIM]),
            arrays.update(screen_basis=arrays["screen_basis"][:0]),
        ),
        "screen_basis to be a multiple of 16 rows, up to 256, found '0'",
    ),
    "a version without them": (version("1"), "header's tensors to be codes, ids, rows, found"),
    "a later version": (version("3"), "version 3 of the format and .* reads up to 2"),
    "an unknown tensor": (
        lambda header, arrays: (
            header.update(screen_x=header.pop("screen_mean")),
            arrays.update(screen_x=arrays.pop("screen_mean")),
        ),
        "header's screen_mean to be a tensor of that name",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_screen_that_cannot_be_is_named(name: str, tmp_path: Path) -> None:
    change, message = WRONG[name]
    path = rewritten(tmp_path / "a", change)
    for mmap in (True, False):
        with pytest.raises(fr.StorageError, match=message):
            fr.Index.load(path, mmap=mmap)


def test_a_file_that_is_rewritten_unchanged_loads(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "a", lambda header, arrays: None)
    assert covered_ids(fr.Index.load(path, verify="codes")) == covered_ids(made())


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("name", TENSORS)
def test_verify_finds_a_damaged_screen(name: str, mmap: bool, tmp_path: Path) -> None:
    path = tmp_path / "a"
    made().save(path)
    blob = bytearray(path.read_bytes())
    at = 8 + int.from_bytes(blob[:8], "little") + header_of(path)[name]["data_offsets"][0]
    blob[at] ^= 1
    path.write_bytes(blob)
    with pytest.raises(fr.StorageError, match=f"at byte {at}: .* of {name} with the checksum"):
        fr.Index.load(path, mmap=mmap, verify=True)


def test_an_older_reader_names_a_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made().save(tmp_path / "a")
    for name in TENSORS:
        monkeypatch.delitem(PARTS, name)
    assert parts.newest_version() == 1
    message = "version 2 of the format, with the part 'screen_axes', and .* up to 1; load it with"
    with pytest.raises(fr.StorageError, match=message):
        fr.Index.load(tmp_path / "a")


# --- a screen that is not that of the rows --------------------------------------------------------


def hidden(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """No query reads a row that the screen covers."""
    arrays["screen_heads"][:, 64 * HEAD :].view(np.int32)[:] = NEVER


def changed_byte(name: str, entry: int, at: int) -> Change:
    return lambda header, arrays: arrays[name].__setitem__(
        (entry, at), arrays[name][entry, at] ^ 64
    )


LIES: dict[str, Change] = {
    "heads that no query reads": hidden,
    "a record of other codes": changed_byte("screen_records", 5, 20),
    "a record of other bounds": changed_byte("screen_records", 70, 0),
    "codes of a head": changed_byte("screen_heads", 2, 5),
    "places of other rows": lambda header, arrays: arrays.update(
        screen_places=np.roll(arrays["screen_places"], 1)
    ),
    "a smaller error": lambda header, arrays: arrays["screen_numbers"].__setitem__(2, 0),
    "a start beyond all": lambda header, arrays: arrays["screen_heads"][:, -256:].fill(0x7F),
    "a smaller box": lambda header, arrays: arrays["screen_boxes"][0, :, 1].fill(-1e30),
}


@pytest.mark.parametrize("name", LIES)
def test_verify_codes_finds_a_screen_of_other_rows(name: str, tmp_path: Path) -> None:
    path = rewritten(tmp_path / "a", LIES[name])
    fr.Index.load(path, verify=True)
    with pytest.raises(fr.StorageError, match=r"head and the record that the vector of row \d+"):
        fr.Index.load(path, verify="codes")
    index = fr.Index.load(path)
    index.compact()
    assert index._state.screen is None  # codes were made anew, and its records are of others


def worst(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """The bounds of every row say that it is infinitely bad."""
    arrays["screen_records"][:, :16].view(np.float32).fill(-np.inf)


@always_screened()
def test_a_search_that_misses_rows_names_the_screen(tmp_path: Path) -> None:
    index = fr.Index.load(rewritten(tmp_path / "a", worst))
    with pytest.raises(fr.StorageError, match="the screen at its position 0 is not that of a"):
        index.search(vectors(3, 9), 10)
    assert index.optimize().rows == 0  # there are few
    assert_answers(index, made())


def test_answers_are_looked_at_until_the_screen_is_proved() -> None:
    screen = made()._state.screen
    assert screen is not None
    for is_proved in (True, False):
        index = made()
        same = Screen("l2", DIM, screen.arrays, is_proved=is_proved)
        index._state = index._state.with_screen(same)
        assert index._state.snapshot.is_doubtful != is_proved


def test_a_compacted_screen_is_proved(tmp_path: Path) -> None:
    made().save(tmp_path / "a")
    index = fr.Index.load(tmp_path / "a")
    assert index._state.snapshot.is_doubtful
    index.compact()
    assert covered_ids(index) == covered_ids(made())
    assert not index._state.snapshot.is_doubtful
