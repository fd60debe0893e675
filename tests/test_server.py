"""The page's API over real HTTP: answers, limits, and what it must not give away."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from fastretrieve.gallery import Gallery
from fastretrieve.server import Limits, app
from fastretrieve.server.service import Service
from gallery_helpers import class_folders, new_gallery, picture, serving

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("server")
    made = new_gallery(folder / "g")
    made.add(class_folders(folder / "photos", 20))
    return made


@pytest.fixture(scope="module")
def web(gallery: Gallery) -> Iterator[httpx.Client]:
    limits = Limits(upload_bytes=300_000, pixels=400_000, results=30)
    with serving(gallery, limits=limits) as address, httpx.Client(base_url=address) as client:
        yield client


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def post(web: httpx.Client, data: bytes, **fields: Any) -> httpx.Response:
    return web.post("/api/search", files={"image": ("x.png", data)}, data=fields)


def test_an_upload_finds_what_the_gallery_finds(web: httpx.Client, gallery: Gallery) -> None:
    wanted = gallery.search(picture(7), k=5)
    answer = post(web, png(picture(7)), k=5).json()
    assert [match["id"] for match in answer["matches"]] == [item.id for item in wanted.items]
    assert [match["score"] for match in answer["matches"]] == wanted.scores
    assert answer["more"] is True
    timing = answer["timing"]
    assert {"decode_ms", "encode_ms", "search_ms", "total_ms"} <= set(timing)
    assert timing["total_ms"] >= timing["encode_ms"] + timing["search_ms"] > 0


def test_pages_and_filters(web: httpx.Client, gallery: Gallery) -> None:
    filters = json.dumps([{"column": "label", "operator": "=", "value": "boot"}])
    first = post(web, png(picture(7)), k=15, filters=filters).json()
    second = post(web, png(picture(7)), k=15, offset=15, filters=filters).json()
    assert (len(first["matches"]), first["more"]) == (15, True)
    assert (len(second["matches"]), second["more"]) == (5, False)
    both = first["matches"] + second["matches"]
    assert {match["label"] for match in both} == {"boot"}
    wanted = gallery.search(picture(7), k=20, where="label = 'boot'").scores
    assert [match["score"] for match in both] == wanted


def test_search_on_from_an_item_and_browse(web: httpx.Client, gallery: Gallery) -> None:
    answer = web.get("/api/items/3/similar", params={"k": 4}).json()
    assert [m["id"] for m in answer["matches"]] == [i.id for i in gallery.search(3, k=4).items]
    listed = web.get("/api/items", params={"k": 30, "offset": 20}).json()
    assert [match["id"] for match in listed["matches"]] == list(range(21, 41))
    assert listed["matches"][0]["score"] is None
    assert listed["more"] is False
    facts = web.get("/api/gallery").json()
    assert facts["items"] == 40
    assert facts["labels"] == {"bag": 20, "boot": 20}
    assert web.get("/healthz").json() == {"status": "ok"}


def test_pictures_are_made_anew_and_cached(web: httpx.Client, gallery: Gallery) -> None:
    answer = web.get("/api/items/3/picture")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).format == "JPEG"
    again = web.get("/api/items/3/picture", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    large = web.get("/api/items/3/picture", params={"size": 1024})
    assert max(Image.open(io.BytesIO(large.content)).size) > 256
    assert web.get("/api/items/3/picture", params={"size": 4096}).status_code == 422


def test_no_picture_outlives_a_change_of_the_gallery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = new_gallery(tmp_path / "g")
    gallery.add(class_folders(tmp_path / "photos", 2))
    service = Service(gallery, Limits())
    first = service.picture(1, size=64)
    assert list(service.cache.pictures.values()) == [first]
    gallery.forget(1)
    second = service.picture(2, size=64)
    assert list(service.cache.pictures.values()) == [second]
    assert service.cache.n_bytes == len(second)

    def slow(path: Path, **options: Any) -> bytes:
        gallery.forget(3)
        return b"made of item 3"

    monkeypatch.setattr("fastretrieve.server.service.small_picture", slow)
    service.picture(3, size=64)
    assert b"made of item 3" not in service.cache.pictures.values()


def test_only_what_the_gallery_holds_is_served(web: httpx.Client, tmp_path: Path) -> None:
    paths = [
        "/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/static/../app.py", "/etc/passwd",
        "/api/items/..%2f..%2fetc%2fpasswd/picture", "/api/items/%2fetc%2fpasswd/picture",
        "/api/items/-1/picture", "/api/items/1e3/picture", "/api/items/9999999999999999999/picture",
        "/page.html", "/gallery.json", "/items.sqlite", "//etc/passwd", "/api/items/41/picture",
    ]  # fmt: skip
    for path in paths:
        answer = web.get(path)
        assert answer.status_code in (404, 422), path
        assert b"root:" not in answer.content


def test_no_answer_tells_where_files_are(web: httpx.Client, gallery: Gallery) -> None:
    folder = str(gallery.path.parent)
    for path in ("/api/items?k=30", "/api/items/1", "/api/items/1/similar", "/api/gallery"):
        assert folder not in web.get(path).text
    assert folder not in post(web, png(picture(1))).text


def test_a_file_that_turned_into_something_else_is_not_served(tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "g")
    gallery.add(class_folders(tmp_path / "photos", 2))
    path = Path(gallery.item(1).path)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with serving(gallery) as address:
        answer = httpx.get(f"{address}/api/items/1/picture")
        assert answer.status_code == 404
        assert b"root:" not in answer.content


def test_a_gallery_that_broke_is_not_healthy(tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "g")
    gallery.add(class_folders(tmp_path / "photos", 2))
    with serving(gallery) as address:
        assert httpx.get(f"{address}/healthz").status_code == 200
        with contextlib.closing(sqlite3.connect(gallery.path / "items.sqlite")) as connection:
            connection.execute("UPDATE state SET generation = generation + 1")
            connection.execute("INSERT INTO segment VALUES (99, 99, 'lost.index', 1, 1, '')")
            connection.commit()
        answer = httpx.get(f"{address}/healthz")
        assert (answer.status_code, answer.json()) == (503, {"status": "broken"})


BAD_UPLOADS = {
    "text": (b"no image", 415, "this is no image"),
    "nothing": (b"", 415, "this is no image"),
    "SVG with a script": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "this is no image"),
    "a cut PNG": (png(picture(1, size=(99, 99)))[:-300], 422, "damaged"),
    "too many bytes": (b"x" * 500_000, 413, "at most 300000 bytes"),
    "too many pixels": (png(Image.new("1", (1000, 900))), 413, "1000 x 900 pixels, at most"),
    "a decompression bomb": (png(Image.new("1", (30000, 30000))), 413, "too large"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD_UPLOADS)
def test_bad_uploads_are_refused_with_the_reason(web: httpx.Client, name: str) -> None:
    data, status, reason = BAD_UPLOADS[name]
    answer = post(web, data)
    assert (answer.status_code, reason in answer.json()["detail"]) == (status, True), answer.text


def test_a_body_longer_than_its_header_says_is_stopped(web: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 10_000

    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = web.post("/api/search", content=endless(), headers=headers)  # chunked: no length
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"k": 0}, "greater than or equal to 1"),
        ({"k": 31}, "k is at most 30"),
        ({"k": 5, "offset": 10_000}, "at most 10000"),
        ({"offset": -1}, "greater than or equal to 0"),
        ({"filters": "no json"}, "filters is a JSON list"),
        ({"filters": "5"}, "filters is a JSON list"),
        ({"filters": '[{"column": "nosuch", "operator": "=", "value": 1}]'}, "no column 'nosuch'"),
        ({"filters": '[{"column": "id", "operator": "; DROP", "value": 1}]'}, "filters is a JSON"),
        (
            {"filters": json.dumps([{"column": "id", "operator": "=", "value": 1}] * 21)},
            "20 filter",
        ),
    ],
)
def test_wrong_fields_are_refused_with_the_reason(
    web: httpx.Client, fields: dict[str, Any], reason: str
) -> None:
    answer = post(web, png(picture(1)), **fields)
    assert answer.status_code == 422
    assert reason in answer.text


def test_an_image_is_needed(web: httpx.Client) -> None:
    assert web.post("/api/search", data={"k": 3}).status_code == 422


def test_the_page_comes_with_its_parts_and_strict_headers(web: httpx.Client) -> None:
    page = web.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "http://" not in page.text
    assert "https://" not in page.text  # nothing comes from elsewhere
    page_js = web.get("/page.js").text
    for name in ("page.css", "page.js", "icon.svg", "pictures.js", "uploads.js"):
        assert name in page.text + page_js
        assert web.get(f"/{name}").status_code == 200


def test_the_api_describes_itself(web: httpx.Client) -> None:
    paths = web.get("/openapi.json").json()["paths"]
    assert {"/api/search", "/api/items", "/api/items/{item_id}/similar", "/healthz"} <= set(paths)


def test_metrics_count_by_route(web: httpx.Client) -> None:
    web.get("/api/items/5/picture")
    text = web.get("/metrics").text
    assert 'fastretrieve_requests_total{route="/api/items/{item_id}/picture",status="200"}' in text


def test_no_packet_of_an_answer_waits_for_another() -> None:
    with (
        app._listening("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_other_names_for_this_machine_are_refused(web: httpx.Client) -> None:
    answer = web.get("/api/gallery", headers={"host": "evil.example:80"})
    assert answer.status_code == 421
    assert web.get("/api/gallery", headers={"host": "localhost:80"}).status_code == 200


def test_a_token_is_asked_for(gallery: Gallery) -> None:
    with serving(gallery, token="s3cret") as address, httpx.Client(base_url=address) as web:
        assert web.get("/healthz").status_code == 200
        for path in (
            "/",
            "/api/gallery",
            "/api/items/1/picture",
            "/page.js",
            "/openapi.json",
            "/metrics",
        ):
            assert web.get(path).status_code == 401, path
        for wrong in ("wrong", "s3cre", "s3cret2", "Ä"):
            assert web.get("/", params={"token": wrong}).status_code == 401
        bearer = {"authorization": "Bearer s3cret"}
        assert web.get("/api/gallery", headers=bearer).status_code == 200
        moved = web.get("/", params={"token": "s3cret"})
        assert moved.status_code == 303
        assert moved.headers["location"] == "/"
        assert "HttpOnly" in moved.headers["set-cookie"]
        assert web.get("/api/items/1/picture").status_code == 200  # by the cookie


def test_too_many_at_once_are_asked_to_come_again(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, hold = threading.Event(), threading.Event()
    search = Gallery.search

    def slow(self: Gallery, *args: Any, **options: Any) -> Any:
        held.set()
        hold.wait(30)
        return search(self, *args, **options)

    monkeypatch.setattr(Gallery, "search", slow)
    with (
        serving(gallery, limits=Limits(in_flight=1)) as address,
        ThreadPoolExecutor(1) as pool,
        httpx.Client(base_url=address) as web,
    ):
        first = pool.submit(httpx.get, f"{address}/api/items/1/similar", timeout=30)
        assert held.wait(30)
        second = web.get("/api/items/1/similar")
        hold.set()
        assert second.status_code == 503
        assert second.headers["retry-after"] == "1"
        assert first.result().status_code == 200
        assert web.get("/api/items/1/similar").status_code == 200


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_sixteen_clients_get_right_answers_and_no_error(gallery: Gallery, seconds: float) -> None:
    import time

    queries = [png(picture(seed)) for seed in range(8)]
    wanted = [gallery.search(query, k=6).scores for query in queries]
    latencies: list[float] = []

    def client(number: int) -> int:
        rng, count = np.random.default_rng(number), 0
        with httpx.Client(base_url=address, timeout=30) as web:
            while count == 0 or time.monotonic() < end:  # each of them gets an answer
                i = int(rng.integers(len(queries)))
                started = time.perf_counter()
                answer = post(web, queries[i], k=6)
                latencies.append(time.perf_counter() - started)
                assert answer.status_code == 200, answer.text
                assert [match["score"] for match in answer.json()["matches"]] == wanted[i]
                assert web.get(f"/api/items/{number + 1}/picture").status_code == 200
                count += 1
        return count

    with serving(gallery) as address, ThreadPoolExecutor(16) as pool:
        end = time.monotonic() + seconds
        counts = list(pool.map(client, range(16)))
    print(f"{sum(counts)} searches, p50 {np.percentile(latencies, 50) * 1e3:.0f} ms, "
          f"p99 {np.percentile(latencies, 99) * 1e3:.0f} ms")  # fmt: skip
