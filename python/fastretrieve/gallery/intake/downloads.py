"""Fetch a picture from a URL into the gallery, within limits of size and time.

Only ``add`` does this, on behalf of the person who runs it; the page never fetches anything. A file
that was fetched is not fetched again.
"""

from __future__ import annotations

import io
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO, NamedTuple

from fastretrieve.data import DataError
from fastretrieve.data.opening import open_picture
from fastretrieve.gallery.intake.candidates import put_picture

_CHUNK = 1 << 16


class DownloadLimits(NamedTuple):
    """What one download may cost."""

    max_bytes: int = 50_000_000
    seconds: float = 30.0  # for all of it
    idle_seconds: float = 10.0  # without a byte


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not out of http and https."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, req, fp, code, msg, headers, newurl
    ) -> urllib.request.Request | None:
        if not newurl.lower().startswith(("http://", "https://")):
            raise urllib.error.URLError(f"it redirects to {newurl[:80]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, path: Path, limits: DownloadLimits) -> Path:
    """Put the picture at ``path`` with the suffix of its format; returns where it is."""
    if path.suffix and path.is_file():  # of an item that was fetched before
        return path
    for kept in path.parent.glob(f"{path.name}.*"):
        return kept
    try:
        data = _read(url, limits)
    except DataError:
        raise
    except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
        raise DataError(f"{url}: {error}") from error
    with open_picture(io.BytesIO(data), name=f"{url}: what it sends") as image:
        suffix = f".{(image.format or 'image').lower()}"
    kept = path.with_name(path.name + suffix)
    put_picture(kept, data)
    return kept


def _read(url: str, limits: DownloadLimits) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "fastretrieve"})
    opener = urllib.request.build_opener(_HttpOnly())
    deadline = time.monotonic() + limits.seconds
    with opener.open(request, timeout=limits.idle_seconds) as response:
        announced = response.headers.get("Content-Length", "")
        if announced.isdigit() and int(announced) > limits.max_bytes:
            raise DataError(f"{url}: {announced} bytes, at most {limits.max_bytes} are taken")
        return _limited(response, url, limits, deadline)


def _limited(response: IO[bytes], url: str, limits: DownloadLimits, deadline: float) -> bytes:
    parts, size = [], 0
    while chunk := response.read1(_CHUNK):  # type: ignore[attr-defined]
        parts.append(chunk)
        size += len(chunk)
        if size > limits.max_bytes:
            raise DataError(f"{url}: more than {limits.max_bytes} bytes")
        if time.monotonic() > deadline:
            raise DataError(f"{url}: more than {limits.seconds:g} s")
    return b"".join(parts)
