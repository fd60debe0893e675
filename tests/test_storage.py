"""An index in a file: what comes back is what was saved, or an error that says what is wrong."""

from __future__ import annotations

import errno
import os
import pickle
import random
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
import oracle
import storage_fuzz
from fastretrieve._backends.cpu import CpuBackend
from fastretrieve._files import checksums
from fastretrieve._files.saving import StorageError

DIM = 5


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([60, seed]).standard_normal((n, DIM)).astype(np.float32)


def several_blocks(dtype: Any = "float32", metric: Any = "l2") -> fr.Index:
    index = fr.Index(DIM, metric=metric, dtype=dtype)
    index.add(vectors(300))
    index.add(vectors(1100, 1), ids=np.random.default_rng(1).permutation(5000)[:1100] + 1000)
    index.remove(index.ids[::3])
    index.add(vectors(70, 2))
    return index


def small(n: int = 200, **options: Any) -> fr.Index:
    index = fr.Index(DIM, **options)
    index.add(vectors(n))
    return index


INDEXES: dict[str, Callable[[], fr.Index]] = {
    "empty": lambda: small(0),
    "never used": lambda: fr.Index(DIM),
    "one row": lambda: small(1),
    "whole strips": lambda: small(128),
    "a tail": lambda: small(130),
    "several slabs, own ids, removed rows": several_blocks,
    "float16": lambda: several_blocks("float16", "cosine"),
    "bfloat16": lambda: several_blocks("bfloat16", "ip"),
}


def assert_equal(found: fr.Index, expected: fr.Index) -> None:
    facts = ("dim", "metric", "dtype", "device")
    assert [getattr(found, f) for f in facts] == [getattr(expected, f) for f in facts]
    ids = expected.ids
    np.testing.assert_array_equal(found.ids, ids)
    assert found.get(ids).tobytes() == expected.get(ids).tobytes()
    hits = [i.search(vectors(3, 9), 12, score_dtype="float64") for i in (found, expected)]
    oracle.assert_same(hits[0], oracle.Best(*hits[1]))


@pytest.mark.parametrize("codes", [True, False])
@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("name", INDEXES)
def test_what_is_loaded_is_what_was_saved(
    name: str, mmap: bool, codes: bool, tmp_path: Path
) -> None:
    index = INDEXES[name]()
    index.save(tmp_path / "a", codes=codes)
    loaded = fr.Index.load(tmp_path / "a", mmap=mmap, verify=True)
    assert_equal(loaded, index)
    added = loaded.add(vectors(70, 5))  # it goes on as the other would
    np.testing.assert_array_equal(added, index.add(vectors(70, 5)))
    if len(index) > 80:
        for i in (index, loaded):
            i.remove(i.ids[:40])
            i.update(i.ids[5:9], vectors(4, 6))
    assert_equal(loaded, index)
    loaded.compact()
    assert_equal(loaded, _compacted(index))


def _compacted(index: fr.Index) -> fr.Index:
    index.compact()
    return index


@pytest.mark.parametrize("name", INDEXES)
def test_a_pickled_index_is_a_copy_of_its_own(name: str) -> None:
    index = INDEXES[name]()
    copy = pickle.loads(pickle.dumps(index))
    assert_equal(copy, index)
    copy.add(vectors(3))
    assert len(copy) == len(index) + 3


