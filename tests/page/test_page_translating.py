"""The page of a server that has a style: the switch, and the translated image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_helpers import expect, opened

from fastretrieve.encoders.models.translator import TranslatorEncoder
from fastretrieve.gallery import Gallery
from gallery_helpers import serving


@pytest.fixture(scope="module")
def address(gallery: Gallery) -> Iterator[str]:
    style = TranslatorEncoder(dim=4, image_size=8, width=4)
    style.is_trained = True
    with serving(gallery, translate=style) as where:
        yield where


def test_an_upload_is_translated_when_the_switch_is_on(
    browser: Any, address: str, photos: Path
) -> None:
    with opened(browser, address, console=True) as page:
        expect(page.locator("#translate")).to_be_hidden()  # nothing is uploaded yet
        page.set_input_files("#file", photos / "boot" / "00007.png")
        expect(page.locator(".card .score").first).to_have_text("1.0000")
        expect(page.locator("#translated")).to_be_hidden()
        page.check("#translating")
        expect(page.locator("#translated")).to_be_visible()
        expect(page.locator(".card .score").first).not_to_have_text("1.0000")
        seen = page.locator("#translated").evaluate("image => image.naturalWidth")
        assert seen == 24  # as large as the picture, not as what the model was trained on
        page.reload()  # the address holds the switch
        expect(page.locator("#translated")).to_be_visible()
        page.uncheck("#translating")
        expect(page.locator(".card .score").first).to_have_text("1.0000")
        expect(page.locator("#translated")).to_be_hidden()
        page.locator(".card").first.click()  # items are in the gallery's style already
        expect(page.locator("#translate")).to_be_hidden()
