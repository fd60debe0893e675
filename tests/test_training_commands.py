"""``fastretrieve train``: what a person types, and what they are told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from fastretrieve.encoders.models.vae import VaeEncoder
from fastretrieve.encoders.registry import load_encoder
from fastretrieve.training.commands import parsed_options, train
from training_helpers import SIDE, fit, small, stripes

APP = typer.Typer()
APP.command()(train)
SMALL = ("--dim", 4, "--image-size", SIDE, "--channels", 1, "--option", "width=4")


def run(*arguments: object, fails: bool = False) -> str:
    done = CliRunner().invoke(APP, [str(argument) for argument in arguments])
    if fails:
        return str(done.exception)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    images, labels = stripes(24)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{i}.png")
    return folder


def test_it_names_the_figures_and_what_was_skipped(photos: Path, tmp_path: Path) -> None:
    (photos / "1" / "broken.png").write_bytes(b"nothing")
    out = tmp_path / "encoder"
    told = run(photos, *SMALL, "--epochs", 2, "--out", out)
    assert f"wrote {out}: epoch 2, loss" in told
    assert "1 skipped, such as" in told
    assert "broken.png" in told
    facts = json.loads(run(photos, "--encoder", out, "--epochs", 1, "--out", out, "--json"))
    assert facts["epoch"] == 1
    assert [Path(bad["key"]).name for bad in facts["skipped"]] == ["broken.png"]
    assert load_encoder(out).config["width"] == 4


def test_a_film_encoder_takes_its_options(tmp_path: Path) -> None:
    for label in ("left", "right"):
        for i in range(4):
            (tmp_path / "clips" / label).mkdir(parents=True, exist_ok=True)
            places = range(4) if label == "right" else range(4, 0, -1)
            frames = [Image.fromarray(np.eye(12, k=3 * at, dtype=np.uint8) * 255) for at in places]
            path = tmp_path / "clips" / label / f"{i}.gif"
            frames[0].save(path, save_all=True, append_images=frames[1:])
    options = ("--option", "frame-size=12", "--option", "hidden=8", "--option", "cell=lstm")
    out = tmp_path / "rnn"
    run(tmp_path / "clips", "--encoder", "rnn", *options, "--epochs", 1, "--out", out)
    assert load_encoder(out).config["cell"] == "lstm"


def test_drawings_join_by_an_option(photos: Path, tmp_path: Path) -> None:
    artist = small(VaeEncoder)
    fit(artist, out=tmp_path / "vae")
    made = ("--synthetic", tmp_path / "vae", "--share", 0.25, "--balanced", "--epochs", 1)
    told = run(photos, *SMALL, *made, "--validation", photos, "--out", tmp_path / "encoder")
    assert "drawings were added: recall@1" in told


def test_what_cannot_be_done_is_said(photos: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "encoder")
    assert "no encoder is called 'nosuch'" in run(photos, "--encoder", "nosuch", *out, fails=True)
    assert "is name=value, got 'width'" in run(photos, "--option", "width", *out, fails=True)
    assert "its options are" in run(photos, "--option", "depth=3", *out, fails=True)
    fit(small(), out=tmp_path / "saved")
    told = run(photos, "--encoder", tmp_path / "saved", "--dim", 8, *out, fails=True)
    assert "its dim stay" in told


def test_values_are_json_or_words() -> None:
    found = parsed_options(["image-size=[48, 64]", "noise=0.2", "cell=lstm", "name=a=b"])
    assert found == {"image_size": [48, 64], "noise": 0.2, "cell": "lstm", "name": "a=b"}
