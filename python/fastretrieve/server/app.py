"""Puts the page together: the application, its guard, and the server that runs it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.server.description import describe
from fastretrieve.server.filters import plain, sentence
from fastretrieve.server.guard import SECURITY, Figures, Guard
from fastretrieve.server.limits import Limits, Refused
from fastretrieve.server.routes import EVERYWHERE, router
from fastretrieve.server.service import Service, log
from fastretrieve.server.visitors import address_of

_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_PAGE = (
    "page.html",
    "page.css",
    "page.js",
    "clusters.js",
    "explaining.js",
    "imagining.js",
    "pictures.js",
    "region.js",
    "switches.js",
    "translating.js",
    "uploads.js",
    "words.js",
    "icon.svg",
)
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def create_app(
    gallery: Gallery | str | Path,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    only_local: bool = True,
    imagine: Any = None,
    translate: Any = None,
) -> FastAPI:
    """An ASGI application for one gallery. ``only_local`` answers only to this machine's names.
    ``imagine`` and ``translate``, as for ``Gallery.search``, are what visitors may switch on: to
    search with imagined pictures, and to carry theirs into the gallery's style.
    """
    opened = gallery if isinstance(gallery, Gallery) else Gallery.open(gallery)
    service = Service(opened, limits or Limits(), imagine=imagine, translate=translate)
    figures = Figures()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.warm_up()
        yield

    app = FastAPI(
        title="fastretrieve",
        version=version("fastretrieve"),
        description="Search a gallery of images by image or by words.",
        lifespan=lifespan,
        openapi_url=None,  # description.py has it
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # to wherever the request says that it is
    )
    app.state.service = service
    app.state.figures = figures
    app.state.uploads = asyncio.Semaphore(service.limits.at_once)
    app.state.pictures = asyncio.Semaphore(service.limits.pictures_at_once)
    app.include_router(router)
    _add_faults(app)
    _add_page(app)
    _add_for_operators(app, opened, figures)
    describe(app, service)
    hosts = _LOCAL if only_local else None
    app.add_middleware(Guard, limits=service.limits, figures=figures, token=token, hosts=hosts)
    return app


def _add_faults(app: FastAPI) -> None:
    """Every fault is a sentence for the visitor; the log has its files and details."""

    def answer(status: int, reason: str) -> JSONResponse:
        return JSONResponse({"detail": plain(reason)}, status)

    async def refused(_: Request, error: Any) -> JSONResponse:
        return answer(error.status, str(error))

    async def wrong(_: Request, error: Any) -> JSONResponse:
        return answer(422, sentence(error.errors()))

    async def broken(request: Request, error: Any) -> JSONResponse:
        log.error("%s %r: %s", request.method, request.url.path, plain(str(error)))
        return answer(503, "the gallery cannot answer; the log of the server says why")

    async def fault(_: Request, __: Exception) -> JSONResponse:  # around the guard
        made = answer(500, "a fault of the server; its log says more")
        made.raw_headers.extend(SECURITY)
        return made

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(RequestValidationError, wrong)
    app.add_exception_handler(GalleryError, broken)
    app.add_exception_handler(Exception, fault)


def _add_for_operators(app: FastAPI, gallery: Gallery, figures: Figures) -> None:
    broken = {**EVERYWHERE, 503: {"description": "It cannot be searched."}}

    @app.get("/healthz", responses=broken)
    def healthz() -> JSONResponse:
        """Whether the gallery can be searched."""
        try:
            len(gallery)
        except GalleryError:  # its text names files, and this is answered to everybody
            return JSONResponse({"status": "broken"}, 503)
        return JSONResponse({"status": "ok"})

    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}

    @app.get("/metrics", response_class=Response, responses={200: text, **EVERYWHERE})
    def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(figures.text(), media_type="text/plain; version=0.0.4")


def _add_page(app: FastAPI) -> None:
    folder = resources.files("fastretrieve.server") / "static"
    for name in _PAGE:
        path = "/" if name == "page.html" else f"/{name}"
        content, kind = (folder / name).read_bytes(), _KINDS[Path(name).suffix]

        def page(content: bytes = content, kind: str = kind) -> Response:
            return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

        app.add_api_route(path, page, include_in_schema=False, response_class=Response)


def run(
    gallery: Gallery,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    limits: Limits | None = None,
    imagine: Any = None,
    translate: Any = None,
) -> None:
    """Serve until interrupted. Port 0 takes any that is free."""
    import uvicorn

    is_local = host in ("127.0.0.1", "localhost", "::1")
    app = create_app(
        gallery,
        limits=limits,
        token=token,
        only_local=is_local,
        imagine=imagine,
        translate=translate,
    )
    with _listening(host, port) as listening:
        name = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)
        where = f"http://{name}:{listening.getsockname()[1]}/"
        print(f"{gallery.path}: open {address_of(where, token)}", flush=True)
        if not is_local and not token:
            print("anybody who reaches this machine can see the gallery; --token asks for a token")
        with contextlib.suppress(KeyboardInterrupt):  # which is how one ends it
            uvicorn.Server(uvicorn.Config(app, **settings(app))).run(sockets=[listening])


def settings(app: FastAPI) -> dict[str, Any]:
    """How uvicorn is to run an application of ``create_app``, so that no client holds it up:
    ``uvicorn.Config(app, **settings(app))``.
    """
    from fastretrieve.server.connections import protocol

    limits: Limits = app.state.service.limits
    return {
        "http": protocol(limits, app.state.figures),
        "ws": "none",
        "log_level": "warning",
        "server_header": False,
        "proxy_headers": False,
        "h11_max_incomplete_event_size": limits.head_bytes,
        "timeout_graceful_shutdown": limits.shutdown_seconds,
    }


def _listening(host: str, port: int) -> socket.socket:
    """A socket of our own, so that a port that is taken is an error before anything is said."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RuntimeError(
            f"cannot listen at {host}, port {port}: {reason}; choose another host or port"
        ) from error
    # asyncio does this for sockets it makes itself. Connections inherit it; without it the second
    # packet of an answer waits 40 ms for the acknowledgement of the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
