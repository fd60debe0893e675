"""Imagined queries in the shell, over HTTP, and on the page of a server."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import fastretrieve as fr
from fastretrieve.cli import app
from fastretrieve.gallery import Gallery, GalleryError
from gallery_helpers import class_folders, new_gallery, picture, serving

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("imagining")
    made = new_gallery(folder / "g")
    made.add(class_folders(folder / "photos", 10))
    return made


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Any = fr.create_encoder("autoencoder", dim=4, image_size=8, channels=3, width=4)
    made.is_trained = True
    folder = tmp_path_factory.mktemp("generator")
    made.save(folder)
    return folder


@pytest.fixture(scope="module")
def web(gallery: Gallery, generator: Path) -> Iterator[Any]:
    wanted = fr.Imagine(generator, n=3, spread=0.5)
    with serving(gallery, imagine=wanted) as address, httpx.Client(base_url=address) as client:
        yield client


def run(*words: Any) -> str:
    done = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_shell_imagines(gallery: Gallery, generator: Path, tmp_path: Path) -> None:
    picture(7).save(tmp_path / "query.png")
    asked = ("search", gallery.path, tmp_path / "query.png", "-k", 20, "--imagine", generator)
    options = ("-n", 3, "--spread", 0.5, "--diversity", 0.3)
    told = json.loads(run(*asked, *options, "--json"))
    wanted = gallery.search(
        picture(7), k=20, imagine=fr.Imagine(generator, n=3, spread=0.5), diversity=0.3
    )
    assert [match["id"] for match in told["matches"]] == wanted.ids
    assert [match["found_by"] for match in told["matches"]] == [m.found_by for m in wanted]
    assert told["imagined"] == 3
    table = run(*asked, *options, "--save", tmp_path / "found.html")
    assert "found by" in table
    finders = {f"imagined {m.found_by}" for m in wanted if m.found_by}
    assert finders
    assert all(finder in table for finder in finders)
    assert "imagined 3</b>" in (tmp_path / "found.html").read_text()
    assert "found by" not in run(*asked[:-2])
    with pytest.raises(ValueError, match="spread is the share"):
        run(*asked, "--spread", 7)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def post(web: Any, **fields: Any) -> Any:
    return web.post("/api/search", files={"image": ("x.png", png(picture(7)))}, data=fields)


def never_on(described: Any) -> Counter[str]:
    """How often the description of an API has each switch that can only be off: as a field of a
    form, by its key, or as a parameter, by its name.
    """
    found: Counter[str] = Counter()
    below = described.values() if isinstance(described, dict) else described
    for each in below if isinstance(described, (dict, list)) else ():
        found += never_on(each)
    if isinstance(described, dict):
        named = {str(described.get("name")): described.get("schema"), **described}
        for name, schema in named.items():
            if name != "schema" and isinstance(schema, dict) and schema.get("enum") == ["false"]:
                found[name] += 1
    return found


def test_an_upload_is_imagined_where_the_visitor_asks(
    web: Any, gallery: Gallery, generator: Path
) -> None:
    wanted = gallery.search(picture(7), k=20, imagine=fr.Imagine(generator, n=3, spread=0.5))
    answer = post(web, k=20, imagine="true").json()
    assert [match["id"] for match in answer["matches"]] == wanted.ids
    assert [match["found_by"] for match in answer["matches"]] == [m.found_by for m in wanted]
    shown = [Image.open(io.BytesIO(base64.b64decode(text))) for text in answer["imagined"]]
    assert [(each.format, each.size) for each in shown] == [("JPEG", (8, 8))] * 3
    plain = post(web, k=20).json()
    assert plain["imagined"] == []
    assert [match["id"] for match in plain["matches"]] == gallery.search(picture(7), k=20).ids
    assert web.get("/api/gallery").json()["imagines"] == 3
    never = never_on(web.get("/openapi.json").json())
    assert never.pop("hybrid")
    assert never == {"translate": 1}  # there is no style, and only uploads take one


def test_an_item_is_imagined_and_paged(web: Any, gallery: Gallery, generator: Path) -> None:
    wanted = gallery.search(3, k=20, imagine=fr.Imagine(generator, n=3, spread=0.5)).ids
    pages = [
        web.get(
            "/api/items/3/similar", params={"k": 8, "offset": offset, "imagine": "true"}
        ).json()["matches"]
        for offset in (0, 8, 16)
    ]
    assert [match["id"] for page in pages for match in page] == wanted
    assert web.get("/api/items/3/similar", params={"imagine": "yes"}).status_code == 422


def test_an_item_without_a_file_cannot_be_imagined(tmp_path: Path, generator: Path) -> None:
    made = new_gallery(tmp_path / "g")
    made.add(class_folders(tmp_path / "photos", 2))
    made.file_of(made.items()[0]).unlink()
    with serving(made, imagine=generator) as address, httpx.Client(base_url=address) as client:
        assert client.get("/api/items/1/similar").status_code == 200
        answer = client.get("/api/items/1/similar", params={"imagine": "true"})
        assert (answer.status_code, answer.json()["detail"]) == (404, "its file is gone")


def test_the_operator_names_generators_and_visitors_do_not(
    gallery: Gallery, generator: Path
) -> None:
    from fastretrieve.server import Limits, create_app

    with serving(gallery) as address, httpx.Client(base_url=address) as client:
        answer = post(client, imagine="true")
        assert (answer.status_code, answer.json()["detail"]) == (
            422,
            "imagine: this server has no generator",
        )
        assert post(client, imagine=str(generator)).status_code == 422
        assert client.get("/api/gallery").json()["imagines"] == 0
        never = never_on(client.get("/openapi.json").json())
        assert never.pop("hybrid")
        assert never == {"imagine": 2, "translate": 1}  # of an upload and of an item
    with pytest.raises(GalleryError, match="one search may imagine 2 pictures, got n=16"):
        create_app(gallery, limits=Limits(imagined=2), imagine=generator)
    with pytest.raises(GalleryError, match="lacks the capability 'invert'"):
        create_app(gallery, imagine=fr.create_encoder("pixels"))
