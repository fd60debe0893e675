"""``Limits`` of one server; and ``Refused``, its answer to more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The load that one server accepts."""

    upload_bytes: int = 20_000_000
    arriving_bytes: int = 500_000_000  # of uploads that are on their way, all together
    pixels: int = 64_000_000  # of a picture, all frames together, counted before it is decoded
    in_flight: int = 32  # requests being answered or waiting for their turn; more get 503
    at_once: int = 4  # uploads being decoded and encoded at the same time
    pictures_in_flight: int = 64  # pictures of items being made or waiting; more get 503
    pictures_at_once: int = 2
    results: int = 200  # of one search
    depth: int = 10_000  # how far one can page
    imagined: int = 32  # pictures that one search may imagine
    cache_bytes: int = 64_000_000  # of small pictures
    # Of connections. ``fastretrieve serve`` enforces them; another server has limits of its own.
    connections: int = 400
    connections_per_address: int = 100
    head_bytes: int = 65_536
    head_seconds: float = 10.0  # to send a whole head, and for which a connection may be idle
    body_seconds: float = 10.0  # in which ``body_bytes`` of a body must arrive, again and again
    body_bytes: int = 200_000
    answer_seconds: float = 20.0  # to take an answer
    shutdown_seconds: float = 3.0  # that answers under way get when the server ends


class Refused(Exception):
    """A request that cannot be answered, with its HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
