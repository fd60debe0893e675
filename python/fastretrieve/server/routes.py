"""What can be asked over HTTP. Every route is described in /openapi.json."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, HTTPException, Query, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from fastretrieve.gallery.conditions import Filter, Operator
from fastretrieve.server.service import Service

router = APIRouter(prefix="/api")

MAX_FILTERS = 20


class Condition(BaseModel):
    """One condition on a column; several are joined by and."""

    column: str
    operator: Operator
    value: str | float | int | list[str | float | int] | None = None


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


K = Annotated[int, Query(ge=1, description="How many items.")]
Offset = Annotated[int, Query(ge=0, description="How many of the best to leave out.")]
FiltersText = Annotated[str, Query(description="A JSON list of conditions.")]


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@router.get("/gallery")
def gallery(request: Request) -> Facts:
    """What the gallery is, and its labels with their numbers."""
    return Facts(**_service(request).facts())


@router.post("/search")
async def search(
    request: Request,
    image: Annotated[UploadFile, File(description="The image to search with.")],
    k: Annotated[int, Form(ge=1)] = 24,
    offset: Annotated[int, Form(ge=0)] = 0,
    filters: Annotated[str, Form(description="A JSON list of conditions.")] = "[]",
) -> Page:
    """The items nearest to an uploaded image."""
    service = _service(request)
    options = _options(service, k, offset, filters)
    data = await image.read()
    return Page(**await run_in_threadpool(service.search_upload, data, **options))


@router.get("/items")
def items(request: Request, k: K = 24, offset: Offset = 0, filters: FiltersText = "[]") -> Page:
    """The items of the gallery in order."""
    service = _service(request)
    return Page(**service.browse(**_options(service, k, offset, filters)))


@router.get("/items/{item_id}")
def item(request: Request, item_id: int) -> Shown:
    """One item."""
    service = _service(request)
    return Shown(**service.shown(service.item(item_id)))


@router.get("/items/{item_id}/similar")
def similar(
    request: Request, item_id: int, k: K = 24, offset: Offset = 0, filters: FiltersText = "[]"
) -> Page:
    """The items nearest to one of the gallery."""
    service = _service(request)
    return Page(**service.search_item(item_id, **_options(service, k, offset, filters)))


@router.get("/items/{item_id}/picture", response_class=Response)
def picture(
    request: Request, item_id: int, size: Annotated[int, Query(ge=1, le=1024)] = 256
) -> Response:
    """A picture of an item as JPEG: 256 pixels a side, or 1024 where more are asked for."""
    data, tag = _service(request).picture(item_id, size=256 if size <= 256 else 1024)
    headers = {"etag": f'"{tag}"', "cache-control": "private, max-age=600"}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/jpeg", headers=headers)


def _options(service: Service, k: int, offset: int, filters: str) -> dict[str, Any]:
    limits = service.limits
    if k > limits.results or offset + k > limits.depth:
        raise HTTPException(
            422, f"k is at most {limits.results}, and offset + k at most {limits.depth}"
        )
    try:
        listed = [Condition.model_validate(each) for each in json.loads(filters)]
    except (ValueError, TypeError) as error:
        raise HTTPException(422, f"filters is a JSON list of conditions: {error}") from error
    if len(listed) > MAX_FILTERS:
        raise HTTPException(422, f"at most {MAX_FILTERS} filters, got {len(listed)}")
    chosen = [Filter(one.column, one.operator, one.value) for one in listed]
    return {"k": k, "offset": offset, "filters": chosen}
