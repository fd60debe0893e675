"""The verbs of the gallery as people and programs type them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fastretrieve import cli
from fastretrieve.gallery import Gallery
from gallery_helpers import class_folders, picture, write_pictures

RUNNER = CliRunner()


def run(*arguments: object, code: int = 0) -> str:
    shown = RUNNER.invoke(cli.app, [str(a) for a in arguments])
    assert shown.exit_code == code, shown.output + repr(shown.exception)
    return shown.output


def told(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos")


@pytest.fixture
def made(tmp_path: Path, photos: Path) -> Path:
    path = tmp_path / "photos.gallery"
    text = run("index", path, photos, "--encoder", "pixels", "--image-size", "8")
    assert "12 added" in text
    assert "holds 12 items" in text
    return path


def test_index_makes_a_gallery_and_goes_on_with_it(made: Path, photos: Path) -> None:
    assert Gallery.open(made).encoder.image_size == (8, 8)
    write_pictures(photos / "boot", 1, first=70)
    facts = told("index", made, photos)
    assert (facts["added"], facts["unchanged"], facts["items"]) == (1, 12, 13)
    shown = RUNNER.invoke(cli.app, ["index", str(made), str(photos), "--encoder", "pretrained"])
    assert shown.exit_code == 1
    assert "made with another encoder (pixels)" in str(shown.exception)


def test_add_and_update(made: Path, photos: Path) -> None:
    (photos / "boot" / "bad.png").write_text("no")
    facts = told("add", made, photos)
    assert facts["unchanged"] == 12
    assert "bad.png" in facts["unreadable"][0]["key"]
    (photos / "boot" / "00000.png").unlink()
    assert told("update", made)["items"] == 11
    listed = told("info", made, "--unreadable")["unreadable_items"]
    assert [Path(path).name for path in listed] == ["bad.png"]


def test_search_shows_a_table_a_picture_or_json(made: Path, photos: Path, tmp_path: Path) -> None:
    query = photos / "boot" / "00002.png"
    text = run("search", made, query, "-k", 3, "--where", "label = 'boot'", "--save",
               tmp_path / "r.png")  # fmt: skip
    assert text.count("boot") >= 3
    assert str(query) in text
    with Image.open(tmp_path / "r.png") as sheet:
        assert sheet.width > 500
    run("search", made, query, "--save", tmp_path / "r.html")
    assert "<main>" in (tmp_path / "r.html").read_text()
    found = told("search", made, query, "-k", 2)
    assert found["matches"][0]["score"] == pytest.approx(1)
    first = found["matches"][0]["id"]
    assert first not in [match["id"] for match in told("search", made, first)["matches"]]


def test_remove_duplicates_export_and_info(made: Path, photos: Path, tmp_path: Path) -> None:
    picture(3).save(photos / "bag" / "copy.png")
    run("add", made, photos)
    (group,) = told("duplicates", made, "--threshold", "0.99999")
    assert len(group) == 2
    assert "1 groups; 1 items could go" in run("duplicates", made, "--threshold", "0.99999")
    assert told("remove", made, photos / "bag" / "copy.png")["items"] == 12
    assert told("remove", made, "--where", "label = 'bag'")["removed"] == 6
    run("export", made, tmp_path / "v.npy", tmp_path / "i.csv")
    assert np.load(tmp_path / "v.npy").shape == (6, 192)
    facts = told("info", made, "--check")
    assert (facts["items"], facts["faults"], facts["labels"]) == (6, [], {"boot": 6})
    assert "boot (6)" in run("info", made)


def test_info_check_exits_with_1_on_damage(made: Path) -> None:
    (path,) = (made / "vectors").iterdir()
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert path.name in run("info", made, "--check", code=1)


def test_evaluate(made: Path, photos: Path, tmp_path: Path) -> None:
    figures = told("evaluate", made, photos)
    assert figures["metrics"]["accuracy"] == 1  # every query finds itself
    assert figures["n_gallery"] == 12
    alone = told("evaluate", made)
    assert alone["n_queries"] == 12
    assert alone["metrics"]["accuracy"] < 1
    run("evaluate", made, photos, "--report", tmp_path / "report.html")
    assert (tmp_path / "report.html").exists()


def test_train_then_index(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label, shade in (("dark", 60), ("light", 190)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(24):
            noise = rng.normal(shade, 20, (16, 16)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(tmp_path / "data" / label / f"{i}.png")
    size = ("--dim", 8, "--image-size", 16, "--channels", 1, "--epochs", 2)
    out = tmp_path / "enc"
    facts = told("train", tmp_path / "data", "--encoder", "cnn", *size, "--out", out)
    assert facts["out"] == str(tmp_path / "enc")
    run("index", tmp_path / "g", tmp_path / "data", "--encoder", tmp_path / "enc")
    opened = Gallery.open(tmp_path / "g")
    label = opened.classify(tmp_path / "data" / "dark" / "0.png")
    assert label.label == "dark"
    assert label.head is not None
    assert set(label.head) == {"dark", "light"}
    assert sum(label.head.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "nowhere", "x.jpg"], "is not a gallery"),
        (["search", "GALLERY", "nowhere.jpg"], "does not exist"),
        (["search", "GALLERY", "1", "--where", "nosuch = 1"], "no such column"),
        (["remove", "GALLERY"], "give one of them"),
        (["remove", "GALLERY", "4711"], "no item 4711"),
        (["add", "GALLERY", "nowhere"], "does not exist"),
        (["index", "new.gallery", "photos", "--encoder", "cnn"], "not trained"),
        (["index", "new.gallery", "photos", "--encoder", "nosuch"], "no encoder is called"),
    ],
)
def test_errors_are_one_sentence(
    made: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    command = [sys.executable, "-m", "fastretrieve"]
    command += [str(made) if a == "GALLERY" else a for a in arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("fastretrieve: ")
    assert len(done.stderr.strip().splitlines()) == 1
