"""``/openapi.json``: what FastAPI writes by itself, and what only a running server knows.

The largest ``k``, whether it can imagine, and which columns there are and what they hold.
"""

from __future__ import annotations

import copy
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse

from fastretrieve.server.filters import described
from fastretrieve.server.service import Service


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
    imagine = {} if service.imagining.n else {"enum": [False]}
    for path in schema["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in most:
                    parameter["schema"]["maximum"] = most[parameter["name"]]
                elif parameter["name"] == "imagine":
                    parameter["schema"] |= imagine
                elif parameter["name"] == "filters":
                    parameter.pop("schema")
                    parameter["content"] = {"application/json": {"schema": conditions}}
    for name, body in schema["components"]["schemas"].items():
        if name.startswith("Body_"):
            fields = body["properties"]
            for field, maximum in most.items():
                fields[field]["maximum"] = maximum
            fields["imagine"] |= imagine
            fields["image"]["format"] = "binary"
            fields["filters"] |= {
                "format": "filters",  # so that a generator can be told what it is
                "contentMediaType": "application/json",
                "contentSchema": conditions,
            }
    return schema
