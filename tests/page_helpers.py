"""A real browser and a gallery to look at; importing it skips where there is no browser."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastretrieve.gallery import Gallery
from gallery_helpers import new_gallery, write_pictures

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)

try:
    from playwright.sync_api import Page, expect, sync_playwright
except ImportError:
    CHROMIUM = None

if CHROMIUM is None and not os.environ.get("FASTRETRIEVE_REQUIRE_BROWSER"):
    pytest.skip("needs chromium and the package playwright", allow_module_level=True)

__all__ = ["Page", "chromium", "expect", "labelled_gallery", "labelled_photos"]


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    with sync_playwright() as playwright:
        # Without its own sandbox: tests run as root in containers.
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


def labelled_photos(root: Path) -> Path:
    write_pictures(root / "boot", 30)
    write_pictures(root / "bag", 30, first=1000)
    return root


def labelled_gallery(folder: Path, photos: Path) -> Gallery:
    made = new_gallery(folder / "photos.gallery")
    rows = [f"{p},{p.parent.name},{int(p.stem)}" for p in sorted(photos.rglob("*.png"))]
    table = photos / "table.csv"
    table.write_text("\n".join(["path,label,number", *rows]))
    assert made.add(table).added == 60
    return made
