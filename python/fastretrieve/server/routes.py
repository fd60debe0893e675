"""What can be asked over HTTP. Every route is described in /openapi.json."""

import asyncio
import contextlib
import re
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Path, Query, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from pydantic import BeforeValidator

from fastretrieve.gallery.lookup.words import MAX_CHARACTERS, WEIGHT
from fastretrieve.server import filters as conditions
from fastretrieve.server import regions
from fastretrieve.server.answers import (
    ClusterPage,
    Explained,
    Facts,
    Page,
    Problem,
    Shown,
    ShownCluster,
)
from fastretrieve.server.asking import Asked, Stay, Why, typed
from fastretrieve.server.limits import Refused
from fastretrieve.server.service import Service

_LARGEST = 2**63 - 1  # of the ids of an index


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": _MEANINGS[status]} for status in statuses}


_MEANINGS = {
    400: "This is no HTTP, or the body is no form.",
    401: "A token is needed.",
    403: "Another site asked for it.",
    404: "There is no such item, or no such cluster.",
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


def _as_written(value: Any) -> Any:
    """Refuse text that Python takes for a whole number and JSON does not, such as ``1_0``."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value):
        raise ValueError("a whole number is wanted, in digits alone")
    return value


Switch = Literal["false", "true"]
_IMAGINE = "Search with pictures like this one that the server's generator draws, too."
_TRANSLATE = "Carry the image into the gallery's style first."
_WORDS: dict[str, Any] = {"max_length": MAX_CHARACTERS}
_BESIDE = "Words to search with beside the image; nothing is the image alone."
_WEIGHT: dict[str, Any] = {
    "ge": 0,
    "le": 1,
    "description": "The words' share beside the image.",
}
_HYBRID = "Look for the words in what is written about the items, too; needs text."
_DIGITS = BeforeValidator(_as_written)  # behind the bounds, or the description loses these
ItemId = Annotated[int, Path(ge=1, le=_LARGEST), _DIGITS]
K = Annotated[int, Query(ge=1, description="How many items."), _DIGITS]
Offset = Annotated[int, Query(ge=0, description="How many of the best to leave out."), _DIGITS]
FiltersText = Annotated[str, Query(description="A JSON list of conditions.")]
Number = Annotated[int, Path(ge=0, le=_LARGEST, description="Of a cluster."), _DIGITS]
_STAY = "Whether to search all items, or the cluster nearest to the query alone."
Within = Annotated[Stay, Query(description=_STAY)]
_PART = {
    "description": "The part of the picture that is meant: left,top,right,bottom as shares of its "
    "width and height, from 0 to 1; nothing is all of it.",
    "json_schema_extra": {"format": "region", "examples": ["0.1,0.2,0.6,0.9"]},
}
RegionText = Annotated[str, Query(**_PART)]
RegionField = Annotated[str, Form(**_PART)]
TextAlone = Annotated[
    str,
    Query(description="Words to search with.", pattern=r"[^\s\x00-\x1f\x7f-\x9f]", **_WORDS),
]
Text = Annotated[str, Query(description=_BESIDE, **_WORDS)]
TextField = Annotated[str, Form(description=_BESIDE, **_WORDS)]
Weight = Annotated[float, Query(**_WEIGHT)]
Hybrid = Annotated[Switch, Query(description=_HYBRID)]
WeightField = Annotated[float, Form(**_WEIGHT)]


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
    imagine: Annotated[Switch, Form(description=_IMAGINE)] = "false",
    translate: Annotated[Switch, Form(description=_TRANSLATE)] = "false",
    region: RegionField = "",
    within: Annotated[Stay, Form(description=_STAY)] = "all",
    text: TextField = "",
    weight: WeightField = WEIGHT,
    hybrid: Annotated[Switch, Form(description=_HYBRID)] = "false",
) -> Page:
    """The items nearest to an uploaded image, or to a part of it, and to words beside it."""
    service = _service(request)
    asked = _asked(service, k, offset, filters)._replace(
        imagine=imagine == "true",
        translate=translate == "true",
        region=regions.parsed(region),
        within=within,
        text=typed(text),
        weight=weight,
        hybrid=hybrid == "true",
    )
    started = time.perf_counter()
    turns: asyncio.Semaphore = request.app.state.uploads
    async with turns:  # here, so that one who waits takes no thread
        data = await image.read()
        found = await run_in_threadpool(service.search_upload, data, asked, started=started)
    return Page(**found)


@router.get("/search", responses=_problems(422))
async def search_words(
    request: Request,
    text: TextAlone,
    k: K = 24,
    offset: Offset = 0,
    filters: FiltersText = "[]",
    within: Within = "all",
    hybrid: Hybrid = "false",
) -> Page:
    """The items nearest to words."""
    service = _service(request)
    asked = _asked(service, k, offset, filters)._replace(
        text=typed(text), within=within, hybrid=hybrid == "true"
    )
    started = time.perf_counter()
    async with request.app.state.uploads:
        return Page(**await run_in_threadpool(service.search_words, asked, started=started))


@router.get("/find", responses=_problems(422))
async def find(
    request: Request,
    text: TextAlone,
    k: K = 24,
    offset: Offset = 0,
    filters: FiltersText = "[]",
) -> Page:
    """The items about which words are written: words, "phrases", beginnings*, AND, OR, NOT."""
    service = _service(request)
    asked = _asked(service, k, offset, filters)._replace(text=typed(text))
    started = time.perf_counter()
    async with request.app.state.uploads:
        return Page(**await run_in_threadpool(service.find, asked, started=started))


@router.get("/items", responses=_problems(422))
def items(request: Request, k: K = 24, offset: Offset = 0, filters: FiltersText = "[]") -> Page:
    """The items of the gallery in order."""
    service = _service(request)
    return Page(**service.browse(_asked(service, k, offset, filters)))


@router.get("/items/{item_id}", responses=_problems(404, 422))
def item(request: Request, item_id: ItemId) -> Shown:
    """One item."""
    return Shown(**conditions.shown(_service(request).item(item_id)))


@router.get("/items/{item_id}/similar", responses=_problems(404, 422))
async def similar(
    request: Request,
    item_id: ItemId,
    k: K = 24,
    offset: Offset = 0,
    filters: FiltersText = "[]",
    imagine: Annotated[Switch, Query(description=_IMAGINE)] = "false",
    region: RegionText = "",
    within: Within = "all",
    text: Text = "",
    weight: Weight = WEIGHT,
    hybrid: Hybrid = "false",
) -> Page:
    """The items nearest to one of the gallery, or to a part of its picture, and to words."""
    service = _service(request)
    asked = _asked(service, k, offset, filters)._replace(
        imagine=imagine == "true",
        region=regions.parsed(region),
        within=within,
        text=typed(text),
        weight=weight,
        hybrid=hybrid == "true",
    )
    turns: asyncio.Semaphore = request.app.state.uploads
    async with turns if asked.encodes else contextlib.nullcontext():
        return Page(**await run_in_threadpool(service.search_item, item_id, asked))


@router.get("/clusters", responses=_problems(422))
def clusters(request: Request, k: K = 24, offset: Offset = 0) -> ClusterPage:
    """The clusters of the gallery, none where it keeps none."""
    service = _service(request)
    return ClusterPage(**service.clusters(_asked(service, k, offset, "[]")))


@router.get("/clusters/{number}", responses=_problems(404, 422))
def cluster(request: Request, number: Number) -> ShownCluster:
    """One cluster."""
    return ShownCluster(**conditions.shown_cluster(_service(request).cluster(number)))


@router.get("/clusters/{number}/items", responses=_problems(404, 422))
def members(
    request: Request, number: Number, k: K = 24, offset: Offset = 0, filters: FiltersText = "[]"
) -> Page:
    """The members of a cluster, those nearest to its centre first."""
    service = _service(request)
    return Page(**service.members(number, _asked(service, k, offset, filters)))


@router.get("/items/{item_id}/explanation", responses=_problems(404, 422))
async def explanation(
    request: Request,
    item_id: ItemId,
    query: Annotated[int, Query(ge=1, le=_LARGEST, description="The item asked with."), _DIGITS],
    region: RegionText = "",
    text: Text = "",
    weight: Weight = WEIGHT,
) -> Explained:
    """Why an item matches another one, or a part of it, and words beside it."""
    service, asked = _service(request), Why(regions.parsed(region), typed(text), weight)
    async with request.app.state.uploads:
        return Explained(**await run_in_threadpool(service.explain, item_id, query, asked))


@router.get("/items/{item_id}/explanation/words", responses=_problems(404, 422))
async def explanation_of_words(request: Request, item_id: ItemId, text: TextAlone) -> Explained:
    """Why an item matches words."""
    service, asked = _service(request), Why(text=typed(text))
    async with request.app.state.uploads:
        return Explained(**await run_in_threadpool(service.explain, item_id, None, asked))


@router.post("/items/{item_id}/explanation", responses=_problems(404, 415, 422))
async def explanation_of_upload(
    request: Request,
    item_id: ItemId,
    image: Annotated[UploadFile, File(description="The image asked with.")],
    region: RegionField = "",
    text: TextField = "",
    weight: WeightField = WEIGHT,
) -> Explained:
    """Why an item matches an uploaded image, or a part of it, and words beside it."""
    service, asked = _service(request), Why(regions.parsed(region), typed(text), weight)
    async with request.app.state.uploads:
        data = await image.read()
        return Explained(**await run_in_threadpool(service.explain_upload, item_id, data, asked))


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


def _asked(service: Service, k: int, offset: int, filters: str) -> Asked:
    limits = service.limits
    if k > limits.results:
        raise Refused(422, f"k is at most {limits.results}")
    if offset > limits.depth - limits.results:
        raise Refused(
            422,
            f"offset is at most {limits.depth - limits.results}, so that offset and k make "
            f"at most {limits.depth}",
        )
    return Asked(k, offset, conditions.parsed(filters))
