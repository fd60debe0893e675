"""Words that ask: alone, beside a picture, with every other option, and where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastretrieve as fr
from colour_words import ColourWords, painted, shade
from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.lookup import wording
from gallery_helpers import new_gallery, picture
from test_gallery_combined import Painter


def made_in(folder: Path, *, encoder: Any = None, **options: Any) -> Gallery:
    made = Gallery.create(folder / "g", encoder=encoder or ColourWords(), **options)
    made.add(painted(folder / "photos"))
    made.clusters(4)
    return made


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return made_in(tmp_path_factory.mktemp("words"))


def colours(found: Any) -> list[str]:
    return [match.item.name.removesuffix(".png") for match in found]


def unit(vector: Any) -> Any:
    return np.asarray(vector, np.float64) / np.linalg.norm(vector)


def test_words_find_what_they_describe(gallery: Gallery) -> None:
    found = gallery.search(text="a red boot", k=3)
    assert colours(found) == ["red"] * 3
    rows = gallery.vectors(found.ids)
    wanted = [float(unit(row) @ (1, 0, 0, 0)) for row in rows]
    assert found.scores == pytest.approx(wanted, abs=1e-6)
    assert found.words is not None
    assert (found.title, found.words.text) == ('"a red boot"', "a red boot")
    told = found.to_dict()
    assert (told["query"], told["text"], "weight" in told) == ('"a red boot"', "a red boot", False)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_both_are_mixed_at_unit_length(gallery: Gallery, weight: float) -> None:
    found = gallery.search(shade("red"), text="but blue", weight=weight, k=12)
    query = gallery.encoder.encode(gallery.encoder.preprocess([shade("red")]))[0]
    mix = unit((1 - weight) * unit(query) + weight * np.array([0, 0, 1, 0]))
    scores = {item.id: float(unit(row) @ mix) for item, row in
              zip(gallery.items(), gallery.vectors(), strict=True)}  # fmt: skip
    assert found.scores == pytest.approx(sorted(scores.values(), reverse=True), abs=1e-6)
    assert found.scores == pytest.approx([scores[i] for i in found.ids], abs=1e-6)
    assert found.to_dict()["weight"] == weight
    assert found.title.endswith(', "but blue"')


def test_the_weight_moves_the_answer(gallery: Gallery) -> None:
    by_weight = [gallery.search(shade("red"), text="blue", weight=w, k=1) for w in (0.1, 0.9)]
    assert [colours(found) for found in by_weight] == [["red"], ["blue"]]


def test_an_item_beside_words_is_not_its_own_neighbour(gallery: Gallery) -> None:
    item = gallery.search(text="green", k=1)[0].item
    assert item.id not in gallery.search(item, text="green", k=12).ids
    assert gallery.search(item, text="green", include_self=True, k=1).ids == [item.id]


def test_words_meet_conditions_pages_clusters_and_variety(gallery: Gallery) -> None:
    found = gallery.search(text="red", where="label = 'dark'", k=2)
    assert [match.item.label for match in found] == ["dark"] * 2
    every = gallery.search(text="red", k=6).ids
    assert gallery.search(text="red", k=3, offset=3).ids == every[3:]
    inside = gallery.search(text="blue", k=12, within="cluster")
    assert colours(inside) == ["blue"] * 3
    assert inside.cluster == gallery.nearest_clusters(text="blue", k=1)[0].number
    varied = gallery.search(text="red", k=4, diversity=0.9)
    assert len(set(colours(varied))) > len(set(colours(gallery.search(text="red", k=4))))
    beside = gallery.nearest_clusters(shade("red"), text="blue", weight=1.0, k=1)
    assert beside[0].number == inside.cluster


def test_a_region_and_a_translation_go_before_the_words(gallery: Gallery) -> None:
    two = shade("red", size=20)
    two.paste(shade("green", size=10), (0, 0))
    part = gallery.search(two, region=(0, 0, 10, 10), text="green", weight=0.2, k=3)
    assert colours(part) == ["green"] * 3
    plain = gallery.search(shade("red"), text="green", k=1)
    cyan = gallery.search(shade("red"), translate=Painter(), text="green", k=1)  # the negative
    assert (colours(plain), colours(cyan)) == (["yellow"], ["green"])
    assert cyan.translation is not None


def test_words_are_mixed_into_what_is_imagined(gallery: Gallery) -> None:
    imagined = fr.Imagine(Painter(), n=3, spread=0.2, fusion="best")
    found = gallery.search(shade("red"), imagine=imagined, text="blue", weight=1.0, k=3)
    assert len(found.imagined) == 3
    assert colours(found) == ["blue"] * 3
    assert found.scores == pytest.approx(gallery.search(text="blue", k=3).scores, abs=1e-6)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "or with both; got neither"),
        ({"text": ""}, "and it is empty; give words"),
        ({"text": " \n\t"}, "and it is empty; give words"),
        ({"text": 7}, "text is the words to search with, a str .* got 7"),
        ({"text": ["red"]}, "text is the words .* got \\['red'\\]"),
        ({"text": b"red"}, "text is the words"),
        ({"text": "red " * 501}, "text has 2,004 characters; at most 2,000"),
        ({"text": "half \ud83d"}, "half a surrogate pair"),
        ({"text": "red", "weight": 1.5}, "weight is the words' share .* got 1.5"),
        ({"text": "red", "weight": -0.1}, "weight is the words' share"),
        ({"text": "red", "weight": float("nan")}, "got nan"),
        ({"text": "red", "weight": "half"}, "got 'half'"),
        ({"text": "red", "weight": True}, "got True"),
        ({"text": "red", "imagine": Painter()}, "imagine: words have no picture"),
        ({"text": "red", "region": (0, 0, 1, 1), "translate": Painter()}, "translate and region:"),
    ],
)
def test_what_cannot_be_asked(gallery: Gallery, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(GalleryError, match=told):
        gallery.search(**asked)


def test_words_of_which_nothing_is_known(tmp_path: Path) -> None:
    class Blind(ColourWords):
        def encode_text(self, texts: Any) -> Any:
            return np.zeros((len(texts), 4), np.float32)

    made = made_in(tmp_path, encoder=Blind())
    with pytest.raises(GalleryError, match="sees nothing in 'sleep'; say it in other words"):
        made.search(text="sleep")


def test_words_that_cancel_the_query(tmp_path: Path) -> None:
    class Opposite(ColourWords):
        def encode_text(self, texts: Any) -> Any:
            return -self.encode(self.preprocess([shade("red")] * len(texts)))

    made = made_in(tmp_path, encoder=Opposite())
    with pytest.raises(GalleryError, match=r"weight=0.5 the words and the query cancel"):
        made.search(shade("red"), text="not this")
    assert made.search(shade("red"), text="not this", weight=0.4)


def test_an_encoder_without_words_says_what_to_do(tmp_path: Path) -> None:
    made = new_gallery(tmp_path / "g")
    made.add([picture(1)])
    assert not made.knows_words
    for asked in ({"text": "boot"}, {"query": picture(1), "text": "boot"}):
        with pytest.raises(GalleryError, match=r"'pixels' knows no words.*pairs.*conse.*find"):
            made.search(**asked)


@pytest.mark.parametrize("metric", ["l2", "sqeuclidean", "ip"])
def test_words_get_the_length_of_the_items(tmp_path: Path, metric: str) -> None:
    """So that a metric that sees lengths finds no items only because these are short."""
    made = made_in(tmp_path, metric=metric)
    assert made.knows_words
    usual = float(np.median(np.linalg.norm(made.vectors(), axis=1)))
    found = made.search(text="red", k=12)
    asked = np.array([usual, 0, 0, 0])
    rows = made.vectors(found.ids).astype(np.float64)
    wanted = rows @ asked if metric == "ip" else np.square(rows - asked).sum(1)
    assert found.scores == pytest.approx(
        (np.sqrt(wanted) if metric == "l2" else wanted).tolist(), rel=1e-5
    )
    assert colours(found)[0] == "red"


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_a_query_keeps_its_length_beside_words(tmp_path: Path, metric: str) -> None:
    made = made_in(tmp_path, metric=metric)
    item = made.items()[3]
    own = np.linalg.norm(made.vectors([item.id])[0])
    found = made.search(item, text="green", weight=1.0, k=3, include_self=True)
    rows = made.vectors(found.ids).astype(np.float64)
    asked = np.array([0, own, 0, 0])
    wanted = rows @ asked if metric == "ip" else np.linalg.norm(rows - asked, axis=1)
    assert found.scores == pytest.approx(wanted.tolist(), rel=1e-5)


def test_a_query_of_zeros_says_nothing_beside_words() -> None:
    rows = wording.mixed(np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([0.0, 9.0]), 0.5)
    assert rows == pytest.approx(np.array([[0, 1], [2**0.5, 2**0.5]]))


def test_half_precision_and_a_cluster_as_the_query(tmp_path: Path) -> None:
    made = made_in(tmp_path, dtype="float16")
    assert colours(made.search(text="blue", k=3)) == ["blue"] * 3
    assert colours(made.search(made.items()[0], text="blue", weight=0.9, k=2)) == ["blue"] * 2
    cluster = made.nearest_clusters(text="red", k=1)[0]
    assert colours(made.search(cluster, text="blue", weight=0.9, k=1)) == ["blue"]


def test_an_empty_gallery_answers_words_with_nothing(tmp_path: Path) -> None:
    made = Gallery.create(tmp_path / "g", encoder=ColourWords(), metric="l2")
    assert len(made.search(text="red")) == 0
