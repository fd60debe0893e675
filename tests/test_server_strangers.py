"""What strangers ask: hidden columns, odd values, other sites, foreign cookies, huge files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import sqlite3
import string
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from PIL import Image

from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.store.items import FIXED_COLUMNS
from fastretrieve.server import Limits
from fastretrieve.server.filters import SHOWN, plain
from fastretrieve.server.visitors import Visitors, address_of
from gallery_helpers import class_folders, new_gallery, picture, serving

pytest.importorskip("fastapi")

NAMES = ("column", "operator", "value")
COMPARISONS = ("=", "!=", "<", "<=", ">", ">=", "contains", "in", "is empty", "is not empty")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("strangers")
    photos = class_folders(folder / "photos", 5)
    lines = [
        f"{path},{path.parent.name},{i},{'007' if i % 2 else 'a'},{i if i < 5 else 'x'}"
        for i, path in enumerate(sorted(photos.rglob("*.png")))
    ]
    table = folder / "table.csv"
    table.write_text("\n".join(["path,label,number,code,either", *lines]))
    made = new_gallery(folder / "g")
    made.add(table)
    return made


@pytest.fixture(scope="module")
def web(gallery: Gallery) -> Iterator[httpx.Client]:
    with serving(gallery) as address, httpx.Client(base_url=address) as client:
        yield client


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def listed(web: httpx.Client, *filters: Any) -> httpx.Response:
    conditions = [dict(zip(NAMES, each)) for each in filters]  # noqa: B905
    return web.get("/api/items", params={"filters": json.dumps(conditions)})


# --- what is hidden cannot be compared ------------------------------------------------------------


@pytest.mark.parametrize("operator", COMPARISONS)
def test_a_hidden_column_is_no_column(web: httpx.Client, gallery: Gallery, operator: str) -> None:
    values: dict[str, Any] = {"in": ["/"], "is empty": None, "is not empty": None}
    hidden = [*sorted({*FIXED_COLUMNS} - {*SHOWN}), "rowid", "PATH", "Key", "name"]
    for column in hidden:
        answer = listed(web, (column, operator, values.get(operator, "/")))
        detail = answer.json()["detail"]
        assert (answer.status_code, "no column" in detail) == (422, True), column
        named = detail.partition("columns: ")[2].split(", ")
        assert not {*hidden} & {*named}
        assert str(gallery.path.parent) not in detail


def test_what_is_hidden_is_in_no_answer(web: httpx.Client, gallery: Gallery) -> None:
    item = gallery.item(3)
    paths = ("/api/items/3", "/api/items", "/api/items/3/similar", "/api/items/3/picture")
    for path in (*paths, "/api/gallery", "/openapi.json", "/metrics"):
        answer = web.get(path)
        seen = f"{answer.headers}{answer.text}"
        assert not [each for each in (item.hash, item.path, str(gallery.path)) if str(each) in seen]


def test_an_encoder_in_a_file_is_shown_without_its_folder(
    web: httpx.Client, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = gallery.info()
    monkeypatch.setattr(Gallery, "info", lambda _: {**info, "encoder": "/home/me/my.py:MyEncoder"})
    assert web.get("/api/gallery").json()["encoder"] == "my.py:MyEncoder"


def test_what_is_shown_can_be_asked_for(web: httpx.Client) -> None:
    item = web.get("/api/items/3").json()
    for column in (*SHOWN, *item["metadata"]):
        value = {**item, **item["metadata"]}[column]
        operator = "is empty" if value is None else "="
        found = listed(web, (column, operator, *([] if value is None else [value]))).json()
        assert 3 in [each["id"] for each in found["matches"]], column
    kinds = web.get("/api/gallery").json()["kinds"]
    assert {*kinds} == {*SHOWN, "number", "code", "either"}
    assert (kinds["number"], kinds["code"], kinds["width"]) == ("number", "text", "number")


def test_values_are_compared_as_their_column_holds_them(web: httpx.Client) -> None:
    def ids(*filters: Any) -> list[int]:
        answer = listed(web, *filters)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["matches"]]

    assert ids(("number", ">=", "7")) == ids(("number", ">=", 7)) == [8, 9, 10]
    assert ids(("code", "=", "007")) == [2, 4, 6, 8, 10]
    assert ids(("code", "=", "7")) == ids(("code", "=", 7)) == []
    assert ids(("label", "in", ["boot", "hat"])) == [6, 7, 8, 9, 10]
    assert ids(("label", "contains", "OO")) == [6, 7, 8, 9, 10]
    assert ids(("number", "in", [1, "3"])) == [2, 4]
    assert ids(("number", "<", 2**70)) == list(range(1, 11))
    assert ids(("number", ">", -(2**70))) == list(range(1, 11))


@pytest.mark.parametrize("text", ["1_0", " 5", "+5", "5.0", "5\n", "٣", "0x5"])
def test_a_whole_number_is_digits_alone(web: httpx.Client, text: str) -> None:
    assert web.get("/api/items", params={"k": text}).status_code == 422
    upload = {"image": ("a.png", png(picture(1)), "image/png")}
    assert web.post("/api/search", files=upload, data={"k": text}).status_code == 422
    assert web.post("/api/search", files=upload, data={"k": "5"}).status_code == 200


@pytest.mark.parametrize("value", ["abc", "", "1_0", "nan", "inf", "1 2", "0x1"])
def test_text_is_not_compared_with_numbers(web: httpx.Client, value: str) -> None:
    for column in ("width", "number"):
        answer = listed(web, (column, ">", value))
        assert (answer.status_code, "holds numbers" in answer.text) == (422, True)


def test_no_error_of_the_gallery_tells_where_it_is(
    web: httpx.Client, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise GalleryError(f"{gallery.path}/items.sqlite is damaged")

    monkeypatch.setattr(Gallery, "items", broken)
    monkeypatch.setattr(Gallery, "search", broken)
    upload = {"image": ("x.png", png(picture(1)))}
    answers = [
        web.get("/api/items"),
        web.get("/api/items/1/similar"),
        web.post("/api/search", files=upload),
    ]
    for answer in answers:
        assert (answer.status_code, "log" in answer.json()["detail"]) == (503, True)
        assert str(gallery.path) not in answer.text


def test_a_fault_of_the_server_is_told_with_the_headers(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"{gallery.path} is secret")

    monkeypatch.setattr(Gallery, "items", fault)
    with serving(gallery) as address:
        answer = httpx.get(f"{address}/api/items")
        metrics = httpx.get(f"{address}/metrics").text
    assert answer.status_code == 500
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "secret" not in answer.text
    assert 'route="/api/items",status="500"' in metrics


# --- odd values -----------------------------------------------------------------------------------

ODD_FILTERS = {
    "nested lists": "[" * 100_000 + "]" * 100_000,
    "nested lists within bounds": "[" * 40_000 + "]" * 40_000,
    "nested objects": '[{"a":' * 15_000,
    "a nested value": '[{"column":"id","operator":"=","value":' + "[" * 9000 + "]" * 9000 + "}]",
    "a long number": '[{"column":"id","operator":"=","value":' + "9" * 10_000 + "}]",
    "NaN": '[{"column":"id","operator":"=","value":NaN}]',
    "infinity": '[{"column":"id","operator":"<","value":Infinity}]',
    "an overflow": '[{"column":"id","operator":"<","value":1e999}]',
    "a surrogate": '[{"column":"label","operator":"=","value":"\\ud800"}]',
    "a surrogate as column": '[{"column":"\\ud800","operator":"=","value":1}]',
    "a surrogate as operator": '[{"column":"label","operator":"\\ud800","value":1}]',
    "a surrogate as key": '[{"\\ud800":"label"}]',
    "a surrogate in a list": '[{"column":"label","operator":"in","value":["\\udfff"]}]',
    "NUL as column": '[{"column":"\\u0000","operator":"=","value":1}]',
    "a list to compare": '[{"column":"label","operator":"=","value":["a"]}]',
    "an object to compare": '[{"column":"label","operator":"=","value":{}}]',
    "no list for in": '[{"column":"label","operator":"in","value":"a"}]',
    "nothing to compare": '[{"column":"label","operator":"="}]',
    "a long list": json.dumps([{"column": "id", "operator": "in", "value": [1] * 2000}]),
    "a long text": json.dumps([{"column": "label", "operator": "contains", "value": "a" * 60_000}]),
    "an object": "{}",
    "a string": '"label"',
    "null": "null",
    "no UTF-8": "\udcff",
}


@pytest.mark.parametrize("name", ODD_FILTERS)
def test_odd_filters_are_refused_with_a_sentence(web: httpx.Client, name: str) -> None:
    text = ODD_FILTERS[name].encode("utf-8", "surrogateescape")
    body = (
        b'--b\r\ncontent-disposition: form-data; name="image"; filename="x"\r\n\r\n'
        + png(picture(1))
        + b'\r\n--b\r\ncontent-disposition: form-data; name="filters"\r\n\r\n'
        + text
        + b"\r\n--b--\r\n"
    )
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answers = [web.post("/api/search", content=body, headers=headers)]
    if len(text) < 20_000:
        answers.append(web.get("/api/items", params={"filters": text}))
    for answer in answers:
        if answer.status_code == 413:  # as a form it may be too long
            continue
        assert answer.status_code in (400, 422), answer.text
        assert isinstance(answer.json()["detail"], str)


def test_nul_in_a_text_is_a_text_like_any_other(web: httpx.Client) -> None:
    for operator in ("=", "contains"):
        assert listed(web, ("label", operator, "a\0b")).json()["matches"] == []


@pytest.mark.parametrize("number", [2**63, 2**70, -1, 0, "1e3", "nan", "%00", "%ff", "1/2", "٣"])
def test_odd_ids_are_no_items(web: httpx.Client, number: Any) -> None:
    for path in (f"/api/items/{number}", f"/api/items/{number}/similar"):
        assert web.get(path).status_code in (404, 422), path


@pytest.mark.parametrize("field", ["k", "offset", "size"])
@pytest.mark.parametrize("value", [2**70, -(2**70), "9" * 5000, "1e400", "\ud800", "\0", ""])
def test_odd_numbers_are_refused(web: httpx.Client, field: str, value: Any) -> None:
    text = str(value).encode("utf-8", "surrogatepass")
    path = "/api/items/1/picture" if field == "size" else "/api/items/1/similar"
    answer = web.get(path, params={field: text})
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


BODIES = {
    "JSON": ("application/json", b'{"image": 1}'),
    "deep JSON": ("application/json", b"[" * 100_000),
    "no type": ("", b"x"),
    "an odd type": ("\xff/\xff", b"x"),
    "no boundary": ("multipart/form-data", b"--b\r\n\r\n--b--"),
    "another boundary": ("multipart/form-data; boundary=c", b"--b\r\n\r\n--b--"),
    "a boundary that is no ASCII": ("multipart/form-data; boundary=\xff", b"--\xff\r\n\r\n"),
    "cut off": (
        "multipart/form-data; boundary=b",
        b'--b\r\ncontent-disposition: form-data; name="',
    ),
    "no disposition": ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n"),
    "an odd name": (
        "multipart/form-data; boundary=b",
        b'--b\r\ncontent-disposition: form-data; name="\xff\x00"\r\n\r\nx\r\n--b--\r\n',
    ),
    "an odd charset": (
        "multipart/form-data; boundary=b; charset=nosuch",
        b'--b\r\ncontent-disposition: form-data; name="k"\r\n\r\n\xff\r\n--b--\r\n',
    ),
    "the image as text": (
        "multipart/form-data; boundary=b",
        b'--b\r\ncontent-disposition: form-data; name="image"\r\n\r\n\xff\xfe\r\n--b--\r\n',
    ),
    "many fields": (
        "multipart/form-data; boundary=b",
        b'--b\r\ncontent-disposition: form-data; name="k"\r\n\r\n1\r\n' * 1500 + b"--b--\r\n",
    ),
    "urlencoded": ("application/x-www-form-urlencoded", b"image=1&k=%ff%00"),
}


@pytest.mark.parametrize("name", BODIES)
def test_odd_bodies_are_refused(web: httpx.Client, name: str) -> None:
    kind, body = BODIES[name]
    headers = {b"content-type": kind.encode("latin-1")} if kind else {}
    answer = web.post("/api/search", content=body, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code in (400, 422), answer.text
    assert isinstance(answer.json()["detail"], str)


def test_bytes_that_are_no_text_in_paths_queries_and_headers(web: httpx.Client) -> None:
    for path in (
        b"/api/%ff%fe",
        b"/%00",
        b"/api/items?k=%ff&%fe=%00",
        b"/?token=%ff",
        b"//",
        b"/api/",
    ):
        assert web.get(httpx.URL(web.base_url, raw_path=path)).status_code < 500, path
    odd = [(b"cookie", b"\xff=\xfe"), (b"if-none-match", b"\xff"), (b"authorization", b"\xff \xfe")]
    for header in (
        *odd,
        (b"accept", b"\xff"),
        (b"origin", b"http://[\xff"),
        (b"range", b"bytes=z-"),
    ):
        assert web.get("/api/items/1/picture", headers=[header]).status_code < 500, header


def test_other_methods(web: httpx.Client) -> None:
    for path in ("/", "/page.js", "/healthz", "/api/gallery", "/api/items/1/picture"):
        answer = web.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
        assert int(answer.headers["content-length"]) == len(web.get(path).content)
    assert web.head("/api/items/4711").status_code == 404
    for method in ("OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "FOO"):
        for path in ("/", "/api/gallery", "/api/search", "/healthz"):
            answer = web.request(method, path)
            assert (answer.status_code, "allow" in answer.headers) == (405, True), (method, path)


def test_odd_metadata_is_still_json(tmp_path: Path) -> None:
    assert plain([float("nan"), 2**70, b"\xff", {"\ud800": ("a",)}]) == [
        "nan", 2**70, "b'\\xff'", {"?": ["a"]}
    ]  # fmt: skip
    photos = class_folders(tmp_path / "photos", 2)
    paths, values = sorted(photos.rglob("*.png")), (1, 2, 1.5, None)
    rows = [{"path": str(p), "value": v} for p, v in zip(paths, values, strict=True)]
    table = tmp_path / "t.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    gallery = new_gallery(tmp_path / "g")
    gallery.add(table)
    with contextlib.closing(sqlite3.connect(tmp_path / "g" / "items.sqlite")) as connection:
        # As galleries of older versions may hold them.
        connection.execute("UPDATE item SET value = 9e999 WHERE value = 1")
        connection.execute("UPDATE item SET value = -9e999 WHERE value = 2")
        connection.commit()
    with serving(gallery) as address:
        answer = httpx.get(f"{address}/api/items")
    assert answer.status_code == 200
    answered = json.loads(
        answer.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")
    )
    assert [item["metadata"]["value"] for item in answered["matches"]] == ["inf", "-inf", 1.5, None]


# --- other sites, other applications --------------------------------------------------------------


FOREIGN = {
    "fetch metadata": {"sec-fetch-site": "cross-site"},
    "a sibling": {"sec-fetch-site": "same-site"},
    "an origin": {"origin": "http://evil.example"},
    "another port": {"origin": "http://127.0.0.1:1"},
    "a sandbox": {"origin": "null"},
    "rebinding": {"origin": "http://evil.example", "sec-fetch-site": "cross-site"},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_sites_make_no_work(web: httpx.Client, name: str) -> None:
    upload = {"image": ("x.png", png(picture(1)))}
    assert web.post("/api/search", files=upload, headers=FOREIGN[name]).status_code == 403
    for path in ("/api/items", "/api/items/1/picture", "/api/items/1/similar", "/api/gallery"):
        assert web.get(path, headers=FOREIGN[name]).status_code == 403, path
    assert web.get("/", headers=FOREIGN[name]).status_code == 200  # a link to the page is fine


def test_the_page_itself_and_programs_may_ask(web: httpx.Client) -> None:
    own = str(web.base_url).rstrip("/")
    for headers in (
        {},
        {"origin": own},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ):
        assert web.get("/api/items", headers=headers).status_code == 200, headers
    proxied = {"origin": "https://photos.example", "sec-fetch-site": "same-origin"}
    assert web.get("/api/items", headers=proxied).status_code == 200


def test_every_answer_carries_the_headers(gallery: Gallery) -> None:
    with serving(gallery, token="s") as address, httpx.Client(base_url=address) as web:
        bearer = {"authorization": "Bearer s"}
        answers = [
            web.get("/healthz"), web.get("/api/items"), web.get("/?token=s"), web.put("/"),
            web.get("/api/items/1/picture", headers=bearer), web.get("/nosuch", headers=bearer),
            web.get("/api/items?k=x", headers=bearer), web.get("/", headers=bearer),
            web.get("/", headers={"host": "evil.example"}), web.get("/page.js", headers=bearer),
        ]  # fmt: skip
    for answer in answers:
        assert answer.headers["cross-origin-resource-policy"] == "same-origin", answer.url
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers


def test_the_names_of_this_machine_with_and_without_a_port(web: httpx.Client) -> None:
    for host in ("127.0.0.1", "localhost:1", "LOCALHOST", "[::1]", "[::1]:80"):
        assert web.get("/healthz", headers={"host": host}).status_code == 200, host
    for host in ("[::2]", "127.0.0.1.evil.example", "localhost:80:80", "", "127.0.0.2"):
        assert web.get("/healthz", headers={"host": host}).status_code == 421, host


TOKENS = {
    "letters": "s3cret",
    "printable": string.printable,
    "separators": '; , "=\\&+%20?#/',
    "spaces around": " a b ",
    "other scripts": "Ключ🔑é",
    "no UTF-8": "a\udcffb",
    "long": "é" * 500,
}


@pytest.mark.parametrize("name", TOKENS)
def test_any_token_opens_by_address_cookie_and_header(gallery: Gallery, name: str) -> None:
    token = TOKENS[name]
    with serving(gallery, token=token) as address, httpx.Client(base_url=address) as web:
        where = address_of(f"{address}/", token)
        assert where.isascii()
        assert "fragment" not in where
        assert urlsplit(where).fragment == ""
        opened = web.get(httpx.URL(address, raw_path=where.removeprefix(address).encode()))
        assert opened.status_code == 303, opened.text
        cookie = opened.headers["set-cookie"].partition(";")[0]
        assert cookie.isascii()
        foreign = f'a={{"b": 1}}; c=d e,f; {cookie}; g[h]="i'
        web.cookies.clear()
        assert web.get("/", headers={"cookie": foreign}).status_code == 200
        assert web.get("/", headers={"cookie": foreign.replace(cookie, "")}).status_code == 401
        encoded = parse_qs(urlsplit(where).query, encoding="latin-1", errors="strict")["token"][0]
        bearer = [(b"authorization", b"Bearer " + where.partition("token=")[2].encode())]
        assert web.get("/", headers=bearer).status_code == 200
        raw = encoded.encode("latin-1")
        if name in ("letters", "other scripts", "no UTF-8", "long", "separators"):
            assert web.get("/", headers=[(b"authorization", b"bearer " + raw)]).status_code == 200
        assert web.get("/", headers={"authorization": "Basic eDp5", "cookie": foreign}).is_success


@pytest.mark.parametrize("token", ["", "x" * 1001])
def test_a_token_that_cannot_protect_is_refused(gallery: Gallery, token: str) -> None:
    with pytest.raises(ValueError, match="a token has 1 to 1000 bytes"):
        Visitors(token=token, hosts=None)


def test_galleries_with_other_tokens_on_one_machine_do_not_log_each_other_out(
    gallery: Gallery,
) -> None:
    with (
        serving(gallery, token="a") as one,
        serving(gallery, token="b") as other,
        httpx.Client(follow_redirects=True) as web,  # its cookies know no port, as a browser's
    ):
        assert web.get(f"{one}/?token=a").status_code == 200
        assert web.get(f"{other}/?token=b").status_code == 200
        assert web.get(f"{one}/api/gallery").status_code == 200
        assert web.get(f"{other}/api/gallery").status_code == 200


# --- figures --------------------------------------------------------------------------------------


def test_refusals_are_counted_and_healthz_gives_no_figures(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, hold = threading.Event(), threading.Event()
    items = Gallery.items

    def slow(self: Gallery, *args: Any, **options: Any) -> Any:
        held.set()
        hold.wait(30)
        return items(self, *args, **options)

    with serving(gallery, limits=Limits(in_flight=2), token="t") as address:
        web = httpx.Client(base_url=address, headers={"authorization": "Bearer t"}, timeout=30)
        monkeypatch.setattr(Gallery, "items", slow)
        threads = [threading.Thread(target=web.get, args=("/api/items",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert held.wait(30)
        while (answer := web.get("/api/gallery")).status_code != 503:
            pass
        assert answer.headers["retry-after"] == "1"
        assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}  # though it is busy
        assert web.get("/api/items/1/picture").status_code == 200  # has a lane of its own
        hold.set()
        for thread in threads:
            thread.join()
        assert httpx.get(f"{address}/api/items").status_code == 401
        text = web.get("/metrics").text
        web.close()
    assert 'fastretrieve_requests_total{route="other",status="503"}' in text
    assert 'fastretrieve_requests_total{route="other",status="401"} 1.0' in text


# --- pictures -------------------------------------------------------------------------------------


def tiff(path: Path, width: int, height: int, *, n_bytes: int) -> None:
    """A TIFF of the given size in pixels and bytes that holds nothing: a sparse file."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
    tags += [(273, 4, 4096), (277, 3, 1), (278, 4, height), (279, 4, width * height)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4))
    os.truncate(path, n_bytes)


