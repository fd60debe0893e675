"""``/openapi.json``: what FastAPI writes by itself, and what only a running server knows.

The largest ``k``, which columns there are and what they hold, and which switches are offered.
"""

from __future__ import annotations

import copy
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse

from fastretrieve.server.filters import described
from fastretrieve.server.service import Service

_OF_WORDS = ("/api/search", "/api/items/{item_id}/explanation/words")  # and of nothing else


def describe(app: FastAPI, service: Service) -> None:
    """Let the application describe itself with the limits and columns of its gallery."""
    plain: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not plain:
            plain.update(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    description=app.description,
                    routes=app.routes,
                )
            )
        return _completed(copy.deepcopy(plain), service)

    app.openapi = openapi  # type: ignore[method-assign]

    @app.get("/openapi.json", include_in_schema=False)
    def description() -> JSONResponse:  # in a thread: it asks the gallery
        return JSONResponse(openapi())


def _completed(schema: dict[str, Any], service: Service) -> dict[str, Any]:
    limits = service.limits
    conditions = described(service.columns.kinds())
    most = {"k": limits.results, "offset": limits.depth - limits.results}
    off = _switched_off(service)
    if not service.gallery.indexes_words:
        del schema["paths"]["/api/find"]
    if "text" in off:
        for path in _OF_WORDS:
            del schema["paths"][path]["get"]
        schema["paths"] = {path: found for path, found in schema["paths"].items() if found}
    for path in schema["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in most:
                    parameter["schema"]["maximum"] = most[parameter["name"]]
                elif parameter["name"] in off:
                    parameter["schema"]["enum"] = [off[parameter["name"]]]
                elif parameter["name"] == "filters":
                    parameter.pop("schema")
                    parameter["content"] = {"application/json": {"schema": conditions}}
    for name, body in schema["components"]["schemas"].items():
        if name.startswith("Body_"):
            fields = body["properties"]
            for field in most.keys() & fields.keys():
                fields[field]["maximum"] = most[field]
            for field in off.keys() & fields.keys():
                fields[field]["enum"] = [off[field]]
            fields["image"]["format"] = "binary"
            if "filters" not in fields:
                continue
            fields["filters"] |= {
                "format": "filters",  # so that a generator can be told what it is
                "contentMediaType": "application/json",
                "contentSchema": conditions,
            }
    return schema


def _switched_off(service: Service) -> dict[str, str]:
    """The switches that this gallery or its operator does not offer, and what they stand at."""
    offered = {
        "imagine": service.imagining.n > 0,
        "translate": service.style is not None,
        "within": service.gallery.has_clusters,
        "text": service.gallery.knows_words,
        "hybrid": service.gallery.knows_words and service.gallery.indexes_words,
    }
    standing = {"within": "all", "text": ""}
    return {name: standing.get(name, "false") for name in offered if not offered[name]}
