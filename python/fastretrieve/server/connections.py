"""Connections that keep the server waiting are closed, and there are only so many of them.

uvicorn waits for a request for as long as its client likes. ``Connection`` adds three clocks, one
for each thing that a client can be slow with (its head, its body, taking the answer), and
``Connections`` counts. Where there are too many, the one that has kept the server waiting longest
makes room, so that idle ones never keep a visitor out.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections import defaultdict
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from fastretrieve.server.guard import Figures
from fastretrieve.server.limits import Limits

_TICK = 0.5  # seconds between two looks at a connection

# What the server waits for; "" while it is its own turn.
Phase = Literal["head", "body", "answer", ""]


class Connections:
    """The connections of one server, by address."""

    def __init__(self, limits: Limits, figures: Figures) -> None:
        self.limits = limits
        self.figures = figures
        self._by_address: defaultdict[str, set[Connection]] = defaultdict(set)
        self._n = 0

    def add(self, new: Connection) -> bool:
        """Whether there is room for this one, if need be in the place of another."""
        same = self._by_address[new.address]
        same.add(new)
        self._n += 1
        crowd: set[Connection] = set()
        if len(same) > self.limits.connections_per_address:
            crowd = same
        elif self._n > self.limits.connections:
            crowd = {each for some in self._by_address.values() for each in some}
        if not crowd:
            return True
        slowest = max(crowd, key=Connection.kept_waiting)
        if slowest is new or slowest.kept_waiting() <= 0:
            return False
        slowest.abort()
        return True

    def remove(self, gone: Connection) -> None:
        same = self._by_address[gone.address]
        if gone in same:
            same.remove(gone)
            self._n -= 1
        if not same:
            del self._by_address[gone.address]


class Connection(H11Protocol):
    """One connection of uvicorn, with clocks."""

    register: Connections  # set by ``protocol``
    address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = _network(transport.get_extra_info("peername"))
        self._phase: Phase = "head"
        self._since = self._heard = self.loop.time()
        self._n_bytes = 0  # since then
        self._timer = self.loop.call_later(_TICK, self._look)
        if not self.register.add(self):
            self._end(503, "too many connections at the moment; try again in a second")

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self.register.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():  # it was told that it is too slow
            return
        self._n_bytes += len(data)
        self._heard = self.loop.time()
        super().data_received(data)
        self._enter(self._now_in())

    def on_response_complete(self) -> None:
        self._phase = ""  # the next head has a clock of its own
        self._enter("head")
        super().on_response_complete()

    def shutdown(self) -> None:
        """A client that is being waited for is not waited for when the server ends."""
        if self._now_in() == "body":
            self.abort()
        else:
            super().shutdown()

    def kept_waiting(self) -> float:
        """For how many seconds the server has waited for this client; less than 0 if it does not.

        A body that arrives is no idle connection.
        """
        phase = self._now_in()
        if not phase or phase != self._phase:
            return 0.0 if phase else -1.0
        return self.loop.time() - (self._heard if phase == "body" else self._since)

    def abort(self) -> None:
        self.register.remove(self)
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or has too large a head, is answered if an answer is still possible."""
        waiting, _ = self.conn.trailing_data
        if len(waiting) > self.register.limits.head_bytes:
            self._end(431, f"a head has at most {self.register.limits.head_bytes} bytes")
        else:
            self._end(400, msg)

    def _now_in(self) -> Phase:
        if self.transport.is_closing() or self.transport.get_write_buffer_size() > 0:
            return "answer"
        if self.conn.their_state is h11.SEND_BODY:
            return "" if self.flow.read_paused else "body"  # else the application is behind
        return "head" if self.conn.their_state is h11.IDLE else ""

    def _enter(self, phase: Phase) -> None:
        if phase != self._phase:
            self._phase, self._since, self._n_bytes = phase, self.loop.time(), 0

    def _look(self) -> None:
        self._timer = self.loop.call_later(_TICK, self._look)
        self._enter(self._now_in())
        limits, waited = self.register.limits, self.loop.time() - self._since
        if self._phase == "body" and self._n_bytes >= limits.body_bytes:
            self._since, self._n_bytes = self.loop.time(), 0
        elif self._phase == "answer" and waited > limits.answer_seconds:
            self.abort()
        elif (self._phase == "body" and waited > limits.body_seconds) or (
            self._phase == "head" and waited > limits.head_seconds
        ):
            self._end(408, "the request arrives too slowly")

    def _end(self, status: int, reason: str) -> None:
        """Say why, unless something is said already, and hang up."""
        is_new = self.cycle is None or self.cycle.response_complete
        is_silent = is_new and self._n_bytes == 0 and status == 408  # it was idle
        if not is_silent and (is_new or not self.cycle.response_started):
            self.register.figures.requests.labels("connection", str(status)).inc()
            body = json.dumps({"detail": reason})
            self.transport.write(
                f"HTTP/1.1 {status} -\r\nconnection: close\r\ncontent-type: application/json\r\n"
                "cross-origin-resource-policy: same-origin\r\nx-content-type-options: nosniff\r\n"
                f"content-length: {len(body)}\r\n\r\n{body}".encode("ascii")
            )
        self.transport.close()


def protocol(limits: Limits, figures: Figures) -> type[Connection]:
    """What ``uvicorn.Config(http=...)`` takes: connections with these limits, counted together."""
    return type("Connection", (Connection,), {"register": Connections(limits, figures)})


def _network(peer: Any) -> str:
    """The address of a client; of IPv6 the network, in which one client has all addresses."""
    if not isinstance(peer, tuple):
        return ""
    try:
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    except ValueError:
        return str(peer[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
