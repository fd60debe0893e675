"""A real browser and the page in it; importing this skips where there is no browser."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)

try:
    from playwright.sync_api import Page, expect, sync_playwright
except ImportError:
    CHROMIUM = None

if CHROMIUM is None and not os.environ.get("FASTRETRIEVE_REQUIRE_BROWSER"):
    pytest.skip("needs chromium and the package playwright", allow_module_level=True)

__all__ = ["Page", "chromium", "expect", "opened"]


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    with sync_playwright() as playwright:
        # Without its own sandbox: tests run as root in containers.
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


@contextlib.contextmanager
def opened(browser: Any, address: str, *, console: bool = False) -> Iterator[Page]:
    """The page as it looks at first; afterwards no script failed and, with ``console``, nothing
    was printed there as an error."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    if console:
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.goto(address)
    expect(page.locator(".card")).to_have_count(24)
    yield page
    context.close()
    assert faults == []
