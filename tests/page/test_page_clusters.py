"""The page walked by cluster in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_helpers import Page, expect, opened

from fastretrieve.gallery import Gallery
from gallery_helpers import new_gallery, picture, serving


@pytest.fixture
def page(browser: Any, address: str, gallery: Gallery) -> Iterator[Page]:
    if not gallery.has_clusters:
        gallery.clusters(3)
    with opened(browser, address, console=True) as page:
        yield page


def names(page: Page) -> list[str]:
    found = page.locator(".card .name").evaluate_all("all => all.map(e => e.title)")
    return [str(name) for name in found]


def test_clusters_are_walked(page: Page, gallery: Gallery) -> None:
    largest = gallery.clusters()[0]
    page.click("#walk")
    expect(page.locator(".card")).to_have_count(3)
    expect(page.locator("#status")).to_contain_text("Click a cluster")
    expect(page.locator(".card .name").first).to_contain_text(f"{largest.size} items")
    page.locator(".card").first.click()
    expect(page.locator("#inside")).to_have_text(f"In {largest.name} {largest.size} items ✕")
    wanted = gallery.search(largest, k=60, within=largest)
    shown = [Path(path).name for path in wanted.paths]
    page.wait_for_function("name => document.querySelector('.name').title === name", arg=shown[0])
    assert names(page) == shown[:24]
    page.reload()
    expect(page.locator("#inside-name")).to_have_text(largest.name)
    page.click("#leave")
    expect(page.locator(".card")).to_have_count(3)
    page.go_back()
    expect(page.locator("#inside-name")).to_have_text(largest.name)
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_contain_text("Click an image")


def test_a_search_stays_within_the_nearest_cluster(page: Page, gallery: Gallery) -> None:
    item = gallery.items()[3]
    wanted = gallery.search(item, k=24, within="cluster")
    page.check("#stay")
    page.locator(".card").nth(3).click()
    expect(page.locator("#inside")).to_be_visible()
    assert names(page) == [Path(path).name for path in wanted.paths]
    assert "within=1" in page.url
    page.click("#leave")
    expect(page.locator("#inside")).to_be_hidden()
    assert names(page) == [Path(path).name for path in gallery.search(item, k=24).paths]


def test_a_gallery_without_clusters_shows_no_row_of_them(browser: Any, tmp_path: Path) -> None:
    made = new_gallery(tmp_path / "g")
    made.add([picture(i) for i in range(24)])
    with serving(made) as where, opened(browser, where, console=True) as page:
        expect(page.locator("#switches")).to_be_hidden()
