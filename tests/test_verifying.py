"""Index files that lie: checksums that fit, around codes, planes and rows that no index wrote."""

from __future__ import annotations

import re
import sqlite3
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
import oracle
import storage_fuzz
from fastretrieve._files.saving import StorageError
from fastretrieve._state import checking
from fastretrieve.encoders.saved.files import file_sha256
from fastretrieve.gallery import Gallery, describing
from gallery_helpers import new_gallery, write_pictures

N, DIM, BAD = 960, 8, 700  # whole strips: rows behind them are always found
ROWS = np.random.default_rng(12).standard_normal((N, DIM)).astype(np.float32)
IDS = np.random.default_rng(13).permutation(5000)[:N]
Change = Callable[[dict[str, Any], bytearray], None]


def forged(
    path: Path, change: Change, metric: Any = "cosine", dtype: Any = "float32", ids: Any = None
) -> Path:
    """A file that was changed, with checksums that fit."""
    index = fr.Index(DIM, metric=metric, dtype=dtype)
    index.add(ROWS, ids=ids)
    index.save(path)
    return forge(path, change)


def forge(path: Path, change: Change) -> Path:
    header, data = storage_fuzz.parts(path.read_bytes())
    changed = bytearray(data)
    change(header, changed)
    for name, tensor in header.items():
        if name != "__metadata__":
            part = changed[slice(*tensor["data_offsets"])]
            header["__metadata__"][f"crc32.{name}"] = f"{zlib.crc32(part):08x}"
    path.write_bytes(storage_fuzz.joined(header, bytes(changed)))
    return path


def row(value: float) -> Change:
    def change(header: dict[str, Any], data: bytearray) -> None:
        item = 4 if header["rows"]["dtype"] == "F32" else 2
        bits = struct.pack("<f", value)[4 - item :]  # bfloat16 is the upper half
        if header["rows"]["dtype"] == "F16":
            bits = np.float16(value).tobytes()
        at = header["rows"]["data_offsets"][0] + (BAD * DIM + 3) * item
        data[at : at + item] = bits

    return change


def plane(number: int, value: float) -> Change:
    def change(header: dict[str, Any], data: bytearray) -> None:
        n_strips, strip_bytes = header["codes"]["shape"]
        for strip in range(n_strips):
            at = header["codes"]["data_offsets"][0] + strip * strip_bytes + 64 * DIM + 256 * number
            data[at : at + 256] = struct.pack("<64f", *[value] * 64)

    return change


def shuffled(header: dict[str, Any], data: bytearray) -> None:
    begin, end = header["codes"]["data_offsets"]
    strips = np.frombuffer(bytes(data[begin:end]), np.uint8).reshape(header["codes"]["shape"])
    data[begin:end] = strips[::-1].tobytes()


def one_bit(header: dict[str, Any], data: bytearray) -> None:
    data[header["codes"]["data_offsets"][1] - 1] ^= 1


LIES = {
    "shuffled strips": shuffled,
    "one bit of the last strip": one_bit,
    "scales are infinite": plane(0, np.inf),
    "scales are not numbers": plane(0, np.nan),
    "errors are negative": plane(1, -1e30),
    "norms are infinite": plane(2, np.inf),
}


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("lie", LIES)
def test_codes_that_lie_are_found(lie: str, metric: str, tmp_path: Path) -> None:
    path = forged(tmp_path / "a", LIES[lie], metric, ids=IDS)
    fr.Index.load(path, verify=True)  # checksums say nothing of it
    with pytest.raises(StorageError, match=r"at byte \d+: expected the codes that the vectors of"):
        fr.Index.load(path, verify="codes")
    index = fr.Index.load(path)
    index.compact()  # the remedy
    found = index.search(ROWS[:5], 10, score_dtype="float64")
    oracle.assert_same(found, oracle.topk(ROWS[:5], ROWS, 10, metric, ids=IDS))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("metric", oracle.METRICS)
@pytest.mark.parametrize("part_bytes", [1, 7000, 16 << 20])
def test_codes_that_are_true_are_accepted(
    part_bytes: int, metric: Any, dtype: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "PART_BYTES", part_bytes)
    index, told = fr.Index(DIM, metric=metric, dtype=dtype), list[tuple[int, int]]()
    index.add(ROWS[:700])
    index.save(tmp_path / "a")
    loaded = fr.Index.load(tmp_path / "a", verify="codes", progress=lambda *n: told.append(n))
    assert not loaded._state.snapshot.is_doubtful  # nothing is looked at twice
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert len({total for _, total in told}) == 1


def test_the_byte_that_differs_is_named(tmp_path: Path) -> None:
    path = forged(tmp_path / "a", one_bit)
    with pytest.raises(StorageError, match="of rows 896 to 959 give, found others") as raised:
        fr.Index.load(path, verify="codes")
    header, _ = storage_fuzz.parts(path.read_bytes())
    data = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    last = data + header["codes"]["data_offsets"][1] - 1
    assert f"at byte {last}:" in str(raised.value)


def test_a_progress_bar_can_stop_it(tmp_path: Path) -> None:
    index = fr.Index(DIM)
    index.add(ROWS)
    index.save(tmp_path / "a")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fr.Index.load(tmp_path / "a", verify="codes", progress=stop)


def test_what_verify_may_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="verify must be False, True or 'codes', got 'all'"):
        fr.Index.load(tmp_path / "a", verify="all")  # type: ignore[arg-type]


