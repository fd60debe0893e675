"""Refuses what is too large, too much, from elsewhere, or without the token; counts the rest.

One layer around the application, in plain ASGI, so that a body is counted while it arrives and
never held.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Iterable
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastretrieve.server.service import Limits

COOKIE = "fastretrieve_token"
_FORM_BYTES = 100_000  # around the image: the other fields and the boundaries
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
    ),
]


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
        self._limits = limits
        self._figures = figures
        self._token = token
        # Names under which this machine may be asked; a page elsewhere that points its own name
        # here would read the gallery otherwise.
        self._hosts = None if hosts is None else frozenset(hosts)
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        if refusal := self._refusal(scope, headers):
            await _send_json(send, *refusal)
            return
        if self._token and scope["path"] == "/" and "token=" in scope["query_string"].decode():
            await self._send_cookie(scope, send)
            return
        await self._count(scope, self._limited(receive), send)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "").rsplit(":", 1)[0] if "host" in headers else ""
        if self._hosts is not None and host not in self._hosts:
            return 421, f"this server is not called {host!r}"
        if scope["path"] == "/healthz":
            return None
        if self._token and not self._may_enter(scope, headers):
            return 401, "a token is needed: open /?token=... or send 'Authorization: Bearer ...'"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._limits.upload_bytes + _FORM_BYTES:
            return 413, f"an upload has at most {self._limits.upload_bytes} bytes"
        if self._in_flight >= self._limits.in_flight:
            return 503, "too many requests at the moment; try again in a second"
        return None

    def _may_enter(self, scope: Scope, headers: dict[str, str]) -> bool:
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not given:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
            given = cookie.value if cookie else ""
        if not given and scope["path"] == "/":
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return hmac.compare_digest(given.encode(), (self._token or "").encode())

    async def _send_cookie(self, scope: Scope, send: Send) -> None:
        """The token goes from the address, where it would be seen and kept, into a cookie."""
        cookie = f"{COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/"
        location = scope.get("root_path", "") + "/"
        headers = [(b"location", location.encode()), (b"set-cookie", cookie.encode())]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def _limited(self, receive: Receive) -> Receive:
        """Stops a body that is longer than it may be, whatever its header said."""
        n_bytes = 0

        async def limited() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > self._limits.upload_bytes + _FORM_BYTES:
                raise HTTPException(413, f"an upload has at most {self._limits.upload_bytes} bytes")
            return message

        return limited

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        self._in_flight += 1
        self._figures.in_flight.inc()
        try:
            await self._app(scope, receive, counted)
        finally:
            self._in_flight -= 1
            self._figures.in_flight.dec()
            route: Any = scope.get("route")
            name = getattr(route, "path", "other")
            self._figures.requests.labels(name, str(status)).inc()
            self._figures.seconds.labels(name).observe(time.perf_counter() - started)


async def _send_json(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close"), *_HEADERS]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
