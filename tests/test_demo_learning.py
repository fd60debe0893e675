"""The part of the demo that trains: what it leaves, and what the next run makes of that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fastretrieve.data.fashion_mnist import Pictures, Split
from fastretrieve.demo import learning
from fastretrieve.demo.learning import Learned, learn
from fastretrieve.encoders.saved.files import WEIGHTS
from fastretrieve.gallery import Gallery
from fastretrieve.training.journal import Journal


def bars(n: int, seed: int) -> Split:
    """Noisy pictures of an upright or a lying bar, at random places."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (n, 16, 16), np.uint8)
    labels = np.arange(n) % 2
    for image, label in zip(images, labels, strict=True):
        at = rng.integers(2, 13)
        (image.T if label else image)[at : at + 2] = 255
    return Split(images, labels)


PICTURES = Pictures("Bars", "here", bars(600, 0), bars(60, 1), ("lying", "upright"))


SMALLER = {"EPOCHS_OF_FEW": 2, "WIDTH": 4, "DIM": 16, "ASKED": 2}


def quick_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALLER.items():
        monkeypatch.setattr(learning, name, value)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_settings(monkeypatch)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Learned, str]:
    """A first run's folder, what it learned, and what it said."""
    out = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as now:
        quick_settings(now)
        return out, *run(out)


@pytest.fixture
def done(first: tuple[Path, Learned, str], tmp_path: Path) -> Path:
    """A copy of what the first run left."""
    return shutil.copytree(first[0], tmp_path / "out")


def run(out: Path, *, fresh: bool = False) -> tuple[Learned, str]:
    """What was learned, and what was said."""
    console = Console(width=200, quiet=False)
    with console.capture() as said:
        learned = learn(PICTURES, out, console=console, fresh=fresh)
    learned.gallery.close()
    return learned, said.get()


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("this should not have been called")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def n_epochs(out: Path) -> int:
    lines = (out / "bars.encoder" / "training" / "log.jsonl").read_text().splitlines()
    return sum(json.loads(line)["event"] == "epoch" for line in lines)


def test_it_trains_fills_a_gallery_and_encodes_the_queries(
    first: tuple[Path, Learned, str],
) -> None:
    out, learned, said = first
    assert "16 x 16 pixels in, 16 numbers out, 2 passes\n" in said
    assert "loss " in said
    assert "on pictures held out" in said
    assert f"{out / 'bars.gallery'}: 600 added" in said
    assert "ms to encode it" in said
    rows, queries = learned.space.data
    assert (rows.shape, queries.shape) == ((600, 16), (60, 16))
    nearest = (queries @ rows.T).argmax(1)
    assert (learned.space.labels[nearest] == learned.space.wanted).mean() > 0.9
    for row in (0, 7, 599):
        picture = np.asarray(learned.picture(row))
        np.testing.assert_array_equal(picture, PICTURES.gallery.images[row])


def test_a_second_run_finds_it_done(
    first: tuple[Path, Learned, str], done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "train", refuse)
    again, said = run(done)
    assert "is there from an earlier run; --fresh trains anew" in said
    assert "recall@1" in said
    assert "600 unchanged" in said
    np.testing.assert_array_equal(first[1].space.data.rows, again.space.data.rows)
    np.testing.assert_array_equal(first[1].space.data.queries, again.space.data.queries)


def test_a_run_stopped_after_the_training_goes_on_there(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(done / "bars.gallery")
    with monkeypatch.context() as now:
        now.setattr(Gallery, "add", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(done)
    monkeypatch.setattr(learning, "train", refuse)
    assert "600 added" in run(done)[1]


def test_a_run_stopped_in_the_training_goes_on_there(
    first: tuple[Path, Learned, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as now:
        now.setattr(Journal, "sheet", interrupt)  # after the first epoch
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert not (tmp_path / "bars.gallery").exists()
    resumed, _ = run(tmp_path)
    assert n_epochs(tmp_path) == 2
    np.testing.assert_array_equal(first[1].space.data.rows, resumed.space.data.rows)


def test_fresh_trains_anew_and_empties_the_gallery(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "EPOCHS_OF_FEW", 1)
    assert "600 added" in run(done, fresh=True)[1]
    assert n_epochs(done) == 1


@pytest.mark.parametrize("what", ["other settings", "damaged weights"])
def test_an_encoder_that_will_not_do_is_trained_anew(
    what: str, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "other settings":
        monkeypatch.setattr(learning, "DIM", 8)
    else:
        (done / "bars.encoder" / WEIGHTS).write_bytes(b"cut off")
    learned, said = run(done)
    assert "trained in" in said
    with Gallery.open(done / "bars.gallery") as opened:
        assert opened.manifest.dim == learning.DIM
        assert len(opened) == len(learned.space.data.rows) == 600
