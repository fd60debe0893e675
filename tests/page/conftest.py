"""The gallery that the page shows and the browser that looks at it, once a test module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastretrieve.gallery import Gallery
from gallery_helpers import new_gallery, serving, write_pictures


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    write_pictures(root / "boot", 30)
    write_pictures(root / "bag", 30, first=1000)
    return root


@pytest.fixture(scope="module")
def gallery(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    made = new_gallery(tmp_path_factory.mktemp("galleries") / "photos.gallery")
    rows = [f"{p},{p.parent.name},{int(p.stem)}" for p in sorted(photos.rglob("*.png"))]
    table = photos / "table.csv"
    table.write_text("\n".join(["path,label,number", *rows]))
    assert made.add(table).added == 60
    return made


@pytest.fixture(scope="module")
def address(gallery: Gallery) -> Iterator[str]:
    with serving(gallery) as where:
        yield where


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # Not imported above: without a browser it skips, which a conftest must not do.
    from page_helpers import chromium

    with chromium() as started:
        yield started