def test_huge_files_are_told_and_not_decoded(tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "g")
    gallery.add(class_folders(tmp_path / "photos", 4))
    paths = [Path(gallery.item(i).path) for i in range(1, 8)]
    tiff(paths[0], 60_000, 60_000, n_bytes=4_000_000_000)
    tiff(paths[1], 100, 100, n_bytes=4_000_000_000)
    tiff(paths[2], 9_000, 8_000, n_bytes=72_004_096)
    paths[3].unlink()
    paths[4].write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    paths[5].unlink()
    os.mkfifo(paths[5])
    with serving(gallery) as address, httpx.Client(base_url=address, timeout=30) as web:
        details = [web.get(f"/api/items/{i}/picture") for i in range(1, 8)]
        assert web.get("/healthz").status_code == 200
    assert [answer.status_code for answer in details] == [404] * 6 + [200]
    reasons = [answer.json()["detail"] for answer in details[:6]]
    assert ["too large" in reason for reason in reasons] == [True] * 3 + [False] * 3
    assert reasons[3] == reasons[5] == "its file is gone"
    assert not any(str(tmp_path) in reason for reason in reasons)


def test_frames_that_are_all_decoded_count_together(tmp_path: Path) -> None:
    from fastretrieve.server.limits import Refused
    from fastretrieve.server.pictures import check_upload, small_picture

    frames = [Image.new("L", (100, 100), i) for i in range(20)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    data = buffer.getvalue()
    assert check_upload(data, limit=10_000, modality="image") == "GIF"  # the first one only
    with pytest.raises(Refused, match="in 20 frames"):
        check_upload(data, limit=100_000, modality="sequence")
    (tmp_path / "a.gif").write_bytes(data)
    with pytest.raises(Refused, match="too large"):
        small_picture(tmp_path / "a.gif", modality="sequence", box=None, size=64, limit=100_000)
    made = small_picture(tmp_path / "a.gif", modality="sequence", box=None, size=64, limit=200_000)
    assert Image.open(io.BytesIO(made)).size == (64, 64)


def test_pictures_are_made_a_few_at_a_time_and_others_wait(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastretrieve.server import service

    small, lock, now, most = service.small_picture, threading.Lock(), [0], [0]
    gate = threading.Event()

    def slow(*args: Any, **options: Any) -> bytes:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        gate.wait(0.2)
        made = small(*args, **options)
        with lock:
            now[0] -= 1
        return made

    monkeypatch.setattr(service, "small_picture", slow)
    limits = Limits(pictures_at_once=2, pictures_in_flight=6)
    with serving(gallery, limits=limits) as address, httpx.Client(base_url=address) as web:
        answers: list[int] = []

        def ask(number: int) -> None:
            answers.append(httpx.get(f"{address}/api/items/{number}/picture").status_code)

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(1, 11)]
        for thread in threads:
            thread.start()
        assert web.get("/api/items").status_code == 200  # searches do not wait for pictures
        for thread in threads:
            thread.join()
    assert most[0] == 2
    assert {*answers} <= {200, 503}
    assert answers.count(200) >= 6


def test_websockets_find_nothing(gallery: Gallery) -> None:
    ask = (
        b"GET /api/items HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\n"
        b"upgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with serving(gallery) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(ask)
            assert b" 101 " not in connection.recv(100)
