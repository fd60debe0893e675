"""Words in the shell, on sheets and pages that are saved, and what explains them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from colour_words import ColourWords, ColourWordsInParts, painted, shade
from fastretrieve import cli
from fastretrieve.gallery import Gallery, GalleryError, asking, explaining
from fastretrieve.gallery.lookup.words import WEIGHT

MINE = f"{Path(__file__).with_name('colour_words.py')}:ColourWordsInParts"


def half(left: str, right: str) -> Image.Image:
    """A picture whose left half has one colour and its right half another."""
    both = shade(left)
    both.paste(shade(right), (8, 0))
    return both


@pytest.fixture(scope="module", params=[ColourWordsInParts, ColourWords])
def gallery(tmp_path_factory: pytest.TempPathFactory, request: Any) -> Gallery:
    folder = tmp_path_factory.mktemp("fronts")
    made = Gallery.create(folder / "g", encoder=request.param())
    photos = painted(folder / "photos")
    half("red", "blue").save(photos / "half.png")
    made.add(photos)
    return made


def two_coloured(gallery: Gallery) -> int:
    (found,) = [item.id for item in gallery.items() if item.name == "half.png"]
    return found


def sum_of(one: Any) -> float:
    return float(one.parts.sum() + one.constant)


def test_heat_lies_where_the_words_are(gallery: Gallery) -> None:
    item = two_coloured(gallery)
    why = gallery.explain(item=item, text="a blue boot")
    score = next(m.score for m in gallery.search(text="a blue boot", k=20) if m.item.id == item)
    assert why.score == pytest.approx(score, abs=1e-6)
    middle = why.item.heat.shape[1] // 2
    assert why.item.heat[:, middle:].sum() > 0.99
    other = gallery.explain(item=item, text="red")
    assert other.item.heat[:, :middle].sum() > 0.99
    assert sum_of(why.item) == pytest.approx(why.score, abs=1e-5)
    assert why.is_exact == ("parts" in gallery.encoder.capabilities)
    assert sum_of(why.query) == why.score
    assert not why.query.heat.any()


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_both_maps_sum_to_the_score_of_the_mix(gallery: Gallery, weight: float) -> None:
    query, item = half("red", "green"), two_coloured(gallery)
    why = gallery.explain(query, item, text="blue", weight=weight)
    found = gallery.search(query, text="blue", weight=weight, k=20)
    score = next(m.score for m in found if m.item.id == item)
    assert why.score == pytest.approx(score, abs=1e-6)
    for one in (why.query, why.item):
        assert sum_of(one) == pytest.approx(why.score, abs=1e-5)
    if weight == 0:
        assert why.item.parts == pytest.approx(gallery.explain(query, item).item.parts, abs=1e-9)
    if weight == 1 and why.is_exact:
        assert not why.query.parts.any()  # the picture says nothing any more
        assert why.item.parts == pytest.approx(
            gallery.explain(item=item, text="blue").item.parts, abs=1e-9
        )


@pytest.mark.parametrize("metric", ["ip", "l2", "sqeuclidean"])
def test_other_metrics_sum_too(tmp_path: Path, metric: str) -> None:
    made = Gallery.create(tmp_path / "g", encoder=ColourWordsInParts(), metric=metric)
    made.add(painted(tmp_path / "photos"))
    item = made.search(text="red", k=3)[2]
    for why, score in (
        (made.explain(item=item.item, text="red"), item.score),
        (
            made.explain(shade("green"), item.item, text="red", weight=0.8),
            next(m.score for m in made.search(shade("green"), text="red", weight=0.8, k=12)
                 if m.item.id == item.item.id),
        ),
    ):  # fmt: skip
        assert why.score == pytest.approx(score, rel=1e-5)
        assert [sum_of(why.query), sum_of(why.item)] == pytest.approx([score] * 2, rel=1e-5)


def test_an_explanation_shows_its_words(gallery: Gallery) -> None:
    item = two_coloured(gallery)
    alone = gallery.explain(item=item, text="blue")
    assert 'with "blue": ' in str(alone)
    assert len(str(alone).splitlines()) == 1
    told = alone.to_dict()
    assert (told["text"], told["query"]["title"], told["query"]["parts"]) == (
        "blue", '"blue"', [[0.0]],
    )  # fmt: skip
    both = gallery.explain(shade("red"), item, text="blue", weight=0.25)
    assert len(str(both).splitlines()) == 2
    assert both.to_dict()["weight"] == 0.25
    widths = [why.image().width for why in (alone, both)]
    assert widths == [12 + n * (320 + 12) for n in (3, 5)]  # tiles


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"text": "blue"}, "item is the match to explain: .*item=17, text="),
        ({"item": 1}, "with words .* got neither"),
        ({"item": 1, "text": "blue", "region": (0, 0, 4, 4)}, "region: words have no picture"),
        ({"item": 1, "text": " "}, "and it is empty"),
    ],
)
def test_what_cannot_be_explained(gallery: Gallery, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(GalleryError, match=told):
        gallery.explain(**asked)


def test_sheets_and_pages_show_the_words(gallery: Gallery, tmp_path: Path) -> None:
    plain = gallery.search(shade("red"), k=3)
    alone = gallery.search(text="red <b>&'\" boot", k=3)
    both = gallery.search(shade("red"), text="blue", weight=0.25, k=3)
    tiles = [found.image().width for found in (plain, alone, both)]
    assert tiles[0] == tiles[1] < tiles[2]
    assert alone.query is not None
    assert np.asarray(alone.query).std() > 0  # something is written there
    alone.to_html(tmp_path / "alone.html")
    both.to_html(tmp_path / "both.html")
    page = (tmp_path / "alone.html").read_text()
    assert "red &lt;b&gt;&amp;&#x27;&quot; boot" in page
    assert "<b>&" not in page
    assert "&quot;blue&quot;, weight 0.25" in (tmp_path / "both.html").read_text()
    assert '"blue"' in repr(both)


def run(*words: Any, fails: bool = False) -> str:
    done = CliRunner().invoke(cli.app, [*map(str, words)])
    assert (done.exit_code != 0) == fails, done.output
    return f"{done.exception} {done.output}" if fails else done.stdout


@pytest.fixture(scope="module")
def in_shell(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("shell")
    made = Gallery.create(folder / "g", encoder=MINE)
    made.add(painted(folder / "photos"))
    return made


def test_the_shell_asks_with_words(in_shell: Gallery, tmp_path: Path) -> None:
    shade("red").save(tmp_path / "query.png")
    asked = ("search", in_shell.path, "--encoder", MINE, "--json")
    told = json.loads(run(*asked, "--text", "a red boot", "-k", 3))
    assert [each["id"] for each in told["matches"]] == in_shell.search(text="red", k=3).ids
    told = json.loads(run(*asked, tmp_path / "query.png", "--text", "blue", "--weight", 0.9))
    wanted = in_shell.search(tmp_path / "query.png", text="blue", weight=0.9)
    assert ([each["id"] for each in told["matches"]], told["weight"]) == (wanted.ids, 0.9)
    assert "give an image" in run(*asked, fails=True)
    for verb in (asking.search, explaining.explain):
        assert inspect.signature(verb).parameters["weight"].default == WEIGHT


def test_the_shell_explains_words(in_shell: Gallery, tmp_path: Path) -> None:
    item = in_shell.search(text="green", k=1)[0].item
    shade("red").save(tmp_path / "query.png")
    asked = ("explain", in_shell.path, "--encoder", MINE)
    told = json.loads(run(*asked, item.id, "--text", "green", "--json"))
    assert told["text"] == "green"
    assert told["score"] == pytest.approx(in_shell.search(text="green", k=1)[0].score)
    run(*asked, tmp_path / "query.png", item.id, "--text", "green", "--save", tmp_path / "why.png")
    with Image.open(tmp_path / "why.png") as sheet:
        assert sheet.width > 1600  # five tiles
    assert "give the match" in run(*asked, item.id, fails=True)
