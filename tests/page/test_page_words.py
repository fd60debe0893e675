"""Words in the box of the page: alone, beside a picture, explained, and where none are known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_helpers import Page, expect, opened

from colour_words import ColourWordsInParts, painted, shade
from fastretrieve.gallery import Gallery
from gallery_helpers import serving
from text_encoders import Letters


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("words")
    made = Gallery.create(folder / "g", encoder=ColourWordsInParts())
    made.add(painted(folder / "photos", {f"light {n}": 60 + 15 * n for n in range(8)}))
    made.clusters(4)
    with serving(made) as address:
        yield address


@pytest.fixture
def page(browser: Any, colours: str) -> Iterator[Page]:
    with opened(browser, colours, console=True) as page:
        yield page


def names(page: Page, n: int = 8) -> list[str]:
    return page.locator(".card .name").all_text_contents()[:n]


def ask(page: Page, words: str) -> None:
    page.fill("#text", words)
    page.press("#text", "Enter")
    is_answered(page)


def is_answered(page: Page) -> None:
    """Cards of the answer before would be replaced under what the test does next."""
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")


def test_words_find_pictures_and_the_address_holds_them(page: Page) -> None:
    expect(page.locator("#answers")).to_have_text("colour-words-in-parts answers words and images.")
    page.keyboard.press("/")
    page.keyboard.type("a red boot")
    page.get_by_role("search").get_by_role("button", name="Search").click()
    expect(page.locator("#asked-name")).to_have_text("“a red boot”")
    expect(page.locator(".card .score")).to_have_count(24)
    assert names(page) == ["red.png"] * 8
    expect(page).to_have_url(re.compile("#text=a\\+red\\+boot$"))
    page.click("#next")
    expect(page.locator("#range")).to_have_text("25 to 32")
    page.reload()
    expect(page.locator("#text")).to_have_value("a red boot")
    expect(page.locator("#range")).to_have_text("25 to 32")
    page.check("#stay")
    expect(page.locator("#inside")).to_be_visible()
    page.click("#clear")
    expect(page.locator("#text")).to_have_value("")
    expect(page.locator("#asked")).to_be_hidden()
    page.go_back()
    expect(page.locator("#asked-name")).to_have_text("“a red boot”")
    page.fill("#text", "")
    page.press("#text", "Enter")
    expect(page.locator("#asked")).to_be_hidden()


def test_words_beside_a_picture_have_a_share(page: Page, tmp_path: Path) -> None:
    shade("red").save(tmp_path / "query.png")
    expect(page.locator("#weigh")).to_be_hidden()
    ask(page, "blue")
    page.set_input_files("#file", tmp_path / "query.png")  # the words stay
    expect(page.locator("#asked-name")).to_have_text("query.png and “blue”")
    slider = page.get_by_role("slider", name="The words’ share beside the image")
    expect(slider).to_have_value("0.5")
    expect(page.locator("#query")).to_be_visible()
    slider.focus()
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#share")).to_have_text("95%")
    expect(page).to_have_url(re.compile("upload=.*text=blue&weight=0.95"))
    expect(page.locator(".card .name").first).to_have_text("blue.png")
    page.reload()
    expect(slider).to_have_value("0.95")
    slider.fill("0.05")
    expect(page.locator(".card .name").first).to_have_text("red.png")
    page.locator(".card").first.click()  # the item alone: words stay behind
    expect(page.locator("#text")).to_have_value("")
    expect(page.locator("#weigh")).to_be_hidden()
    ask(page, "green")
    expect(page.locator("#asked-name")).to_have_text("red.png and “green”")
    expect(page).to_have_url(re.compile("item=.*text=green&weight=0.5"))


def test_heat_says_where_the_words_are(page: Page, tmp_path: Path) -> None:
    ask(page, "red")
    expect(page.locator(".card .score").first).to_have_text(re.compile("0.9"))
    page.locator(".card").first.focus()
    page.keyboard.press("w")
    expect(page.locator("#large-reason")).to_contain_text("What matched, by exact parts")
    expect(page.locator("#large-picture .said")).to_have_text("“red”")
    expect(page.locator("#large-picture canvas")).to_have_count(1)
    page.keyboard.press("Escape")
    page.locator(".card").first.click()
    is_answered(page)
    ask(page, "blue")
    page.locator(".card").first.focus()
    page.keyboard.press("w")
    expect(page.locator("#large-reason")).to_contain_text("with “blue” mixed in")
    expect(page.locator("#large-picture canvas")).to_have_count(2)


def test_words_are_never_markup(page: Page) -> None:
    ask(page, "red <img src=x onerror=alert(1)>")
    expect(page.locator("#asked-name")).to_have_text("“red <img src=x onerror=alert(1)>”")
    expect(page.locator(".card .score")).to_have_count(24)
    assert page.locator("#asked img").count() == 0
    page.locator(".card").first.focus()
    page.keyboard.press("w")
    expect(page.locator("#large-picture .said")).to_contain_text("<img src=x")


def test_pasted_words_ask(page: Page) -> None:
    page.evaluate(
        """() => {
            const items = new DataTransfer();
            items.setData('text/plain', ' green ');
            document.body.dispatchEvent(
                new ClipboardEvent('paste', { clipboardData: items, bubbles: true }));
        }"""
    )
    expect(page.locator("#asked-name")).to_have_text("“green”")
    expect(page.locator(".card .name").first).to_have_text("green.png")


def test_written_words_are_found_beside_vectors(page: Page) -> None:
    expect(page.locator("#hybrid-switch")).to_be_hidden()
    ask(page, "blue")
    page.check("#hybrid")
    expect(page).to_have_url(re.compile("hybrid=1.*text=blue"))
    expect(page.locator(".card .finder").first).to_have_text(
        "found by its vector and written words"
    )
    page.reload()
    expect(page.locator("#hybrid")).to_be_checked()
    page.uncheck("#hybrid")
    expect(page.locator(".card .finder")).to_have_count(0)


def test_without_an_encoder_of_words_they_are_looked_for_where_they_are_written(
    browser: Any, address: str, gallery: Gallery, photos: Path
) -> None:
    with opened(browser, address, console=True) as page:
        expect(page.locator("#answers")).to_contain_text("It knows no words; these find")
        page.set_input_files("#file", photos / "boot" / "00007.png")
        expect(page.locator("#asked-name")).to_have_text("00007.png")
        ask(page, "bag NOT 01007")  # a picture cannot stand beside them
        expect(page.locator("#asked")).to_contain_text("Written: “bag NOT 01007”")
        expect(page.locator("#query")).to_be_hidden()
        expect(page.locator(".card")).to_have_count(24)
        expect(page.locator(".card .bar")).to_have_count(0)  # no cosine
        page.click("#next")
        expect(page.locator("#range")).to_have_text("25 to 29")
        expect(page.locator("#weigh")).to_be_hidden()
        expect(page.locator("#hybrid-switch")).to_be_hidden()
        ask(page, "boot (")  # no expression: plain words
        expect(page.locator(".card b").first).to_have_text("boot")
        ask(page, "zebra")
        expect(page.locator("#status")).to_contain_text("Nothing was found")
        page.keyboard.press("Tab")
        page.keyboard.press("Escape")
        expect(page.locator(".card")).to_have_count(24)
        page.set_input_files("#file", photos / "boot" / "00008.png")
        expect(page.locator("#asked-name")).to_have_text("00008.png")


def test_a_gallery_of_texts_takes_words_alone(browser: Any, tmp_path: Path) -> None:
    made = Gallery.create(tmp_path / "g", encoder=Letters())
    made.add([f"a boot number {n}" for n in range(30)] + ["the sea at night"])
    with serving(made) as there, opened(browser, there, console=True) as page:
        expect(page.locator("#drop")).to_be_hidden()
        expect(page.locator("#answers")).to_have_text("letters answers.")
        ask(page, "night at the sea")
        expect(page.locator(".card b").first).to_have_text("the sea at night")
        page.locator(".card").first.click()
        is_answered(page)
        ask(page, "boot number 7")
        expect(page.locator("#weigh")).to_contain_text("Item")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_telephone_everything_fits(browser: Any, colours: str, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{colours}/#item=1&text=blue")
    expect(page.locator("#weigh")).to_be_visible()
    expect(page.locator(".card .score").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for what in ("#text", "#say button", "#weigh"):
        box = page.locator(what).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    ink, paper = page.evaluate(
        "['color', 'backgroundColor'].map((name) => getComputedStyle(document.body)[name])"
    )
    assert (ink == "rgb(31, 35, 40)") == (scheme == "light")
    assert ink != paper
    context.close()
