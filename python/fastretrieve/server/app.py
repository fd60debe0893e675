"""Puts the page together: the application, its guard, and the server that runs it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.server.guard import Figures, Guard
from fastretrieve.server.routes import router
from fastretrieve.server.service import Limits, Refused, Service

_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def create_app(
    gallery: Gallery | str | Path,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    only_local: bool = True,
) -> FastAPI:
    """An ASGI application for one gallery. ``only_local`` answers only to this machine's names."""
    opened = gallery if isinstance(gallery, Gallery) else Gallery.open(gallery)
    service = Service(opened, limits or Limits())
    figures = Figures()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.warm_up()
        yield

    app = FastAPI(
        title="fastretrieve",
        version=version("fastretrieve"),
        description="Search a gallery of images by image.",
        lifespan=lifespan,
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    app.include_router(router)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(GalleryError, _wrong)
    _add_page(app)
    _add_for_operators(app, opened, figures)
    hosts = _LOCAL if only_local else None
    app.add_middleware(Guard, limits=service.limits, figures=figures, token=token, hosts=hosts)
    return app


async def _refused(_: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, Refused) else 500
    return JSONResponse({"detail": str(error)}, status)


async def _wrong(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 422)


def _add_for_operators(app: FastAPI, gallery: Gallery, figures: Figures) -> None:
    @app.get("/healthz", responses={503: {"description": "It cannot be searched."}})
    def healthz() -> JSONResponse:
        """Whether the gallery can be searched."""
        try:
            return JSONResponse({"status": "ok", "items": len(gallery)})
        except GalleryError:  # its text names files, and this is answered to everybody
            return JSONResponse({"status": "broken"}, 503)

    @app.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(figures.text(), media_type="text/plain; version=0.0.4")


def _add_page(app: FastAPI) -> None:
    folder = resources.files("fastretrieve.server") / "static"
    for path, (name, kind) in _PAGE.items():
        content = (folder / name).read_bytes()

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
) -> None:
    """Serve until interrupted. Port 0 takes any that is free."""
    import uvicorn

    is_local = host in ("127.0.0.1", "localhost", "::1")
    app = create_app(gallery, limits=limits, token=token, only_local=is_local)
    with _listening(host, port) as listening:
        name = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)
        where = f"http://{name}:{listening.getsockname()[1]}/"
        print(f"{gallery.path}: open {where}{f'?token={token}' if token else ''}", flush=True)
        if not is_local and not token:
            print("anybody who reaches this machine can see the gallery; --token asks for a token")
        with contextlib.suppress(KeyboardInterrupt):  # which is how one ends it
            uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


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