def test_saving_what_was_loaded_gives_the_same_bytes(tmp_path: Path) -> None:
    several_blocks().save(tmp_path / "a")
    fr.Index.load(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_next_id_survives(tmp_path: Path) -> None:
    index = small(10)
    index.remove([9])
    index.save(tmp_path / "a")
    assert fr.Index.load(tmp_path / "a").add(vectors(1)).tolist() == [10]


def test_codes_of_another_layout_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = several_blocks()
    monkeypatch.setattr(CpuBackend, "layout", "other.7")
    index.save(tmp_path / "a")
    monkeypatch.undo()
    assert_equal(fr.Index.load(tmp_path / "a"), index)


def test_safetensors_reads_the_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    index = small(100, dtype="float16")
    index.save(tmp_path / "a")
    tensors = load_file(tmp_path / "a")
    assert set(tensors) == {"codes", "rows"}
    np.testing.assert_array_equal(tensors["rows"], index.get(index.ids))


def test_mapped_rows_stay_in_the_file_and_cannot_be_written(tmp_path: Path) -> None:
    small(1000).save(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()
    loaded = fr.Index.load(tmp_path / "a")
    slab = loaded._state.segments[0].slab
    assert not slab.rows.flags.writeable
    loaded.update([3, 4], vectors(2, 8))
    loaded.add(vectors(100))
    loaded.compact()
    assert (tmp_path / "a").read_bytes() == before


def test_loading_a_mapped_file_reads_little_of_it(tmp_path: Path) -> None:
    index = fr.Index(128)
    index.add(np.random.default_rng(0).standard_normal((100_000, 128), dtype=np.float32))
    index.save(tmp_path / "a")
    times = []
    for _ in range(5):
        start = time.perf_counter()
        loaded = fr.Index.load(tmp_path / "a")
        times.append(time.perf_counter() - start)
    assert len(loaded) == 100_000
    assert min(times) < 0.05  # for any number of rows; reading takes longer


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    several_blocks().save(tmp_path / "a", progress=lambda *done: calls.append(done))
    assert calls[-1][0] == calls[-1][1] > 0
    assert calls == sorted(calls)


def test_a_search_may_run_and_rows_may_come_while_it_is_saved(tmp_path: Path) -> None:
    index = small(20_000)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            index.add(vectors(50))
            index.remove(index.ids[:25])

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for _ in range(5):
            index.save(tmp_path / "a")
            loaded = fr.Index.load(tmp_path / "a", verify=True)
            ids = loaded.ids
            assert (np.diff(ids) > 0).all()
            assert loaded._state.next_id >= ids[-1] + 1
    finally:
        stop.set()
        writer.join()


# --- whole or not at all --------------------------------------------------------------------------


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, MemoryError])
def test_interrupted_the_old_file_stays(tmp_path: Path, error: type[BaseException]) -> None:
    small(10).save(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()

    def fails(done: int, total: int) -> None:
        raise error

    with pytest.raises(error):
        small(20).save(tmp_path / "a", progress=fails)
    assert (tmp_path / "a").read_bytes() == before
    assert os.listdir(tmp_path) == ["a"]


FULL_DISK = """
import resource, signal, sys, numpy as np, fastretrieve as fr
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
index = fr.Index(64)
index.add(np.ones((5000, 64), np.float32))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    index.save(sys.argv[1])
except OSError as error:
    print(error.errno, error)
"""


def test_where_the_disk_is_full_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    small(10).save(path)
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(errno.EFBIG))
    assert f"nothing was written, {path} is as it was" in done.stdout
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_stays_a_link_and_permissions_stay(tmp_path: Path) -> None:
    small(3).save(tmp_path / "a")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask
    (tmp_path / "a").chmod(0o640)
    (tmp_path / "link").symlink_to("a")
    small(4).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert len(fr.Index.load(tmp_path / "a")) == 4
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_what_is_no_ordinary_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match=f"{name} is no ordinary file"):
            small().save(tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "pipe"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        small(3).save(tmp_path / "no" / "a")
    with pytest.raises(FileNotFoundError):
        fr.Index.load(tmp_path / "a")


# --- damaged and hostile files --------------------------------------------------------------------


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A file whose header was changed, with a checksum that fits."""
    index = fr.Index(DIM, metric="l2")
    index.add(vectors(100), ids=np.random.default_rng(2).permutation(100) * 2)
    index.save(tmp_path / "a")
    header, data = storage_fuzz.parts((tmp_path / "a").read_bytes())
    change(header)
    (tmp_path / "a").write_bytes(storage_fuzz.joined(header, data))
    return tmp_path / "a"


def facts(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda header: header["__metadata__"].update(values)


HEADERS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another format": (facts(format="x"), "header's format to be 'fastretrieve.index', found 'x'"),
    "a newer version": (facts(version="3"), "version 3 of the format and .* reads up to 2"),
    "no dim": (lambda h: h["__metadata__"].pop("dim"), "dim to be a whole number .* found none"),
    "a dim with spaces": (facts(dim=" 5"), "dim to be a whole number"),
    "a huge dim": (facts(dim="9" * 5000), "dim to be a whole number"),
    "another dim": (facts(dim="6"), r"rows to be F32 \(100, 6\), found 'F32 \(100, 5\)'"),
    "another metric": (facts(metric="hamming"), "metric to be one of cosine"),
    "another dtype": (facts(dtype="bfloat16"), "rows to be BF16"),
    "a next id that is used": (facts(next_id="198"), "ids from 0 to below the next, 198"),
    "a fact that is no string": (facts(dim=5), "object of strings"),
    "metadata that is a list": (lambda h: h.update(__metadata__=[]), "object of strings"),
    "no rows": (lambda h: h.pop("rows"), "to begin at|expected the end of the file"),
    "an unknown dtype": (lambda h: h["rows"].update(dtype="F8"), "a dtype of U8"),
    "a negative size": (lambda h: h["rows"].update(shape=[-100, -5]), "sizes and two offsets"),
    "a size that is a bool": (lambda h: h["rows"].update(shape=[True, 5]), "sizes and two offsets"),
    "offsets of another size": (lambda h: h["rows"].update(shape=[99, 5]), "to take 1980 bytes"),
    "one offset": (lambda h: h["rows"].update(data_offsets=[1]), "sizes and two offsets"),
    "an overlap": (
        lambda h: h["ids"].update(data_offsets=[0, 800]),
        "tensor '(ids|codes)' to begin at",
    ),
    "a tensor too many": (lambda h: h.update(x=dict(h["rows"])), "to begin at"),
    "codes that are not announced": (lambda h: h["__metadata__"].pop("codes"), "tensors to be"),
    "no ids for their order": (lambda h: h.pop("ids"), "to begin at"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_wrong_is_named(name: str, tmp_path: Path) -> None:
    change, message = HEADERS[name]
    path = changed(tmp_path, change)
    with pytest.raises(StorageError, match=message) as raised:
        fr.Index.load(path)
    assert str(raised.value).startswith(f"{path}: ")


def text_of(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


ONE_TENSOR = b'{"a":{"dtype":"U8","shape":[%s],"data_offsets":[0,0]}}'
MANY_TENSORS = b"{%s}" % b",".join(
    b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(900)
)
TEXTS = {
    "nothing": (b"", "at byte 0: expected 8 bytes"),
    "seven bytes": (bytes(7), "at byte 7: expected 8 bytes"),
    "a length beyond the file": (b"\xff" * 8, "at byte 0: expected the length"),
    "no JSON": (b"\x03" + bytes(7) + b"{1}", "at byte 9: expected a header in JSON"),
    "no UTF-8": (b"\x02" + bytes(7) + b"\xff}", "at byte 8: expected a header in UTF-8"),
    "a list": (b"\x02" + bytes(7) + b"[]", "JSON object, found list"),
    "not a number": (b"\x09" + bytes(7) + b'{"a":NaN}', "expected a header in JSON, found NaN"),
    "a name twice": (b"\x0d" + bytes(7) + b'{"a":1,"a":2}', "one of them twice"),
    "deep": ((60_000).to_bytes(8, "little") + b"[" * 60_000, "expected a header in JSON"),
    "a long header": (
        (70_000).to_bytes(8, "little") + b"[" * 70_000,
        "at byte 0: expected the length of a header of at most 65536 bytes, found 70000",
    ),
    "a deep tensor": (text_of(b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"), "to have dtype, shape"),
    "a deep fact": (
        text_of(b'{"__metadata__":{"a":' + b"[" * 900 + b"]" * 900 + b"}}"),
        "object of strings|in JSON",
    ),
    "many tensors": (text_of(MANY_TENSORS), "at most 64 tensors, found 900"),
    "a shape of many sizes": (
        text_of(ONE_TENSOR % (b"1," * 15_000 + b"1")),
        "tensor 'a' to have at most 8 dimensions, found 15001",
    ),
    "large sizes": (text_of(ONE_TENSOR % (b"4611686018427387903," * 7 + b"1")), "to take [0-9]+ b"),
    "half a character": (
        text_of(rb'{"__metadata__":{"crc32.header":"\ud800"},"\ud800":{}}'),
        r"tensor '\\ud800' to have dtype",
    ),
    "a checksum of half a character": (
        text_of(rb'{"__metadata__":{"crc32.header":"\ud800"}}'),
        r"a header with the checksum \\ud800",
    ),
    "many digits": ((6000).to_bytes(8, "little") + b"1" * 6000, "at byte 8: expected"),
    "safetensors of others": (b"\x02" + bytes(7) + b"{}", "this file was not written here"),
}


def test_a_file_of_vectors_is_named_with_its_reader(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", vectors(3))
    with pytest.raises(StorageError, match=r"at byte 0: .*; read_vectors\(\) reads such a file"):
        fr.Index.load(tmp_path / "a.npy")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder; make it first: .*/none/a"):
        small(3).save(tmp_path / "none" / "a")


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("mmap", [True, False])
def test_what_is_no_index_file_is_refused(name: str, mmap: bool, tmp_path: Path) -> None:
    text, message = TEXTS[name]
    (tmp_path / "a").write_bytes(text)
    with pytest.raises(StorageError, match=message) as raised:
        fr.Index.load(tmp_path / "a", mmap=mmap)
    str(raised.value).encode()  # every terminal can print it


def test_a_long_header_takes_no_time_in_a_large_file(tmp_path: Path) -> None:
    """100 MB of nesting, sizes or empty tensors: what a header may ask for grows with the file,
    whose bytes somebody has to send, and slowly.
    """
    for text in (
        b"[" * 90_000_000,
        b'{"a":{"dtype":"U8","shape":[' + b"4611686018427387903," * 60_000,
        MANY_TENSORS * 2000,
    ):
        with open(tmp_path / "a", "wb") as file:
            file.write(text_of(text))
            file.truncate(1 << 33)  # no bytes on the disk
        begin = time.monotonic()
        with pytest.raises(StorageError, match="the length of a header of at most 65536 bytes"):
            fr.Index.load(tmp_path / "a")
        assert time.monotonic() - begin < 10  # 39 s and 900,000 tensors once


def test_a_file_cut_anywhere_says_where_it_ends(tmp_path: Path) -> None:
    small(130).save(tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    for size in [*range(0, 700, 7), *range(700, len(whole), 97)]:
        (tmp_path / "b").write_bytes(whole[:size])
        with pytest.raises(StorageError, match=f"at byte ({size}|0): expected"):
            fr.Index.load(tmp_path / "b")
    (tmp_path / "b").write_bytes(whole + b"x")
    with pytest.raises(StorageError, match=f"at byte {len(whole)}: .* found 1 more"):
        fr.Index.load(tmp_path / "b")


def test_a_changed_byte_is_found_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "CHUNK_BYTES", 1000)
    small(1000).save(tmp_path / "a")
    whole = bytearray((tmp_path / "a").read_bytes())
    data = 8 + int.from_bytes(whole[:8], "little")
    whole[-1] ^= 1
    (tmp_path / "a").write_bytes(whole)
    rows = 1000 * DIM * 4
    last = len(whole) - (rows % 1000 or 1000)
    with pytest.raises(StorageError, match=f"at byte {last}: .* of rows with the checksum"):
        fr.Index.load(tmp_path / "a", verify=True)
    assert len(fr.Index.load(tmp_path / "a")) == 1000  # sizes and the header are right
    for at in range(8, data - 64, 5):  # the header, but for the spaces at its end
        broken = bytearray(whole)
        broken[at] ^= 1
        (tmp_path / "b").write_bytes(broken)
        with pytest.raises(StorageError):
            fr.Index.load(tmp_path / "b")


ID_FAULTS = {
    "twice": ("ids", [4, 4, 6]),
    "negative": ("ids", [-1, 4, 6]),
    "an order out of range": ("id_order", [0, 1, 3]),
    "a negative order": ("id_order", [0, -1, 2]),
    "an order that is none": ("id_order", [0, 0, 2]),
}


@pytest.mark.parametrize("name", ID_FAULTS)
def test_ids_that_cannot_be_are_refused(name: str, tmp_path: Path) -> None:
    index = fr.Index(1)
    index.add([[1], [2], [3]], ids=[6, 2, 4])
    index.save(tmp_path / "a")
    header, data = storage_fuzz.parts((tmp_path / "a").read_bytes())
    tensor, values = ID_FAULTS[name]
    begin, end = header[tensor]["data_offsets"]
    data = data[:begin] + np.array(values, "<i8").tobytes() + data[end:]
    (tmp_path / "a").write_bytes(storage_fuzz.joined(header, data))
    with pytest.raises(StorageError, match=r"at byte .*: expected (different|ids|row numbers)"):
        fr.Index.load(tmp_path / "a")


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_file_holds_it_loads_or_is_refused(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    blobs = storage_fuzz.seeds(tmp_path)
    outcomes = [
        storage_fuzz.survives(
            storage_fuzz.damaged(chance.choice(blobs), chance), tmp_path / "damaged"
        )
        for _ in range(150)
    ]
    assert [o for o in outcomes if not storage_fuzz.is_an_answer(o)] == []
    assert 5 < outcomes.count("loaded") < 140  # both kinds are reached


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("fuzz/corpus/*")), ids=str)
def test_the_corpus_loads_or_is_refused(path: Path, tmp_path: Path) -> None:
    assert storage_fuzz.is_an_answer(storage_fuzz.survives(path.read_bytes(), tmp_path / "damaged"))