MASKS: dict[str, dict[str, Any]] = {
    "all": {},
    "ids": {"where": IDS[::2]},
    "a mask": {"where": np.arange(N) % 2 == 0},
    "masks": {"where": np.tile(np.arange(N) % 2 == 0, (5, 1))},
    "few of each": {"where": np.tile(np.arange(N) % 50 == 0, (5, 1))},
    "all but some": {"exclude": IDS[:100]},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_search_never_returns_fewer_rows_than_there_are(
    metric: str, mask: str, tmp_path: Path
) -> None:
    path = forged(tmp_path / "a", plane(1, -1e30), metric, ids=IDS)
    for index in (
        fr.Index.load(path),
        fr.Index.load(path, mmap=False),
        fr.Index(DIM, metric=metric),
    ):
        if not len(index):
            index.extend(fr.Index.load(path))  # doubts come along
        with pytest.raises(
            StorageError, match=r"codes of 64 rows .* are not those of their vectors"
        ):
            index.search(ROWS[:5], 10, **MASKS[mask])
        index.compact()
        index.search(ROWS[:5], 10, **MASKS[mask])


@pytest.mark.parametrize("mask", MASKS)
def test_a_search_for_more_rows_than_there_are_is_no_lie(mask: str, tmp_path: Path) -> None:
    path = forged(tmp_path / "a", lambda header, data: None, ids=IDS)
    index = fr.Index.load(path)
    expected = index.search(ROWS[:5], N + 3, **MASKS[mask]).ids
    assert (expected[:, -1] == -1).all()
    index.remove(index.ids[100:300])
    for k in (N, 5):
        kept = {
            name: m[:760] if m.dtype != bool else m[..., :760] for name, m in MASKS[mask].items()
        }
        index.search(ROWS[:5], k, **kept)
    index.search(np.zeros((1, DIM), np.float32), 3)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused_with_verify(
    value: float, dtype: str, tmp_path: Path
) -> None:
    path = forged(tmp_path / "a", row(value), dtype=dtype, ids=IDS)
    message = f"at byte [0-9]+: expected finite numbers in the row with id {IDS[BAD]}, found others"
    for verify in (True, "codes"):
        with pytest.raises(StorageError, match=message):
            fr.Index.load(path, verify=verify)  # type: ignore[arg-type]


CALLS: dict[str, Callable[[fr.Index, Path], object]] = {
    "get": lambda index, path: index.get([IDS[3], IDS[BAD]]),
    "save": lambda index, path: index.save(path / "b"),
    "compact": lambda index, path: index.compact(),
    "search_ids": lambda index, path: index.search_ids([IDS[BAD]], 3),
    "knn_graph": lambda index, path: index.knn_graph(3),
    "pairs": lambda index, path: index.pairs(1.0),
    "search": lambda index, path: index.search(ROWS[:2], N + 3),
    "search in float64": lambda index, path: index.search(ROWS[:2], N + 3, score_dtype="float64"),
    "search of few": lambda index, path: index.search(ROWS[:2], 9, where=[IDS[BAD], IDS[3], 4999]),
    "plan": lambda index, path: index.plan(2, N + 3)(ROWS[:2]),
}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("call", CALLS)
def test_whoever_meets_a_row_that_is_not_finite_says_its_id(
    call: str, metric: str, value: float, tmp_path: Path
) -> None:
    path = forged(tmp_path / "a", row(value), metric, ids=IDS)
    index, wider = fr.Index.load(path), fr.Index(DIM, metric=metric)  # type: ignore[arg-type]
    wider.add(ROWS[:3], ids=[6000, 6001, 6002])
    wider.extend(fr.Index.load(path))
    message = re.escape(f"the row with id {IDS[BAD]} holds a value that is not finite")
    for one in (index, wider):
        with pytest.raises(StorageError, match=message):
            CALLS[call](one, tmp_path)
        one.remove([IDS[BAD]])
        if call not in ("get", "search_ids"):
            CALLS[call](one, tmp_path)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_a_row_that_is_not_a_number_changes_no_other_answer(metric: Any, tmp_path: Path) -> None:
    index = fr.Index.load(forged(tmp_path / "a", row(np.nan), metric, ids=IDS))
    found = index.search(ROWS[:5], 10, score_dtype="float64")
    others = np.arange(N) != BAD
    expected = oracle.topk(ROWS[:5], ROWS[others], 10, metric, ids=IDS[others])
    oracle.assert_same(found, expected)


def test_a_file_without_codes_is_read_when_they_are_made(tmp_path: Path) -> None:
    def change(header: dict[str, Any], data: bytearray) -> None:
        row(np.nan)(header, data)
        begin, end = header["codes"]["data_offsets"]
        del data[begin:end], header["codes"], header["__metadata__"]["codes"]
        del header["__metadata__"]["crc32.codes"]
        header["rows"]["data_offsets"] = [0, len(data)]

    path = forged(tmp_path / "a", change)
    with pytest.raises(StorageError, match=f"finite numbers in the row with id {BAD}"):
        fr.Index.load(path)


def test_commands_and_galleries_look_at_codes(tmp_path: Path) -> None:
    path = forged(tmp_path / "a", shuffled)
    (fault,) = describing.index_file(path, check=True)["faults"]
    assert re.match(rf"{path}: at byte [0-9]+: expected the codes that the vectors", fault)

    write_pictures(tmp_path / "pictures", 70)
    with new_gallery(tmp_path / "made") as gallery:
        gallery.add(tmp_path / "pictures", progress=False)
    (path,) = (tmp_path / "made" / "vectors").iterdir()
    forge(path, one_bit)
    connection = sqlite3.connect(tmp_path / "made" / "items.sqlite")
    with connection:
        connection.execute("UPDATE segment SET sha256 = ?", (file_sha256(path),))
    connection.close()
    with Gallery.open(tmp_path / "made") as gallery:
        (fault,) = gallery.check()
    assert re.match(rf"{path}: at byte [0-9]+: expected the codes that the vectors", fault)
