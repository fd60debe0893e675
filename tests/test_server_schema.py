"""The API does what ``/openapi.json`` says of it, for whatever schemathesis makes up."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from colour_words import ColourWordsInParts
from fastretrieve.gallery import Gallery
from gallery_helpers import class_folders, picture, serving

pytest.importorskip("fastapi")
schemathesis = pytest.importorskip(
    "schemathesis", reason="needs the package schemathesis, which makes up the requests"
)

from schemathesis.core.failures import FailureGroup  # noqa: E402


def image() -> bytes:
    buffer = io.BytesIO()
    picture(1).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("schema")
    photos = class_folders(folder / "photos", 3)
    rows = [f"{p},{p.parent.name},{i},c{i}" for i, p in enumerate(sorted(photos.rglob("*.png")))]
    table = folder / "table.csv"
    table.write_text("\n".join(["path,label,number,code", *rows]))
    gallery = Gallery.create(folder / "g", encoder=ColourWordsInParts())
    gallery.add(table)
    gallery.clusters(2)
    with serving(gallery) as where:
        yield where


N_EXAMPLES = 25  # of each operation, right ones and wrong ones

# Form fields and files of kinds that no generator knows.
FILTERS = [
    [],
    [{"column": "label", "operator": "=", "value": "boot"}],
    [{"column": "number", "operator": "<", "value": 3}, {"column": "code", "operator": "is empty"}],
    [{"column": "width", "operator": "in", "value": [1, 2.5, True]}],
]


REGIONS = ["", "0,0,1,1", "0.25,0.5,0.75,0.9", "0,0,0.001,0.001"]


def test_the_api_is_as_described(address: str) -> None:
    schemathesis.openapi.format("binary", st.just(image()))
    schemathesis.openapi.format("filters", st.sampled_from([*map(json.dumps, FILTERS)]))
    schemathesis.openapi.format("region", st.sampled_from(REGIONS))
    api = schemathesis.openapi.from_url(f"{address}/openapi.json")
    faults = []
    operations = [each.ok() for each in api.get_all_operations()]
    assert len(operations) >= 10
    for operation in operations:
        for mode in schemathesis.GenerationMode:
            try:
                check(operation, mode)
            except Unsatisfiable:
                assert mode is schemathesis.GenerationMode.NEGATIVE  # it has no parameters
            except FailureGroup as group:
                faults += [
                    f"{operation.label}, {mode}: {fault!s:.2000}" for fault in group.exceptions
                ]
    assert not faults, "\n\n".join(faults)


def has_empty_field(case: Any) -> bool:
    """An empty field is one that is not given, which schemathesis takes for a wrong value."""
    given_fields = [each for each in (case.body, case.query) if isinstance(each, Mapping)]
    return any(
        isinstance(value, str) and not value for each in given_fields for value in each.values()
    )


def check(operation: Any, mode: Any) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=N_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[*HealthCheck],
    )
    def holds(case: Any) -> None:
        if has_empty_field(case):
            return
        answer = case.call()
        if answer.status_code != 431:  # an address can be made up that no head may hold
            case.validate_response(answer)

    holds()
