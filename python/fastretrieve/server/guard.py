"""Refuses what is too large, too much, from elsewhere, or without the token; counts everything.

One layer around the application, in plain ASGI, so that a body is counted while it arrives and
never held. ``visitors.py`` decides who may enter.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastretrieve.server.limits import Limits
from fastretrieve.server.visitors import Visitors

_FORM_BYTES = 100_000  # around the image: the other fields and the boundaries
SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; "
        b"form-action 'self'; object-src 'none'",
    ),
]
_BUSY = "too many requests at the moment; try again in a second"


class Figures:
    """What Prometheus reads at /metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "fastretrieve_requests",
            "Requests answered",
            ["route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "fastretrieve_request_seconds", "Seconds to answer", ["route"], registry=self.registry
        )
        self.in_flight = Gauge(
            "fastretrieve_in_flight", "Requests being answered", registry=self.registry
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Lane:
    """Requests of one kind that are being answered or wait for their turn; so many go."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.n = 0


class _Request:
    """One request on its way: what has arrived of it, and whether it counts yet.

    It counts once its body has arrived, so that slow senders keep no visitor out.
    """

    def __init__(self, guard: Guard, lane: Lane, receive: Receive) -> None:
        self._guard, self._lane, self._receive = guard, lane, receive
        self.counts = False
        self._n_bytes = 0

    def count(self) -> bool:
        """Whether there is room for it."""
        if not self.counts and self._lane.n < self._lane.limit:
            self.counts = True
            self._lane.n += 1
            self._guard.figures.in_flight.inc()
        return self.counts

    async def receive(self) -> Message:
        """Stops a body that is longer than it may be, whatever its header said."""
        message = await self._receive()
        n_bytes, limits = len(message.get("body", b"")), self._guard.limits
        self._n_bytes += n_bytes
        self._guard.arriving_bytes += n_bytes
        if self._n_bytes > limits.upload_bytes + _FORM_BYTES:
            raise HTTPException(413, _too_large(limits))
        is_last = message["type"] == "http.request" and not message.get("more_body", False)
        if self._guard.arriving_bytes > limits.arriving_bytes or (is_last and not self.count()):
            raise HTTPException(503, _BUSY, {"retry-after": "1"})
        return message

    def end(self) -> None:
        self._guard.arriving_bytes -= self._n_bytes
        if self.counts:
            self._lane.n -= 1
            self._guard.figures.in_flight.dec()


class Guard:
    """The layer around an application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        figures: Figures,
        token: str | None,
        hosts: Iterable[str] | None,
    ) -> None:
        self._app = app
        self._visitors = Visitors(token=token, hosts=hosts)
        self.limits = limits
        self.figures = figures
        self.arriving_bytes = 0
        self._requests = Lane(limits.in_flight)
        self._pictures = Lane(limits.pictures_in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._count(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), *SECURITY]}
            await send(message)

        if scope["method"] == "HEAD":  # the server leaves the body out
            scope = {**scope, "method": "GET"}
        try:
            await self._answer(scope, receive, counted)
        finally:
            route: Any = scope.get("route")
            name = getattr(route, "path", "other")
            self.figures.requests.labels(name, str(status)).inc()
            self.figures.seconds.labels(name).observe(time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:  # of cookies there may be several
            headers[name] = headers[name] + b"; " + value if name in headers else value
        path = scope["path"]
        if refusal := self._visitors.refusal(scope, headers) or self._too_long(headers):
            await send_json(send, *refusal)
            return
        if cookie := self._visitors.cookie(scope, headers):
            location = scope.get("root_path", "") + "/"
            moved = [(b"location", location.encode()), (b"set-cookie", cookie)]
            await send({"type": "http.response.start", "status": 303, "headers": moved})
            await send({"type": "http.response.body", "body": b""})
            return
        lane = self._pictures if path.endswith("/picture") else self._requests
        request = _Request(self, lane, receive)
        has_body = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        reads_body = scope["method"] == "POST" and has_body
        try:
            if path == "/healthz" or reads_body or request.count():
                await self._app(scope, request.receive, send)
            else:
                await send_json(send, 503, _BUSY)
        finally:
            request.end()

    def _too_long(self, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        length = headers.get(b"content-length", b"0")
        is_known = length.isdigit() and len(length) < 16
        if is_known and int(length) <= self.limits.upload_bytes + _FORM_BYTES:
            return None
        return 413, _too_large(self.limits)


def _too_large(limits: Limits) -> str:
    return f"an upload has at most {limits.upload_bytes} bytes"


async def send_json(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
