"""The page in a real browser: what a person does with the mouse, the keyboard and a phone.

Needs Chromium and playwright; skipped where they are missing, unless FASTRETRIEVE_REQUIRE_BROWSER
is set, as ``.ci/run`` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_helpers import Page, expect, opened

from fastretrieve.gallery import Gallery
from gallery_helpers import new_gallery, picture, serving

# A function, not an expression: the page's content policy forbids to evaluate text.
ONLY_BAGS = "() => [...document.querySelectorAll('.name')].every(e => e.title >= '01000')"


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    with opened(browser, address, console=True) as page:
        yield page


def names(page: Page) -> list[str]:
    return [
        str(n) for n in page.locator(".card .name").evaluate_all("all => all.map(e => e.title)")
    ]


def test_it_says_what_it_shows(page: Page) -> None:
    expect(page).to_have_title("photos.gallery · fastretrieve")
    expect(page.locator("#facts")).to_contain_text("60 items")
    expect(page.locator("#status")).to_contain_text("Click an image")
    broken = "all => all.filter(i => i.complete && i.naturalWidth === 0).length"
    page.wait_for_load_state("networkidle")
    assert page.locator(".card img").evaluate_all(broken) == 0


def test_an_uploaded_image_finds_itself_with_score_and_latency(page: Page, photos: Path) -> None:
    page.set_input_files("#file", photos / "boot" / "00007.png")
    expect(page.locator("#status")).to_contain_text("search")
    expect(page.locator("#status")).to_contain_text("ms in all")
    assert names(page)[0] == "00007.png"
    expect(page.locator(".card .score").first).to_have_text("1.0000")
    expect(page.locator("#query")).to_be_visible()


def test_clicking_a_result_searches_on_and_back_goes_back(page: Page, gallery: Gallery) -> None:
    page.locator(".card").nth(3).click()
    expect(page.locator("#status")).to_contain_text("ms in all")
    first_id = gallery.items()[3].id
    assert page.url.endswith(f"#item={first_id}")
    wanted = [Path(item.path).name for item in gallery.search(first_id, k=24).items]
    assert names(page) == wanted
    page.locator(".card").nth(1).click()
    page.wait_for_url("**/#item=*")
    page.go_back()
    page.wait_for_function(
        "name => document.querySelector('.card .name').title === name", arg=wanted[0]
    )
    page.reload()
    page.wait_for_function(
        "name => document.querySelector('.card .name')?.title === name", arg=wanted[0]
    )


def test_filters_by_label_and_by_condition(page: Page) -> None:
    page.select_option("#label", "bag")
    page.wait_for_function(ONLY_BAGS)
    page.select_option("#column", "number")
    page.select_option("#operator", "<")
    page.fill("#value", "1005")
    page.press("#value", "Enter")
    expect(page.locator(".card")).to_have_count(5)
    page.locator("#chosen button").click()
    expect(page.locator(".card")).to_have_count(24)
    page.select_option("#column", "label")
    page.select_option("#operator", "contains")
    page.fill("#value", "'; DROP TABLE item; --")
    page.press("#value", "Enter")
    expect(page.locator("#status")).to_contain_text("Nothing was found")


def test_pages_forth_and_back(page: Page) -> None:
    first = names(page)
    page.click("#next")
    expect(page.locator("#range")).to_have_text("25 to 48")
    page.click("#next")
    expect(page.locator("#range")).to_have_text("49 to 60")
    expect(page.locator("#next")).to_be_disabled()
    page.click("#previous")
    page.click("#previous")
    expect(page.locator("#range")).to_have_text("1 to 24")
    assert names(page) == first


def test_the_keyboard_is_enough(page: Page) -> None:
    page.locator(".card").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    title = page.evaluate("document.activeElement.querySelector('.name').title")
    assert title == names(page)[1]
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("ms in all")
    for _ in range(40):  # everything that can be done is reached by the tabulator
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "more":
            break
    page.keyboard.press("Enter")
    expect(page.locator("#large")).to_be_visible()
    expect(page.locator("#large-facts")).to_contain_text("number")
    page.keyboard.press("Escape")
    expect(page.locator("#large")).not_to_be_visible()


def test_keys_turn_pages_show_details_and_clear(page: Page) -> None:
    first = names(page)
    page.keyboard.press("n")
    expect(page.locator("#range")).to_have_text("25 to 48")
    page.keyboard.press("p")
    expect(page.locator("#range")).to_have_text("1 to 24")
    page.locator(".card").nth(2).focus()
    page.keyboard.press("i")
    expect(page.locator("#large-facts")).to_contain_text(first[2])
    page.keyboard.press("ArrowRight")
    expect(page.locator("#large-facts")).to_contain_text(first[3])
    page.click("#large-search")
    expect(page.locator("#large")).not_to_be_visible()
    expect(page.locator("#asked-name")).to_have_text(first[3])
    expect(page.locator("#status")).to_contain_text("ms in all")
    assert first[3] not in names(page)
    page.keyboard.press("Escape")
    expect(page.locator("#query")).not_to_be_visible()
    expect(page.locator("#status")).to_contain_text("Click an image")
    assert names(page) == first
    page.fill("#value", "pin")  # letters typed into a field are letters
    expect(page.locator("#range")).to_have_text("1 to 24")
    expect(page.locator("#large")).not_to_be_visible()


def test_the_same_file_can_be_asked_again_after_clearing(page: Page, photos: Path) -> None:
    for _ in range(2):
        page.set_input_files("#file", photos / "boot" / "00007.png")
        expect(page.locator("#asked-name")).to_have_text("00007.png")
        expect(page.locator(".card .score").first).to_have_text("1.0000")
        page.click("#clear")
        expect(page.locator(".card .score")).to_have_count(0)


def test_an_address_of_an_item_that_is_not_there_is_explained(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}/#item=4711")
    expect(page.locator("#status.bad")).to_contain_text("there is no item 4711")
    page.close()


def test_pasted_and_dropped_images_are_searched(page: Page) -> None:
    give = """async (kind) => {
        const data = await (await fetch('api/items/9/picture')).blob();
        const file = new File([data], 'given.jpg', { type: 'image/jpeg' });
        const items = new DataTransfer();
        items.items.add(file);
        const event = kind === 'paste'
            ? new ClipboardEvent('paste', { clipboardData: items, bubbles: true })
            : new DragEvent('drop', { dataTransfer: items, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event);
    }"""
    for kind in ("paste", "drop"):
        page.click("#home")
        expect(page.locator("#status")).to_contain_text("Click an image")
        page.evaluate(give, kind)
        expect(page.locator("#status")).to_contain_text("ms in all")
        expect(page.locator("#query")).to_be_visible()


def test_a_file_that_is_no_image_is_explained(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    page.set_input_files("#file", tmp_path / "notes.txt")
    expect(page.locator("#status.bad")).to_contain_text("is no image")


def test_names_that_are_markup_are_shown_as_text(browser: Any, tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "<b>g")
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    picture(1).save(path)
    gallery.add(path)
    gallery.label(1, "<script>alert(2)</script>")
    with serving(gallery) as address:
        page = browser.new_page()
        alerts: list[str] = []
        page.on("dialog", lambda dialog: alerts.append(dialog.message) or dialog.dismiss())
        page.goto(address)
        expect(page.locator(".card")).to_have_count(1)
        expect(page.locator(".card .name")).to_contain_text("onerror=alert(1)")
        page.click(".more")
        expect(page.locator("#large-facts")).to_contain_text("<script>")
        assert alerts == []
        page.close()


def test_on_a_phone_nothing_is_cut_off(browser: Any, address: str, photos: Path) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True
    )
    page = context.new_page()
    page.goto(address)
    expect(page.locator(".card")).to_have_count(24)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator(".card").nth(1).tap()
    expect(page.locator("#status")).to_contain_text("ms in all")
    expect(page.locator("#label")).not_to_be_visible()  # folded away, to leave room for results
    page.locator("#narrow summary").tap()
    page.select_option("#label", "bag")
    page.wait_for_function(ONLY_BAGS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator(".more").first.tap()
    expect(page.locator("#large")).to_be_visible()
    context.close()


def test_screenshots(browser: Any, address: str, photos: Path) -> None:
    """Written where FASTRETRIEVE_SCREENSHOTS says, for people to look at."""
    folder = os.environ.get("FASTRETRIEVE_SCREENSHOTS")
    if not folder:
        pytest.skip("FASTRETRIEVE_SCREENSHOTS names no folder")
    for name, width, height in (("desktop", 1200, 900), ("phone", 390, 844)):
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(address)
        page.set_input_files("#file", photos / "bag" / "01003.png")
        expect(page.locator("#status")).to_contain_text("ms in all")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=Path(folder) / f"page-{name}.png")
        page.close()
