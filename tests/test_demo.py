"""The demo as people meet it, on pictures small enough for a test."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import fastretrieve as fr
from fastretrieve import cli
from fastretrieve._common import needs
from fastretrieve.benchmarking import oracle
from fastretrieve.data import fashion_mnist as datasets
from fastretrieve.data.fashion_mnist import Pictures, Split
from fastretrieve.demo import command, comparing, sheet
from fastretrieve.demo.sheet import Group, SheetTile


def pictures() -> Pictures:
    """Ten kinds of pictures, each a bright row of its own, and a little noise."""
    rng = np.random.default_rng(5)

    def split(n: int) -> Split:
        labels = np.arange(n) % 10
        images = rng.integers(0, 40, (n, 10, 12))
        images[np.arange(n), labels] = 250
        return Split(images.astype(np.uint8), labels.astype(np.int64))

    return Pictures("bars", "a test", split(400), split(100), tuple("0123456789"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "SECONDS", 0.01)
    monkeypatch.setattr(comparing, "TIMED_QUERIES", 5)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    learning = pytest.importorskip("fastretrieve.demo.learning")
    monkeypatch.setattr(learning, "EPOCHS_OF_FEW", 1)
    monkeypatch.setattr(importlib.import_module("fastretrieve.demo.beyond"), "EPOCHS_OF_FEW", 1)
    monkeypatch.setattr(learning, "learn_pretrained", lambda *_, **__: None)
    monkeypatch.setattr(command, "choose_pictures", lambda *_, **__: pictures())


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "why_no_torch", lambda: "No module named 'torch'")


def demo(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["demo", *map(str, arguments)])


def test_it_trains_searches_draws_and_says_how_to_go_on(small: None, tmp_path: Path) -> None:
    out = tmp_path / "new"
    for line in ("400 added", "400 unchanged"):  # a second run finds it done
        shown = demo("--out", out)
        assert shown.exit_code == 0, shown.output
        assert "400 pictures to search, 100 to ask with" in shown.output
        assert line in shown.output
        assert ("a vae that draws such pictures" in shown.output) == (line == "400 added")
        assert re.search(r"raw pixels +120 +100.0% +100.0%", shown.output)
        assert re.search(r"the trained cnn +64 ", shown.output)
        assert f"serve {out / 'bars.gallery'}" in shown.output
    with Image.open(out / "neighbours.png") as picture:
        assert picture.mode == "RGB"
        assert picture.height > 10 * sheet.LINE + 2 * 320  # an imagined search, an explanation
    lines = [line for line in shown.output.splitlines() if line.startswith("search  ")]
    typed = shlex.split(lines[0])  # what it says to type works
    found = CliRunner().invoke(cli.app, typed[typed.index("fastretrieve") + 1 :])
    assert found.exit_code == 0, found.output
    assert (out / "found.png").is_file()


def test_a_row_of_pretrained_joins_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    learning = pytest.importorskip("fastretrieve.demo.learning")
    monkeypatch.setattr(learning, "PRETRAINED", "pixels")  # stands for it
    monkeypatch.setitem(needs.NEEDS, "pixels", {"numpy": "numpy"})
    monkeypatch.setattr(learning, "PRETRAINED_OPTIONS", {"image_size": 8})
    monkeypatch.setattr(learning, "PRETRAINED_SHOWN", 200)
    monkeypatch.setattr(learning, "PRETRAINED_ASKED", 3)  # fewer than there are kinds
    console = command.Console(record=True, width=200)
    for added in ("200 added", "200 unchanged"):  # a second run finds it done
        learned = learning.learn_pretrained(pictures(), tmp_path, console=console)
        told = console.export_text()
        assert added in told
        assert "only 200 of the pictures, 10 of the queries" in told
    assert learned.space.name == "pixels"  # which has nothing to fit
    found = [comparing.compare(space) for space in (learned.space, command.pixels_of(pictures()))]
    drawn = command.draw(pictures(), found, [learned])
    assert drawn.width > 10 * sheet.PITCH
    learned.gallery.close()
    monkeypatch.setitem(needs.NEEDS, "pixels", {"no_such_module": "none"})
    assert learning.learn_pretrained(pictures(), tmp_path, console=console) is None


def test_without_torch_it_compares_raw_pixels_and_says_what_is_missing(
    small: None, without_torch: None, tmp_path: Path
) -> None:
    shown = demo("--out", tmp_path)
    assert shown.exit_code == 0, shown.output
    assert re.search(r"raw pixels +120 +100.0%", shown.output)
    assert "pip install torch" in shown.output
    assert "cnn" not in shown.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["neighbours.png"]


def test_that_part_really_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import test_demo\n"
        "test_demo.comparing.SECONDS = 0.01\n"
        "test_demo.command.choose_pictures = lambda *_, **__: test_demo.pictures()\n"
        "test_demo.cli.app(['demo', '--out', sys.argv[1]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "pip install torch" in done.stdout


def test_without_faiss_the_table_has_no_column_for_it(
    small: None, without_torch: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "version_of", lambda _: None)
    shown = demo("--out", tmp_path).output
    assert "x  \n" not in shown
    assert "pip install faiss-cpu" in shown


def test_an_interrupted_demo_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "choose_pictures", interrupt)
    shown = demo("--out", tmp_path)
    assert shown.exit_code == 130
    assert "the same command goes on from here" in shown.output


def test_without_fashion_mnist_the_digits_stand_in_and_say_so(
    without_torch: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(datasets, "find_fashion_mnist", lambda: None)

    def refuse() -> Path:
        raise datasets.DatasetError("no network")

    monkeypatch.setattr(datasets, "fetch_fashion_mnist", refuse)
    stand_in = datasets.load_stand_in(n_shown=300, n_asked=100)
    monkeypatch.setattr(datasets, "load_stand_in", lambda: stand_in)
    shown = demo("--out", tmp_path)
    assert shown.exit_code == 0, shown.output
    assert "no network" in shown.output
    assert "digits stand in, made harder to find" in shown.output
    assert "cluttered digits, 300 pictures to search" in shown.output
    assert (tmp_path / "neighbours.png").is_file()


def test_no_download_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "find_fashion_mnist", lambda: None)
    monkeypatch.setattr(datasets, "fetch_fashion_mnist", pytest.fail)
    monkeypatch.setattr(datasets, "load_stand_in", pictures)
    found = command.choose_pictures(command.Console(quiet=True), download=False)
    assert found.name == "bars"


def test_no_pictures_at_all_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets, "find_fashion_mnist", lambda: None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setattr(sys, "argv", ["fastretrieve", "demo", "--no-download"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert "fastretrieve: no Fashion-MNIST here and no scikit-learn" in capsys.readouterr().err


def test_a_wrong_answer_stops_the_demo() -> None:
    data = command.pixels_of(pictures()).data
    index = fr.Index(120, metric="cosine")
    index.add(data.rows[::-1].copy())
    with pytest.raises(oracle.WrongAnswer):
        comparing.check(index, data)


def test_recall_and_precision_count_labels() -> None:
    rows = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]]
    labels = np.array(list("aaabbbbbcccc"))
    queries = np.eye(4, dtype=np.float32)[[0, 1]]
    found = comparing.compare(comparing.space_of("x", rows, labels, queries, np.array(["a", "b"])))
    # Ties go to the smaller row: aa, then aabbbb bb; and ab, then aabbbbcc.
    assert found.recall == 0.5
    assert found.precision == (3 + 5) / 20


def test_a_wrong_neighbour_is_framed_in_red_and_a_right_one_is_not() -> None:
    black = Image.new("L", (28, 28))
    query, wrong = SheetTile(black, "bag"), SheetTile(black, "boot")
    drawn = sheet.draw([query], [Group("by pixels", "", [[wrong, query]])])
    top, left = sheet.HEAD + sheet.TILE // 2, sheet.MARGIN + sheet.PITCH + sheet.APART
    assert drawn.getpixel((left - 2, top)) == (0xCF, 0x22, 0x2E)
    assert drawn.getpixel((left + sheet.PITCH - 2, top)) == (255, 255, 255)
    assert drawn.getpixel((left + 2, top)) == (0, 0, 0)


def test_it_names_itself_so_that_the_shell_finds_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "env" / "bin" / "fastretrieve"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), "demo"])
    monkeypatch.setenv("PATH", "")
    assert command.own_command() == os.path.join("env", "bin", "fastretrieve")
    monkeypatch.setenv("PATH", str(script.parent))
    assert command.own_command() == "fastretrieve"
    monkeypatch.setattr(sys, "argv", ["/somewhere/fastretrieve/__main__.py", "demo"])
    assert command.own_command() == "python -m fastretrieve"
