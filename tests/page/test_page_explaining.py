"""A part of a picture and heat maps on the page, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_helpers import Page, expect, opened


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    with opened(browser, address, console=True) as page:
        yield page


def settled(page: Page) -> None:
    """Wait until the results are those of what is asked."""
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")


def test_heat_lies_over_the_pair_and_goes_away(page: Page) -> None:
    page.locator(".card").first.click()
    expect(page.locator("#asked-name")).not_to_be_empty()
    settled(page)
    page.locator(".card").nth(1).focus()
    page.keyboard.press("w")
    expect(page.locator("#large-picture canvas")).to_have_count(2)
    expect(page.locator("#large-reason")).to_contain_text("covering parts of the pictures")
    painted = page.evaluate(
        """() => [...document.querySelectorAll("#large-picture canvas")].map((canvas) => {
             const pixels = canvas.getContext("2d").getImageData(0, 0, 8, 8).data;
             return Math.max(...pixels.filter((_, i) => i % 4 === 0));
           })"""
    )
    assert min(painted) > 200  # somewhere it is hot
    page.keyboard.press("w")
    expect(page.locator("#large-picture canvas")).to_have_count(0)


def test_an_upload_is_explained_and_its_part_searched(page: Page, photos: Path) -> None:
    page.locator("#file").set_input_files(photos / "boot" / "00003.png")
    expect(page.locator("#asked-name")).to_have_text("00003.png")
    page.locator("#choose-part").click()
    page.locator("#part-picture").hover()
    box = page.locator("#part-image").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.9 * box["height"], steps=4)
    page.mouse.up()
    page.locator("#part-search").click()
    expect(page.locator("#asked-name")).to_have_text("a part of 00003.png")
    expect(page).to_have_url(re.compile("region=0.(1|09)"))
    settled(page)
    page.locator(".card").first.focus()
    page.keyboard.press("w")
    expect(page.locator("#large-picture canvas")).to_have_count(2)
    style = page.locator("#large-picture canvas").first.get_attribute("style") or ""
    assert 8 < float(style.partition("left:")[2].partition("%")[0]) < 12


def test_a_part_is_chosen_by_keys_and_found_again_by_its_address(page: Page) -> None:
    page.locator(".card").first.click()
    expect(page.locator("#choose-part")).to_be_visible()
    page.locator("#choose-part").click()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#asked-name")).to_contain_text("a part of")
    expect(page).to_have_url(re.compile("region=0.2%2C0.25%2C0.7%2C0.8"))
    settled(page)
    found = page.locator(".card .name").all_inner_texts()
    page.reload()
    expect(page.locator("#asked-name")).to_contain_text("a part of")
    expect(page.locator(".card .name").first).to_have_text(found[0])
    page.locator("#choose-part").click()
    page.locator("#part button[value=whole]").click()
    expect(page.locator("#asked-name")).not_to_contain_text("a part of")
