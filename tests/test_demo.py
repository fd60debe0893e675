"""The demo, on pictures small enough for a test."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fastretrieve import cli, datasets, demo
from fastretrieve.datasets import Pictures, Split


def pictures() -> Pictures:
    """Ten kinds of pictures, each a bright row of its own, and a little noise."""
    rng = np.random.default_rng(5)

    def split(n: int) -> Split:
        labels = np.arange(n) % 10
        images = rng.integers(0, 40, (n, 10, 12))
        images[np.arange(n), labels] = 250
        return Split(images.astype(np.uint8), labels.astype(np.int64))

    return Pictures("bars", "a test", split(400), split(100), tuple("0123456789"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SECONDS", 0.01)
    monkeypatch.setattr(demo, "TIMED_QUERIES", 5)


def test_the_demo_searches_checks_times_and_draws(
    quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "choose_pictures", lambda *_, **__: pictures())
    shown = CliRunner().invoke(cli.app, ["demo", "--out", str(tmp_path / "new")])
    assert shown.exit_code == 0, shown.output
    assert "400 pictures" in shown.output
    assert "equal, bit for bit" in shown.output
    assert "in 100.00% of the queries" in shown.output
    with Image.open(tmp_path / "new" / "neighbours.png") as sheet:
        assert sheet.mode == "RGB"
        assert sheet.height > 10 * demo.TILE


def test_the_frame_is_green_for_the_right_label_and_red_for_a_wrong_one() -> None:
    some = pictures()
    ids = np.zeros((100, demo.K), np.int64)  # row 0, label 0, for everybody
    sheet = demo.draw(some, ids)
    x = demo.GAP * 3 + demo.TILE + 2 * demo.BORDER + demo.GAP + 1
    line = demo.TILE + 2 * demo.BORDER + demo.GAP
    right, wrong = sheet.getpixel((x, demo.GAP + 1)), sheet.getpixel((x, demo.GAP + line + 1))
    assert right == (0x1A, 0x7F, 0x37)
    assert wrong == (0xCF, 0x22, 0x2E)


def test_without_fashion_mnist_the_digits_stand_in_and_say_so(
    quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(datasets, "find_fashion_mnist", lambda: None)

    def refuse() -> Path:
        raise datasets.DatasetError("no network")

    monkeypatch.setattr(datasets, "download_fashion_mnist", refuse)
    shown = CliRunner().invoke(cli.app, ["demo", "--out", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "no network" in shown.output
    assert "digits stand in" in shown.output
    assert (tmp_path / "neighbours.png").is_file()


def test_no_download_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "find_fashion_mnist", lambda: None)
    monkeypatch.setattr(datasets, "download_fashion_mnist", pytest.fail)
    monkeypatch.setattr(datasets, "load_digits", pictures)
    found = demo.choose_pictures(demo.Console(quiet=True), download=False)
    assert found.name == "bars"


def test_a_wrong_answer_stops_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    some = pictures()
    data = demo.Data(demo._pixels(some.gallery.images), demo._pixels(some.queries.images))
    index = demo.fr.Index(120, metric="l2")
    index.add(data.rows[::-1].copy())
    with pytest.raises(demo.oracle.WrongAnswer):
        demo.check(index, data)


def test_the_demo_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import fastretrieve.demo"
    subprocess.run([sys.executable, "-c", code], check=True)
