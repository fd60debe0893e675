"""Parts of pictures and explanations over HTTP: answers, refusals, bounds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from fastretrieve.gallery import Gallery
from fastretrieve.server import Limits
from gallery_helpers import class_folders, new_gallery, picture, serving

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("explaining")
    made = new_gallery(folder / "g")
    made.add(class_folders(folder / "photos", 5), progress=False)
    return made


@pytest.fixture(scope="module")
def web(gallery: Gallery) -> Iterator[httpx.Client]:
    with (
        serving(gallery, limits=Limits(pixels=100_000)) as address,
        httpx.Client(base_url=address) as client,
    ):
        yield client


def png(image: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"image": ("x.png", buffer.getvalue())}


def test_a_part_of_an_upload_finds_what_the_gallery_finds(
    web: httpx.Client, gallery: Gallery
) -> None:
    wanted = gallery.search(picture(7), k=5, region=(12, 5, 24, 20)).scores
    about = {"region": "0.5,0.25,1,1", "k": 5}
    found = web.post("/api/search", files=png(picture(7)), data=about).json()
    assert [match["score"] for match in found["matches"]] == wanted


def test_a_part_of_an_item_finds_what_the_gallery_finds(
    web: httpx.Client, gallery: Gallery
) -> None:
    wanted = gallery.search(3, k=5, region=(12, 5, 24, 20))
    found = web.get("/api/items/3/similar", params={"region": "0.5,0.25,1,1", "k": 5}).json()
    assert [match["id"] for match in found["matches"]] == wanted.ids


def test_explanations_are_those_of_the_gallery(web: httpx.Client, gallery: Gallery) -> None:
    wanted = gallery.explain(picture(7), 2, region=(0, 0, 12, 20))
    path = "/api/items/2/explanation"
    found = web.post(path, files=png(picture(7)), data={"region": "0,0,0.5,1"}).json()
    np.testing.assert_array_equal(found["query"]["heat"], wanted.query.heat)
    np.testing.assert_array_equal(found["item"]["parts"], wanted.item.parts)
    assert (found["score"], found["method"]) == (wanted.score, "occlusion")
    assert set(found["query"]) == {"heat", "parts", "constant"}  # and no name of a file
    other = web.get(path, params={"query": 4}).json()
    np.testing.assert_array_equal(other["query"]["heat"], gallery.explain(4, 2).query.heat)


@pytest.mark.parametrize(
    "region", ["0,0,1", "0,0,2,1", "0.5,0,0.5,1", "nan,0,1,1", "a,b,c,d", "," * 99]
)
def test_a_wrong_region_is_refused(web: httpx.Client, region: str) -> None:
    for answer in (
        web.get("/api/items/1/similar", params={"region": region}),
        web.get("/api/items/1/explanation", params={"query": 2, "region": region}),
        web.post("/api/search", files=png(picture(1)), data={"region": region}),
    ):
        assert answer.status_code == 422
        assert "left,top,right,bottom" in answer.json()["detail"]


def test_pictures_that_are_gone_changed_or_large_are_refused(
    web: httpx.Client, gallery: Gallery
) -> None:
    def asked(item: int) -> tuple[int, str]:
        answers = [
            web.get(f"/api/items/{item}/explanation", params={"query": 1}),
            web.get("/api/items/1/explanation", params={"query": item}),
        ]
        assert answers[0].text == answers[1].text
        return answers[0].status_code, answers[0].json()["detail"]

    paths = [gallery.file_of(gallery.item(item_id)) for item_id in (8, 9, 10)]
    paths[0].unlink()
    picture(99).save(paths[1])
    Image.new("L", (400, 400)).save(paths[2])
    assert asked(8) == (404, "its file is gone")
    assert asked(9)[0] == 422
    assert "has changed" in asked(9)[1]
    assert asked(10)[0] == 404
    assert "160000 pixels" in asked(10)[1]
    large = web.post("/api/items/1/explanation", files=png(Image.new("L", (400, 400))))
    assert large.status_code == 413
    assert web.get("/api/items/8/similar", params={"region": "0,0,1,1"}).status_code == 404
