"""Imagined queries on the page: the switch, the pictures, and what found an item."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_helpers import Page, expect, opened

import fastretrieve as fr
from fastretrieve.gallery import Gallery
from gallery_helpers import serving

LOADED = "all => all.filter(i => i.complete && i.naturalWidth > 0).length"


@pytest.fixture(scope="module")
def page(browser: Any, gallery: Gallery) -> Iterator[Page]:
    generator: Any = fr.create_encoder("autoencoder", dim=4, image_size=8, channels=3, width=4)
    generator.is_trained = True
    wanted = fr.Imagine(generator, n=3, spread=0.5)
    with serving(gallery, imagine=wanted) as there, opened(browser, there, console=True) as page:
        yield page


def test_the_switch_imagines_and_a_reload_keeps_it(page: Page, photos: Path) -> None:
    expect(page.locator("#imagine")).to_be_hidden()  # nothing is asked yet
    page.set_input_files("#file", photos / "boot" / "00007.png")
    expect(page.locator("#imagine-switch")).to_contain_text("Imagine 3 more")
    expect(page.locator("#imagined")).to_be_hidden()
    expect(page.locator(".card .finder")).to_have_count(0)
    page.check("#imagine")
    pictures = page.locator("#imagined-pictures img")
    expect(pictures).to_have_count(3)
    expect(page.locator(".card .finder")).to_have_count(24)
    expect(page.locator(".card .finder").first).to_have_text("found by query")
    expect(page.locator(".card .finder", has_text="found by imagined").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert pictures.evaluate_all(LOADED) == 3
    page.reload()
    expect(pictures).to_have_count(3)
    page.keyboard.press("n")
    expect(page.locator("#range")).to_have_text("25 to 48")
    expect(pictures).to_have_count(3)
    page.uncheck("#imagine")
    expect(page.locator("#imagined")).to_be_hidden()
    expect(page.locator(".card .finder")).to_have_count(0)


def test_without_a_generator_there_is_no_switch(browser: Any, address: str) -> None:
    with opened(browser, f"{address}#item=3&imagine=1", console=True) as page:
        expect(page.locator("#asked")).to_be_visible()
        expect(page.locator("#imagine-switch")).to_be_hidden()
        expect(page.locator("#imagined")).to_be_hidden()
