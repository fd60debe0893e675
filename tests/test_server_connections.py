"""Clients that send slowly, take slowly, or only hold a connection keep nobody else waiting."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from fastretrieve.gallery import Gallery
from fastretrieve.server import Limits
from gallery_helpers import new_gallery, serving, write_pictures

pytest.importorskip("fastapi")

HASTY = Limits(head_seconds=1, body_seconds=1, answer_seconds=1)
HALF_A_HEAD = b"GET /api/items HTTP/1.1\r\nhost: 127.0.0.1\r\nx: "
HALF_AN_UPLOAD = (
    b"POST /api/search HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9000\r\n"
    b"content-type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
)
UNREAD_BODY = b"GET /api/gallery HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9000\r\n\r\nx"
PATIENCE = 30.0  # seconds; a connection that nobody closes outlasts it


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("slow")
    made = new_gallery(folder / "g")
    made.add(write_pictures(folder / "photos", 30))
    return made


def opened(address: str, data: bytes = b"") -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
    connection.sendall(data)
    return connection


@contextlib.contextmanager
def many(address: str, n: int, data: bytes) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(opened(address, data)) for _ in range(n)]


def rest(connection: socket.socket) -> bytes:
    """Everything until the other side hangs up."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_half_sent_uploads_take_no_place(gallery: Gallery) -> None:
    with (
        serving(gallery, limits=Limits(in_flight=2, body_seconds=2 * PATIENCE)) as address,
        many(address, 40, HALF_AN_UPLOAD),
        httpx.Client(base_url=address) as web,
    ):
        time.sleep(0.5)  # they have arrived
        assert web.get("/api/items/1/similar").status_code == 200
        files = {"image": ("x.png", Path(gallery.item(1).path).read_bytes())}
        assert web.post("/api/search", files=files).status_code == 200
        assert "fastretrieve_in_flight 1.0" in web.get("/metrics").text  # this one


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (HALF_A_HEAD, b"HTTP/1.1 408 "),
        (HALF_AN_UPLOAD, b"HTTP/1.1 408 "),
        (UNREAD_BODY, b"HTTP/1.1 200 "),
    ],
    ids=["nothing", "half a head", "half an upload", "half a body that is not read"],
)
def test_what_is_not_sent_in_time_is_closed(gallery: Gallery, sent: bytes, answer: bytes) -> None:
    with serving(gallery, limits=HASTY) as address, opened(address, sent) as connection:
        assert rest(connection).startswith(answer)


@pytest.mark.parametrize("sent", [HALF_A_HEAD, HALF_AN_UPLOAD], ids=["head", "body"])
def test_a_byte_now_and_then_is_not_enough(gallery: Gallery, sent: bytes) -> None:
    with serving(gallery, limits=HASTY) as address, opened(address, sent) as connection:
        end = time.monotonic() + PATIENCE
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < end:
                connection.sendall(b"x")
                time.sleep(0.2)
        assert time.monotonic() < end


def test_an_upload_that_goes_on_may_take_long(gallery: Gallery) -> None:
    """Each part comes in time, all together do not."""
    limits = Limits(head_seconds=1, body_seconds=1.5, body_bytes=1000)
    data = Path(gallery.item(1).path).read_bytes()
    body = (
        b'--b\r\ncontent-disposition: form-data; name="image"; filename="x"\r\n\r\n'
        + data
        + b"\r\n--b--\r\n--end" + b" " * 20_000
    )  # fmt: skip
    head = re.sub(b"9000", str(len(body)).encode(), HALF_AN_UPLOAD.partition(b"--b")[0])
    with serving(gallery, limits=limits) as address, opened(address, head) as connection:
        started = time.monotonic()
        for at in range(0, len(body), 3000):
            connection.sendall(body[at : at + 3000])
            time.sleep(0.4)
        assert time.monotonic() - started > limits.body_seconds
        assert connection.recv(15) == b"HTTP/1.1 200 OK"


def test_who_does_not_take_an_answer_is_hung_up_on(gallery: Gallery) -> None:
    ask = b"GET /page.js HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    with serving(gallery, limits=HASTY) as address:
        host, port = address.removeprefix("http://").split(":")
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(PATIENCE)
        connection.connect((host, int(port)))
        with connection, contextlib.suppress(ConnectionError):
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:  # until the server closes
                connection.sendall(ask * 100)
                time.sleep(0.2)
            pytest.fail("the connection stayed open")


def test_idle_connections_make_room_for_a_visitor(gallery: Gallery) -> None:
    limits = Limits(connections=60, connections_per_address=40, head_seconds=PATIENCE)
    with serving(gallery, limits=limits) as address, many(address, 300, HALF_A_HEAD) as held:
        for _ in range(20):  # each in a connection of its own
            assert httpx.get(f"{address}/api/items").status_code == 200
        for connection in held:
            connection.settimeout(0.01)
        closed = 0
        for connection in held:
            with contextlib.suppress(TimeoutError):
                closed += rest(connection) == b""
        assert closed >= 260


def test_where_no_connection_is_idle_the_new_one_is_refused(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    hold = threading.Event()
    items = Gallery.items
    monkeypatch.setattr(
        Gallery, "items", lambda self, *args, **options: hold.wait(PATIENCE) and items(
            self, *args, **options
        )
    )  # fmt: skip
    whole = b"GET /api/items HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
    limits = Limits(connections_per_address=3)
    with serving(gallery, limits=limits) as address, many(address, 3, whole) as busy:
        time.sleep(1)  # they are with the application
        with opened(address) as fourth:
            assert rest(fourth).startswith(b"HTTP/1.1 503 ")
        hold.set()
        counted = 'route="connection",status="503"} 1.0'
        wait_until(lambda: _answers(address))
        assert counted in httpx.get(f"{address}/metrics").text
        assert [rest(each)[:15] for each in busy] == [b"HTTP/1.1 200 OK"] * 3


def test_too_large_heads_and_what_is_no_http_are_refused(gallery: Gallery) -> None:
    wrong = {
        "large": HALF_A_HEAD + b"x" * 200_000,
        "many": HALF_A_HEAD + b"\r\na: b" * 40_000 + b"\r\n\r\n",
        "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        "bad chunks": HALF_AN_UPLOAD.replace(
            b"content-length: 9000", b"transfer-encoding: chunked"
        ),
        "two lengths": UNREAD_BODY.replace(b"\r\n\r\nx", b"\r\ncontent-length: 1\r\n\r\nx"),
    }
    with serving(gallery) as address:
        for name, sent in wrong.items():
            with opened(address) as connection:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(sent)
                answer = rest(connection)
                assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), name
        assert httpx.get(f"{address}/healthz").status_code == 200


@pytest.mark.parametrize("sent", [b"", HALF_A_HEAD, HALF_AN_UPLOAD, UNREAD_BODY])
def test_it_ends_in_seconds_whatever_is_open(gallery: Gallery, sent: bytes) -> None:
    command = [sys.executable, "-m", "fastretrieve", "serve", str(gallery.path), "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            address = re.search(r"http://[\d.:]+\d", line)
            assert address, line
            wait_until(lambda: _answers(address[0]))
            with many(address[0], 50, sent):
                time.sleep(0.5)
                process.send_signal(signal.SIGTERM)
                process.wait(20)
        finally:
            process.kill()


def _answers(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{address}/healthz").status_code == 200
    return False
