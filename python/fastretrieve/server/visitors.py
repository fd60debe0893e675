"""Who may enter: by the host name, the site and the token of a request."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from urllib.parse import quote, unquote_to_bytes, urlsplit

from starlette.types import Scope

_COOKIE = "fastretrieve_token"
_LONGEST_TOKEN = 1000  # three bytes a byte in a cookie, of which browsers keep 4096


class Visitors:
    """Decides from the head of a request."""

    def __init__(self, *, token: str | None, hosts: Iterable[str] | None) -> None:
        self._token = None if token is None else _checked(token)
        # Names under which this machine may be asked; a page elsewhere that points its own name
        # here would read the gallery otherwise.
        self._hosts = None if hosts is None else frozenset(hosts)
        # A cookie is sent to every port of a host: galleries with other tokens have other names.
        digest = hashlib.sha256(self._token or b"").hexdigest()[:8]
        self._name = f"{_COOKIE}_{digest}".encode()

    def refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """The status and the reason of a refusal, or None."""
        host = _host(headers.get(b"host", b""))
        if self._hosts is not None and host not in self._hosts:
            return 421, f"this server is not called {host!r}"
        if scope["path"] == "/healthz":
            return None
        if scope["path"].startswith("/api/") and not _is_own(headers):
            return 403, "another site asked for this; open the page of the gallery itself"
        if self._token is not None and not self._has_token(scope, headers):
            return 401, "a token is needed: open /?token=... or send 'Authorization: Bearer ...'"
        return None

    def cookie(self, scope: Scope, headers: dict[bytes, bytes]) -> bytes | None:
        """The token goes from the address, where it would be seen and kept, into a cookie."""
        if self._token is None or scope["path"] != "/" or not _in_address(scope):
            return None
        value = quote(self._token, safe="").encode()
        return self._name + b"=" + value + b"; HttpOnly; SameSite=Strict; Path=/"

    def _has_token(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        given = [unquote_to_bytes(value) for value in _cookies(headers, self._name)]
        scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":  # as it is, or encoded where a header cannot hold it
            given += [credentials.strip(), unquote_to_bytes(credentials.strip())]
        if scope["path"] == "/":
            given += _in_address(scope)
        # A list, so that all are compared.
        return any([hmac.compare_digest(each, self._token or b"") for each in given])  # noqa: C419


def address_of(where: str, token: str | None) -> str:
    """What to open in a browser."""
    return where if token is None else f"{where}?token={quote(_checked(token), safe='')}"


def _checked(token: str) -> bytes:
    encoded = token.encode("utf-8", "surrogateescape")  # as the shell gave it
    if not 1 <= len(encoded) <= _LONGEST_TOKEN:
        raise ValueError(
            f"a token has 1 to {_LONGEST_TOKEN} bytes, got {len(encoded)}; without --token none is "
            "asked for"
        )
    return encoded


def _host(value: bytes) -> str:
    """The name in a Host header, without its port."""
    return re.sub(r":\d*$", "", value.decode("latin-1").strip().lower())


def _is_own(headers: dict[bytes, bytes]) -> bool:
    """Whether no other site asks: browsers tell, programs have no reason to."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:  # about the address that the browser sees, whatever a proxy made of it
        return site in (b"same-origin", b"none")
    origin = headers.get(b"origin")
    if origin is None:
        return True
    try:
        asked = urlsplit(origin.decode("latin-1"))
    except ValueError:
        return False
    default = {"http": ":80", "https": ":443"}.get(asked.scheme, "")
    host = headers.get(b"host", b"").decode("latin-1").strip().lower()
    return asked.netloc.lower().removesuffix(default) == host.removesuffix(default) != ""


def _cookies(headers: dict[bytes, bytes], name: bytes) -> list[bytes]:
    """The values of one cookie. Whatever other applications of this host have set is passed over;
    ``http.cookies`` drops all where it does not understand one.
    """
    pairs = (part.strip().partition(b"=") for part in headers.get(b"cookie", b"").split(b";"))
    return [value.strip().strip(b'"') for key, _, value in pairs if key.strip() == name]


def _in_address(scope: Scope) -> list[bytes]:
    """The tokens in a query string."""
    pairs = (part.partition(b"=") for part in scope["query_string"].split(b"&"))
    return [unquote_to_bytes(v.replace(b"+", b" ")) for name, _, v in pairs if name == b"token"]
