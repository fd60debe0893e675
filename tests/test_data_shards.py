"""Tar shards and Parquet files of pictures."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
from data_files import (
    PICTURES,
    grey,
    parquet,
    png,
    shard,
    shards,
)
from fastretrieve.data import DataError, arrays, open_dataset

# --- tar ------------------------------------------------------------------------------------------


def test_what_lies_beside_a_picture_becomes_label_caption_and_columns(tmp_path: Path) -> None:
    data = open_dataset(shards(tmp_path) / "set-val-000.tar")
    assert [data.label_name(i) for i in range(4)] == ["2", "0", "1", "2"]  # .cls before .json
    assert data.columns["caption"][0] == "picture 8"
    assert data.columns["camera"].tolist() == ["c0", "c1"] * 2
    assert data.key(0).endswith("set-val-000.tar#item=0008.png")


def test_folders_in_a_tar_name_classes(tmp_path: Path) -> None:
    names = {"./pets/cat/1.png": png(0), "./pets/dog/1.png": png(1)}
    data = open_dataset(shard(tmp_path / "a.tar", names))
    assert [data.label_name(i) for i in range(2)] == ["cat", "dog"]


def test_bad_members_are_skipped_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:

        def put(name: str, content: bytes, **about: Any) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in about.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))

        put("0.png", png(0))
        put("0.json", b"[1]")
        put("1.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        put("2.png", b"no picture")
        put("3.png", b"")
        put("4.jpg", png(4))
        put("4.cls", b"\xff\xfe")
        put("4.png", png(5))
        put("5.pyd", pickle.dumps(1))
    data = open_dataset(path)
    assert [data.key(i).partition("#item=")[2] for i in range(len(data))] == [
        "0.png",
        "2.png",
        "4.jpg",
    ]
    told = {one.key.partition("#item=")[2]: one.reason for one in data.skipped}
    assert told["0.json"] == "not a JSON object"
    assert told["1.png"].startswith("a link")
    assert told["3.png"].startswith("0 bytes")
    assert told["4.cls"] == "it is not UTF-8"
    assert told["4.png"].endswith("a picture already: 4.jpg")
    with pytest.raises(DataError, match=r"a\.tar#item=2\.png: not a readable image"):
        data.read(1)
    with fr.Gallery.create(tmp_path / "g", encoder="pixels", image_size=8) as gallery:
        result = gallery.add(path, progress=False)
        assert result.added == 2
        assert sum("2.png" in one.key for one in result.unreadable) == 1


def test_a_tar_that_is_cut_off_keeps_what_is_whole(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {f"{i}.png": png(i) for i in range(3)})
    path.write_bytes(path.read_bytes()[: 2 * 1024 + 512 + 20])
    data = open_dataset(path)
    assert len(data) == 2
    np.testing.assert_array_equal(grey(data.read(1)), PICTURES[1])
    assert "ends before it does" in data.skipped[0].reason


def test_a_tar_that_changed_is_not_read_at_old_places(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {"1.png": png(0)})
    data = open_dataset(path)
    shard(path, {"0.txt": b"x", "1.png": png(1), "2.png": png(1)})
    with pytest.raises(DataError, match="has changed since it was opened"):
        data.read(0)


def test_a_packed_tar_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"")
    for source in (tmp_path / "a.tar.gz", tmp_path):
        with pytest.raises(DataError, match="unpack it first"):
            open_dataset(source)


def test_a_pattern_names_shards(tmp_path: Path) -> None:
    shards(tmp_path)
    assert len(open_dataset(tmp_path / "set-*.tar")) == 12
    with fr.Gallery.create(tmp_path / "g", encoder="pixels", image_size=8) as gallery:
        assert gallery.add(str(tmp_path / "set-t*.tar"), progress=False).added == 8


# --- Parquet --------------------------------------------------------------------------------------


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match="needs pyarrow, which is not installed; pip install"):
        open_dataset(tmp_path / "a.parquet")


def test_parquet_columns_and_rows_without_a_picture(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [{"bytes": png(0), "path": None}, {"bytes": None, "path": "/etc/passwd"}]
    pq.write_table(pa.table({"photo": rows, "text": ["a", "b"]}), tmp_path / "a.parquet")
    data = open_dataset(tmp_path / "a.parquet")
    assert data.columns["text"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(grey(data.read(0)), PICTURES[0])
    with pytest.raises(DataError, match="row 1 holds no picture"):
        data.read(1)


def test_parquet_that_is_damaged_or_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path) / "train-00000-of-00001.parquet"
    whole = path.read_bytes()
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    many = tmp_path / "many.parquet"
    pq.write_table(pa.table({"image": [png(0)] * 40_000, "n": [1] * 40_000}), many)
    monkeypatch.setattr(arrays, "FREE_BYTES", 1 << 10)
    with pytest.raises(DataError, match="once it is unpacked, at most"):
        open_dataset(many)
    path.write_bytes(whole[:-40])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        open_dataset(path)
