"""The verbs of the gallery as people and programs type them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import fastretrieve as fr
from fastretrieve import cli
from fastretrieve.data import read_item
from fastretrieve.encoders import create_encoder
from fastretrieve.gallery import Gallery
from fastretrieve.gallery.lookup import queries
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
    assert told("index", made, photos, "--encoder", "pixels", "--image-size", 8)["unchanged"] == 13


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--encoder", "pretrained"), r"made with another encoder \(pixels\) than pretrained"),
        (("--metric", "l2"), "made with the metric cosine, not l2"),
        (("--image-size", 9), r"image_size=\(8, 8\) instead of 9"),
        (("--dim", 5), "dim=192 instead of 5"),
    ],
)
def test_index_goes_on_only_with_what_the_gallery_was_made_with(
    made: Path, photos: Path, option: tuple[str, object], message: str
) -> None:
    shown = RUNNER.invoke(cli.app, ["index", str(made), str(photos), *map(str, option)])
    assert shown.exit_code == 1
    assert re.search(message, str(shown.exception)), shown.exception


def test_a_trained_encoder_may_be_given_with_the_options_that_it_has(
    photos: Path, tmp_path: Path
) -> None:
    create_encoder("pixels", image_size=8).save(tmp_path / "enc")
    options = ("--encoder", tmp_path / "enc", "--image-size")
    assert told("index", tmp_path / "g", photos, *options, 8)["added"] == 12
    assert told("index", tmp_path / "g", photos, *options, 8)["unchanged"] == 12
    shown = RUNNER.invoke(cli.app, [str(a) for a in ("index", tmp_path / "h", photos, *options, 9)])
    assert "is made already, with image_size=(8, 8) instead of 9" in str(shown.exception)
    assert not (tmp_path / "h").exists()


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
    assert re.search(r"\d+ ms to load the encoder, [\d.]+ ms to read and encode, [\d.]+ ms", text)
    assert "encoder" not in run("search", made, 1).splitlines()[-1]
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
    assert "1 group; 1 item could go" in run("duplicates", made, "--threshold", "0.99999")
    assert told("remove", made, photos / "bag" / "copy.png")["items"] == 12
    assert told("remove", made, "--where", "label = 'bag'")["removed"] == 6
    written = told("export", made, tmp_path / "i.csv", tmp_path / "v.npy")  # in any order
    assert written == {"items": 6, "files": [str(tmp_path / "i.csv"), str(tmp_path / "v.npy")]}
    assert np.load(tmp_path / "v.npy").shape == (6, 192)
    assert "wrote 6 items to" in run("export", made, tmp_path / "i.jsonl")
    facts = told("info", made, "--check")
    assert (facts["items"], facts["faults"], facts["labels"]) == (6, [], {"boot": 6})
    assert "boot (6)" in run("info", made)
    assert told("remove", made, photos / "boot") == {"removed": 6, "items": 0}
    assert "nothing was found" in run("search", made, photos / "boot" / "00001.png")


def test_info_of_an_index_file_and_of_an_encoder(made: Path, tmp_path: Path) -> None:
    index = fr.Index(4, metric="l2", dtype="float16")
    index.add(np.eye(4), ids=[5, 2, 9, 4])
    path = tmp_path / "a.index"
    index.save(path)
    facts = told("info", path, "--check")
    assert (facts["rows"], facts["dim"], facts["metric"], facts["dtype"]) == (4, 4, "l2", "float16")
    assert (facts["ids"], facts["next_id"], facts["faults"]) == ("2 to 9", 10, [])
    assert "2 to 9" in run("info", path)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert told("info", path)["rows"] == 4
    assert "the file is damaged" in run("info", path, "--check", code=1)
    facts = told("info", made / "encoder", "--check")
    assert (facts["encoder"], facts["faults"]) == ("pixels", [])
    assert "image_size=[8, 8]" in facts["options"]
    (made / "encoder" / "weights.safetensors").write_bytes(b"")
    assert "does not belong to its" in run("info", made / "encoder", "--check", code=1)
    for name, content in (("empty", b""), ("short", b"x"), ("picture.png", b"\x89PNG" * 99)):
        (tmp_path / name).write_bytes(content)
        shown = RUNNER.invoke(cli.app, ["info", str(tmp_path / name)])
        assert shown.exit_code == 1
        assert "is no index file that can be read: at byte" in str(shown.exception)


def test_adding_only_what_cannot_be_read_exits_with_1(made: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    assert "1 could not be read" in run("add", made, tmp_path / "bad.png", code=1)
    facts = json.loads(run("add", made, tmp_path / "bad.png", "--json", code=1))
    assert facts["items"] == 12
    write_pictures(tmp_path / "more", 1, first=40)
    assert told("add", made, tmp_path / "bad.png", tmp_path / "more")["added"] == 1


def test_serve_says_where_answers_and_ends_by_an_interrupt(made: Path) -> None:
    command = [sys.executable, "-m", "fastretrieve", "serve", str(made), "--port"]
    # Whatever started the tests may have had the signal ignored, which children inherit.
    with subprocess.Popen(
        [*command, "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"open (http://127\.0\.0\.1:(\d+))/", server.stdout.readline())
            assert address is not None
            with urllib.request.urlopen(f"{address[1]}/healthz") as answer:
                assert json.load(answer) == {"status": "ok"}
            again = subprocess.run(
                [*command, address[2]], capture_output=True, text=True, check=False
            )
            assert again.returncode == 1
            assert again.stderr.startswith("fastretrieve: cannot listen at 127.0.0.1, port")
            assert len(again.stderr.splitlines()) == 1
            assert again.stdout == ""
        finally:
            server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=60)
    assert (server.returncode, said) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "g", "--port", "70000"],
        ["serve", "g", "--max-upload-mb", "-1"],
        ["search", "g", "x.png", "-k", "0"],
        ["add", "g", "photos", "--workers", "-1"],
        ["add", "g", "photos", "--batch-size", "0"],
        ["add", "g"],
        ["export", "g"],
        ["search", "g"],
        ["explain", "g", "x.png"],
        ["train", "photos"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert RUNNER.invoke(cli.app, arguments).exit_code == 2


def test_serve_without_its_extra_says_how_to_get_it(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith("fastretrieve.server.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    shown = RUNNER.invoke(cli.app, ["serve", str(made)])
    assert shown.exit_code == 1
    assert "pip install fastapi uvicorn python-multipart prometheus-client" in str(shown.exception)


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


def test_train_then_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    read: list[Any] = []
    monkeypatch.setattr(
        queries, "read_item", lambda path, **o: (read.append(path), read_item(path, **o))[1]
    )
    label = opened.classify(tmp_path / "data" / "dark" / "0.png")
    assert len(read) == 1  # for the vector and for the head
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
        (["search", "GALLERY", "photos"], "is a folder; give one image"),
        (["export", "GALLERY", "v.txt"], "as .csv or .jsonl, got 'v.txt'"),
        (["export", "GALLERY", "a.csv", "b.jsonl"], "one .csv or .jsonl for the items"),
        (["info", "nowhere"], "is not a gallery"),
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
