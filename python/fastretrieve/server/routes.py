"""What can be asked over HTTP. Every route is described in /openapi.json."""

import asyncio
import re
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Path, Query, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, BeforeValidator, Field

from fastretrieve.server import filters as conditions
from fastretrieve.server.limits import Refused
from fastretrieve.server.service import Service

_LARGEST = 2**63 - 1  # of the ids of an index


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": _MEANINGS[status]} for status in statuses}


_MEANINGS = {
    400: "This is no HTTP, or the body is no form.",
    401: "A token is needed.",
    403: "Another site asked for it.",
    404: "There is no such item.",
    408: "The request arrives too slowly.",
    413: "The upload is too large.",
    415: "The upload is no image.",
    421: "This server has another name.",
    422: "A value is not as described.",
    431: "The head is too large.",
    503: "Too many requests at the moment, or the gallery is broken.",
}
EVERYWHERE = _problems(400, 401, 403, 408, 413, 421, 431, 503)

router = APIRouter(prefix="/api", responses=EVERYWHERE)


class Shown(BaseModel):
    """An item of the gallery."""

    id: int
    name: str
    label: str | None
    caption: str | None
    width: int | None
    height: int | None
    metadata: dict[str, Any]
    picture: str = Field(description="Where its picture is, relative to the page.")
    score: float | None = None


class Page(BaseModel):
    """A page of items, the best first."""

    matches: list[Shown]
    offset: int
    more: bool = Field(description="Whether there is a next page.")
    translated: str | None = Field(
        default=None, description="The translated query, if there is one: a JPEG in base64."
    )
    timing: dict[str, float] = Field(default={}, description="Milliseconds by stage.")


class Facts(BaseModel):
    """What the gallery is."""

    name: str
    items: int
    encoder: str
    dim: int
    metric: str
    modality: str
    labels: dict[str, int]
    columns: list[str]
    kinds: dict[str, conditions.Kind] = Field(
        description="What the columns hold with which items can be filtered."
    )
    upload_bytes: int = Field(description="The largest upload.")
    translates: bool = Field(description="Whether an upload can be translated.")


def _as_written(value: Any) -> Any:
    """Refuse text that Python takes for a whole number and JSON does not, such as ``1_0``."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value):
        raise ValueError("a whole number is wanted, in digits alone")
    return value


_DIGITS = BeforeValidator(_as_written)  # behind the bounds, or the description loses these
ItemId = Annotated[int, Path(ge=1, le=_LARGEST), _DIGITS]
K = Annotated[int, Query(ge=1, description="How many items."), _DIGITS]
Offset = Annotated[int, Query(ge=0, description="How many of the best to leave out."), _DIGITS]
FiltersText = Annotated[str, Query(description="A JSON list of conditions.")]


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@router.get("/gallery")
def gallery(request: Request) -> Facts:
    """What the gallery is, and its labels with their numbers."""
    return Facts(**_service(request).facts())


@router.post("/search", responses=_problems(415, 422))
async def search(
    request: Request,
    image: Annotated[UploadFile, File(description="The image to search with.")],
    k: Annotated[int, Form(ge=1), _DIGITS] = 24,
    offset: Annotated[int, Form(ge=0), _DIGITS] = 0,
    filters: Annotated[str, Form(description="A JSON list of conditions.")] = "[]",
    translate: Annotated[
        Literal["false", "true"],
        Form(description="Whether to carry the image into the gallery's style first."),
    ] = "false",
) -> Page:
    """The items nearest to an uploaded image."""
    service = _service(request)
    options = _options(service, k, offset, filters)
    started = time.perf_counter()
    turns: asyncio.Semaphore = request.app.state.uploads
    async with turns:  # here, so that one who waits takes no thread
        data = await image.read()
        found = await run_in_threadpool(
            service.search_upload,
            data,
            started=started,
            translate=translate == "true",
            **options,
        )
    return Page(**found)


@router.get("/items", responses=_problems(422))
def items(request: Request, k: K = 24, offset: Offset = 0, filters: FiltersText = "[]") -> Page:
    """The items of the gallery in order."""
    service = _service(request)
    return Page(**service.browse(**_options(service, k, offset, filters)))


@router.get("/items/{item_id}", responses=_problems(404, 422))
def item(request: Request, item_id: ItemId) -> Shown:
    """One item."""
    return Shown(**conditions.shown(_service(request).item(item_id)))


@router.get("/items/{item_id}/similar", responses=_problems(404, 422))
def similar(
    request: Request, item_id: ItemId, k: K = 24, offset: Offset = 0, filters: FiltersText = "[]"
) -> Page:
    """The items nearest to one of the gallery."""
    service = _service(request)
    return Page(**service.search_item(item_id, **_options(service, k, offset, filters)))


@router.get(
    "/items/{item_id}/picture",
    response_class=Response,
    responses={
        200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "It is still the one that is known."},
        **_problems(404, 422),
    },
)
async def picture(
    request: Request, item_id: ItemId, size: Annotated[int, Query(ge=1, le=1024), _DIGITS] = 256
) -> Response:
    """A picture of an item as JPEG: 256 pixels a side, or 1024 where more are asked for."""
    service, size = _service(request), 256 if size <= 256 else 1024
    tag, data = await run_in_threadpool(service.tag, item_id, size=size)
    headers = {"etag": f'"{tag}"', "cache-control": "private, max-age=600"}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    if data is None:
        turns: asyncio.Semaphore = request.app.state.pictures
        async with turns:
            data = await run_in_threadpool(service.picture, item_id, size=size)
    return Response(data, media_type="image/jpeg", headers=headers)


def _options(service: Service, k: int, offset: int, filters: str) -> dict[str, Any]:
    limits = service.limits
    if k > limits.results:
        raise Refused(422, f"k is at most {limits.results}")
    if offset > limits.depth - limits.results:
        raise Refused(
            422,
            f"offset is at most {limits.depth - limits.results}, so that offset and k make "
            f"at most {limits.depth}",
        )
    return {"k": k, "offset": offset, "filters": conditions.parsed(filters)}
