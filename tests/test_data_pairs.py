"""Pairs as data: two folders, two lists, a table of two paths."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import fastretrieve as fr
from data_files import (
    PICTURES,
    grey,
)
from fastretrieve import cli
from fastretrieve.data import DataError, open_dataset


def two_folders(root: Path, n: int = 6) -> tuple[Path, Path]:
    for side, shade in (("ink", 0), ("wax", 40)):
        for i in range(n):
            path = root / side / "deep" / f"{i}.{'png' if shade else 'bmp'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(PICTURES[i] // 2 + shade).save(path)
    return root / "ink", root / "wax"


def test_two_folders_with_equal_names_are_pairs(tmp_path: Path) -> None:
    ink, wax = two_folders(tmp_path)
    Image.new("L", (4, 4)).save(ink / "alone.png")
    data = open_dataset((ink, wax), pairs=True)
    assert data.labels.tolist() == [i // 2 for i in range(12)]
    assert data.columns["side"].tolist() == ["ink", "wax"] * 6
    assert data.classes[1] == "deep/1"
    np.testing.assert_array_equal(grey(data.read(3)), PICTURES[1] // 2 + 40)
    assert [Path(one.key).name for one in data.skipped] == ["alone.png"]
    assert open_dataset(tmp_path, pairs=True).labels.tolist() == data.labels.tolist()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_table_of_two_paths_is_pairs(suffix: str, tmp_path: Path) -> None:
    two_folders(tmp_path)
    rows = [
        {"path_a": f"ink/deep/{i}.bmp", "path_b": f"wax/deep/{i}.png", "hand": "left"}
        for i in range(3)
    ]
    rows.append({"path_a": "", "path_b": "x.png", "hand": ""})
    path = tmp_path / f"pairs{suffix}"
    if suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        path.write_text("\n".join(lines))
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    data = open_dataset(path)
    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.columns["hand"].tolist() == ["left"] * 6
    assert "no paths" in data.skipped[0].reason
    named = tmp_path / f"named{suffix}"
    named.write_text(path.read_text().replace("path_a", "sketch").replace("path_b", "photo"))
    assert open_dataset(named, pairs=("sketch", "photo")).labels.tolist() == data.labels.tolist()
    with pytest.raises(DataError, match=r"pairs=\('a', 'b'\)"):
        open_dataset(named, pairs=True)


def test_pairs_that_share_an_item_are_one_class(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("anchor,positive\na.png,b.png\nc.png,d.png\nb.png,e.png\n")
    data = open_dataset(path)
    assert [Path(data.key(i)).stem for i in range(len(data))] == ["a", "b", "c", "d", "e"]
    assert data.labels.tolist() == [0, 0, 1, 1, 0]


def test_two_lists_are_pairs() -> None:
    data = open_dataset((PICTURES[:3], PICTURES[3:6]), pairs=True)
    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(data.read_many(np.arange(6)), PICTURES[[0, 3, 1, 4, 2, 5]])
    with pytest.raises(DataError, match="have one length, got 2 and 1"):
        open_dataset((PICTURES[:2], PICTURES[:1]), pairs=True)


def test_pairs_train_by_library_and_command(tmp_path: Path) -> None:
    ink, wax = two_folders(tmp_path)
    cnn = fr.create_encoder("cnn", dim=4, image_size=8, channels=1, width=2)
    fr.train(cnn, open_dataset((ink, wax), pairs=True), epochs=1, progress=False)
    assert len(cnn.classes) == 6
    options = ["--image-size", "8", "--dim", "4", "--epochs", "1", "--out", str(tmp_path / "e")]
    done = CliRunner().invoke(cli.app, ["train", str(ink), "--pairs", str(wax), *options])
    assert done.exit_code == 0, done.output
