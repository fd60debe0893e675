"""Words over HTTP: alone, beside an upload or an item, explained; and where none are known."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from colour_words import ColourWordsInParts, painted, shade
from fastretrieve.gallery import Gallery
from gallery_helpers import class_folders, new_gallery, serving

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("words")
    made = Gallery.create(folder / "g", encoder=ColourWordsInParts())
    made.add(painted(folder / "photos"))
    made.clusters(4)
    return made


@pytest.fixture(scope="module")
def web(gallery: Gallery) -> Iterator[Any]:
    with serving(gallery) as address, httpx.Client(base_url=address) as client:
        yield client


@pytest.fixture(scope="module")
def wordless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("wordless")
    made = new_gallery(folder / "g")
    made.add(class_folders(folder / "photos", 2))
    with serving(made) as address, httpx.Client(base_url=address) as client:
        yield client


def form(image: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"files": {"image": ("q.png", buffer.getvalue())}}


def ids(answer: Any) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [match["id"] for match in answer.json()["matches"]]


def test_words_alone(web: Any, gallery: Gallery) -> None:
    answer = web.get("/api/search", params={"text": " a\nred\0 boot ", "k": 3})
    assert ids(answer) == gallery.search(text="a red boot", k=3).ids
    assert answer.json()["more"]
    assert answer.json()["timing"]["encode_ms"] > 0
    rest = web.get("/api/search", params={"text": "red", "k": 3, "offset": 3})
    assert ids(rest) == gallery.search(text="red", k=3, offset=3).ids
    narrow = {"text": "red", "filters": '[{"column":"label","operator":"=","value":"dark"}]'}
    assert (
        ids(web.get("/api/search", params=narrow))
        == gallery.search(text="red", where="label = 'dark'").ids
    )
    near = web.get("/api/search", params={"text": "blue", "within": "cluster"})
    assert ids(near) == gallery.search(text="blue", within="cluster").ids
    assert near.json()["cluster"] is not None


def test_words_beside_an_upload_and_an_item(web: Any, gallery: Gallery) -> None:
    said = {"text": "but blue", "weight": 0.8, "k": 5}
    answer = web.post("/api/search", data=said, **form(shade("red")))
    assert ids(answer) == gallery.search(shade("red"), text="but blue", weight=0.8, k=5).ids
    similar = web.get("/api/items/1/similar", params=said)
    assert ids(similar) == gallery.search(1, text="but blue", weight=0.8, k=5).ids
    part = web.get("/api/items/1/similar", params={**said, "region": "0,0,0.5,0.5"})
    assert ids(part) == gallery.search(1, text="but blue", weight=0.8, k=5, region=(0, 0, 8, 8)).ids
    nothing = web.get("/api/items/1/similar", params={"text": "  ", "weight": 0.8, "k": 5})
    assert ids(nothing) == gallery.search(1, k=5).ids


def test_the_heat_of_words(web: Any, gallery: Gallery) -> None:
    where = "/api/items/2/explanation"
    alone = web.get(f"{where}/words", params={"text": "red"}).json()
    why = gallery.explain(item=2, text="red")
    assert alone["score"] == pytest.approx(why.score)
    np.testing.assert_allclose(alone["item"]["heat"], why.item.heat)
    assert alone["query"]["parts"] == [[0.0]]
    said = {"text": "red", "weight": 0.3}
    both = gallery.explain(1, 2, **said).score
    assert web.get(where, params={"query": 1, **said}).json()["score"] == pytest.approx(both)
    sent = web.post(where, data=said, **form(shade("green"))).json()
    assert sent["score"] == pytest.approx(gallery.explain(shade("green"), 2, **said).score)


@pytest.mark.parametrize(
    ("path", "asked", "told"),
    [
        ("search", {}, "text"),
        ("search", {"text": " \n"}, "text"),
        ("search", {"text": "x" * 2001}, "at most 2000"),
        ("search", {"text": "red", "k": 0}, "k"),
        ("items/1/similar", {"text": "red", "weight": 1.01}, "weight"),
        ("items/1/similar", {"text": "red", "weight": "nan"}, "weight"),
        ("items/1/similar", {"text": "x" * 2001}, "text"),
        ("items/1/explanation", {"text": "red"}, "Field required"),
        ("items/1/explanation/words", {}, "text"),
        ("items/1/explanation/words", {"text": " "}, "text"),
    ],
)
def test_what_is_refused(web: Any, path: str, asked: dict[str, Any], told: str) -> None:
    answer = web.get(f"/api/{path}", params=asked)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]


def test_words_that_cannot_be_asked_are_told_to_the_visitor(
    gallery: Gallery, monkeypatch: Any, web: Any
) -> None:
    monkeypatch.setattr(gallery.encoder, "encode_text", lambda texts: 0 * shade_row(len(texts)))
    answer = web.get("/api/search", params={"text": "sleep"})
    assert (answer.status_code, "sees nothing in 'sleep'" in answer.json()["detail"]) == (422, True)


def shade_row(n: int) -> Any:
    encoder = ColourWordsInParts()
    return encoder.encode(encoder.preprocess([shade("red")] * n))


def test_a_gallery_without_words_says_so(wordless: Any, web: Any) -> None:
    assert web.get("/api/gallery").json()["words"] is True
    assert wordless.get("/api/gallery").json()["words"] is False
    for answer in (
        wordless.get("/api/search", params={"text": "boot"}),
        wordless.get("/api/items/1/similar", params={"text": "boot"}),
        wordless.post("/api/search", data={"text": "boot"}, **form(shade("red"))),
        wordless.get("/api/items/1/explanation", params={"query": 1, "text": "boot"}),
        wordless.get("/api/items/1/explanation/words", params={"text": "boot"}),
    ):
        assert answer.status_code == 422
        assert "knows no words" in answer.json()["detail"]
    known, unknown = (each.get("/openapi.json").json() for each in (web, wordless))
    assert "get" in known["paths"]["/api/search"]
    assert "get" not in unknown["paths"]["/api/search"]
    schemas = [each["components"]["schemas"]["Body_search_api_search_post"]["properties"]["text"]
               for each in (known, unknown)]  # fmt: skip
    assert (schemas[0]["maxLength"], schemas[1]["enum"]) == (2000, [""])
