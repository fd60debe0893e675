"""Several switches of the page at once: imagine, translate, the nearest cluster, a part."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_helpers import Page, expect, opened

import fastretrieve as fr
from fastretrieve.encoders.models.translator import TranslatorEncoder
from fastretrieve.gallery import Gallery
from gallery_helpers import serving


@pytest.fixture(scope="module")
def page(browser: Any, gallery: Gallery) -> Iterator[Page]:
    generator: Any = fr.create_encoder("autoencoder", dim=4, image_size=8, channels=3, width=4)
    style = TranslatorEncoder(dim=4, image_size=8, width=4)
    generator.is_trained = style.is_trained = True
    if not gallery.has_clusters:
        gallery.clusters(3)
    wanted = fr.Imagine(generator, n=3, spread=0.5)
    with (
        serving(gallery, imagine=wanted, translate=style) as there,
        opened(browser, there, console=True) as page,
    ):
        yield page


def test_one_search_uses_all_switches_and_an_item_drops_what_is_of_uploads(
    page: Page, photos: Path
) -> None:
    row = page.locator("#switches")
    expect(row.locator("label:visible")).to_have_count(1)  # nothing is asked: only the cluster's
    page.set_input_files("#file", photos / "boot" / "00007.png")
    expect(row.locator("label:visible")).to_have_count(3)
    for box in ("#imagine", "#translating", "#stay"):
        page.check(box)
    expect(page.locator("#translated")).to_be_visible()
    expect(page.locator("#imagined-pictures img")).to_have_count(3)
    expect(page.locator("#inside")).to_be_visible()
    page.locator("#choose-part").click()
    page.locator("#part-search").click()
    expect(page).to_have_url(re.compile("region=.*imagine=1&translate=1&within=1"))
    page.reload()
    expect(page.locator("#translated")).to_be_visible()
    expect(page.locator("#imagined-pictures img")).to_have_count(3)
    expect(page.locator("#inside")).to_be_visible()
    expect(page.locator("#asked-name")).to_have_text("a part of 00007.png")
    page.locator(".card").first.focus()
    page.keyboard.press("w")
    expect(page.locator("#large-reason")).to_contain_text("not with the translated one")
    page.keyboard.press("Escape")
    page.locator(".card").first.click()
    expect(row.locator("label:visible")).to_have_count(2)
    expect(page.locator("#translated")).to_be_hidden()
    expect(page.locator("#imagined-pictures img")).to_have_count(3)
    expect(page.locator("#inside")).to_be_visible()
