"""The page keeps what is asked through a reload and says what is wrong; axe finds no fault."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_helpers import Page, expect, opened
from PIL import Image

from colour_words import ColourWordsInParts
from fastretrieve.gallery import Gallery
from gallery_helpers import new_gallery, serving, write_pictures

SEEN = "all => all.filter(i => i.complete && i.naturalWidth > 0).length"


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    with opened(browser, address) as page:
        yield page


def add_filter(page: Page, column: str, operator: str, value: str) -> None:
    page.select_option("#column", column)
    page.select_option("#operator", operator)
    page.fill("#value", value)
    page.press("#value", "Enter")


# --- what is asked stays --------------------------------------------------------------------------


def test_an_upload_its_filters_and_its_page_outlast_a_reload(page: Page, photos: Path) -> None:
    add_filter(page, "number", "<", "2000")
    expect(page.locator("#chosen button")).to_have_count(1)
    page.set_input_files("#file", photos / "boot" / "00007.png")
    expect(page.locator(".card .score").first).to_have_text("1.0000")
    page.click("#next")
    expect(page.locator("#range")).to_have_text("25 to 48")
    first = page.locator(".card .name").first.text_content()
    page.reload()
    expect(page.locator("#range")).to_have_text("25 to 48")
    expect(page.locator("#asked-name")).to_have_text("00007.png")
    expect(page.locator("#chosen button")).to_have_text("number < 2000 ✕")
    assert page.locator(".card .name").first.text_content() == first
    assert page.locator("#query").evaluate_all(SEEN) == 1
    page.go_back()
    expect(page.locator("#range")).to_have_text("1 to 24")
    expect(page.locator(".card .score").first).to_have_text("1.0000")
    page.go_back()
    expect(page.locator("#query")).not_to_be_visible()
    page.go_forward()
    expect(page.locator("#asked-name")).to_have_text("00007.png")


def test_a_label_and_a_page_can_be_sent_around(page: Page, browser: Any) -> None:
    page.select_option("#label", "bag")
    expect(page.locator(".card b").first).to_have_text("bag")
    page.click("#next")
    expect(page.locator("#range")).to_have_text("25 to 30")
    other = browser.new_page()
    other.goto(page.url)
    expect(other.locator("#range")).to_have_text("25 to 30")
    expect(other.locator("#label")).to_have_value("bag")
    other.close()


def test_an_upload_of_another_browser_is_explained(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}/#upload=1700000000000-abc")
    expect(page.locator("#status.bad")).to_contain_text("only in the browser that chose it")
    expect(page.locator(".card")).to_have_count(24)
    expect(page.locator("#query")).not_to_be_visible()
    page.close()


@pytest.mark.parametrize(
    "state",
    [
        "filters=[",
        "filters={}",
        "filters=[null]",
        "filters=[[]]",
        "offset=1e99",
        "item=1e400",
        "label=%ff%00",
    ],
)
def test_an_address_that_was_written_by_hand_breaks_nothing(
    browser: Any, address: str, state: str
) -> None:
    page = browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{address}/#{state}")
    expect(page.locator("#status")).not_to_be_empty()
    page.close()
    assert faults == []


# --- what is wrong is said ------------------------------------------------------------------------


def test_a_corrupt_upload_leaves_what_was_there(page: Page, photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes((photos / "boot" / "00007.png").read_bytes()[:300])
    page.set_input_files("#file", bad)
    expect(page.locator("#status.bad")).to_contain_text("damaged")
    expect(page.locator("#query")).not_to_be_visible()
    expect(page.locator("#asked")).not_to_be_visible()
    expect(page.locator("#hint")).to_be_visible()
    expect(page.locator(".card")).to_have_count(24)
    page.set_input_files("#file", photos / "boot" / "00008.png")
    expect(page.locator("#asked-name")).to_have_text("00008.png")
    expect(page.locator(".card .score").first).to_have_text("1.0000")
    page.set_input_files("#file", bad)
    expect(page.locator("#status.bad")).to_contain_text("damaged")
    expect(page.locator("#asked-name")).to_have_text("00008.png")
    expect(page.locator(".card .score").first).to_have_text("1.0000")
    page.reload()
    expect(page.locator("#asked-name")).to_have_text("00008.png")


def test_an_upload_without_a_preview_is_searched(page: Page, photos: Path, tmp_path: Path) -> None:
    Image.open(photos / "boot" / "00007.png").save(tmp_path / "x.tiff")
    page.set_input_files("#file", tmp_path / "x.tiff")
    expect(page.locator(".card .score").first).to_have_text("1.0000")
    expect(page.locator("#unseen")).to_have_text("No preview of this image")
    expect(page.locator("#query")).not_to_be_visible()


def test_an_upload_that_is_too_large_is_told_before_it_is_sent(
    browser: Any, gallery: Gallery, tmp_path: Path
) -> None:
    from fastretrieve.server import Limits

    (tmp_path / "large.png").write_bytes(bytes(3000))
    with serving(gallery, limits=Limits(upload_bytes=2000)) as address:
        page = browser.new_page()
        page.goto(address)
        expect(page.locator(".card")).to_have_count(24)
        page.set_input_files("#file", tmp_path / "large.png")
        expect(page.locator("#status.bad")).to_contain_text("3,000 bytes, at most 2,000")
        page.close()


def test_a_file_that_is_gone_is_told(browser: Any, tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "g")
    paths = write_pictures(tmp_path / "photos", 4)
    gallery.add(paths)
    paths[1].unlink()
    paths[2].write_bytes(b"no image any more")
    with serving(gallery) as address:
        page = browser.new_page()
        page.goto(address)
        notes = page.locator(".card .none:visible")
        expect(notes).to_have_text(
            ["No picture: its file is gone", "No picture: its file cannot be read"]
        )
        expect(page.locator(".card img:visible")).to_have_count(2)
        page.locator(".more").nth(1).click()
        expect(page.locator("#large .none")).to_have_text("No picture: its file is gone")
        if folder := os.environ.get("FASTRETRIEVE_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / "gone.png")
        page.click("#large-search")  # its vector is there
        expect(page.locator("#status")).to_contain_text("ms in all")
        expect(page.locator("#unseen")).to_be_visible()
        page.close()


def test_pictures_of_a_busy_server_come_later(browser: Any, address: str) -> None:
    page = browser.new_page()
    refused: list[str] = []

    def busy(route: Any) -> None:
        if refused.count(route.request.url) < 2:
            refused.append(route.request.url)
            route.fulfill(status=503, json={"detail": "too many requests"})
        else:
            route.continue_()

    page.route("**/api/items/3/picture", busy)
    page.goto(address)
    expect(page.locator(".card")).to_have_count(24)
    page.wait_for_function(
        "() => { const i = document.querySelectorAll('.card img')[2]; return i.naturalWidth > 0 }"
    )
    assert len(refused) == 2
    page.close()


def test_numbers_are_compared_with_numbers(page: Page) -> None:
    for column in ("width", "number"):
        for text in ("abc", ""):
            add_filter(page, column, ">", text)
            expect(page.locator("#wrong")).to_contain_text(f"{column} holds numbers")
            expect(page.locator("#value")).to_have_attribute("aria-invalid", "true")
            expect(page.locator("#chosen button")).to_have_count(0)
    add_filter(page, "number", ">=", " 1.025e3 ")
    expect(page.locator("#wrong")).to_be_empty()
    expect(page.locator("#range")).to_have_text("1 to 5")
    add_filter(page, "number", "contains", "29")
    expect(page.locator("#range")).to_have_text("1 to 1")
    assert "path" not in page.locator("#column option").all_text_contents()


def test_a_transparent_query_lies_on_white(browser: Any, address: str, tmp_path: Path) -> None:
    Image.new("RGBA", (100, 100)).save(tmp_path / "clear.png")
    page = browser.new_page(color_scheme="dark", viewport={"width": 1200, "height": 900})
    page.goto(address)
    expect(page.locator(".card")).to_have_count(24)
    page.set_input_files("#file", tmp_path / "clear.png")
    expect(page.locator("#status")).to_contain_text("ms in all")
    page.locator("#query").screenshot(path=tmp_path / "seen.png")
    page.close()
    with Image.open(tmp_path / "seen.png") as seen:
        assert seen.convert("RGB").getpixel((seen.width // 2, seen.height // 2)) == (255,) * 3


# --- axe ------------------------------------------------------------------------------------------


def axe() -> str:
    """The rules of Deque, as a script."""
    try:
        import axe_playwright_python
    except ImportError:
        if os.environ.get("FASTRETRIEVE_REQUIRE_BROWSER"):
            raise
        pytest.skip("needs the package axe-playwright-python, which holds axe")
    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()


def show_items(page: Page, photos: Path) -> None:
    expect(page.locator("#status")).to_contain_text("Click an image")


def show_results(page: Page, photos: Path) -> None:
    page.set_input_files("#file", photos / "bag" / "01003.png")
    expect(page.locator("#status")).to_contain_text("ms in all")


def show_error(page: Page, photos: Path) -> None:
    if not page.locator("#column").is_visible():
        page.click("#narrow summary")
    add_filter(page, "label", "=", "boot")
    expect(page.locator(".card b").first).to_have_text("boot")
    add_filter(page, "width", ">", "abc")
    expect(page.locator("#wrong")).not_to_be_empty()
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"a"})
    expect(page.locator("#status.bad")).not_to_be_empty()


def show_dialog(page: Page, photos: Path) -> None:
    show_results(page, photos)
    page.locator(".card").first.focus()
    page.keyboard.press("i")
    expect(page.locator("#large")).to_be_visible()


def show_words(page: Page, photos: Path) -> None:
    """Words beside an image, with the slider of their share."""
    show_results(page, photos)
    page.fill("#text", "a red boot")
    page.press("#text", "Enter")
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    page.locator(".card").first.focus()
    page.keyboard.press("w")
    expect(page.locator("#large-reason")).to_contain_text("mixed in")
    page.keyboard.press("Escape")
    expect(page.locator("#weigh")).to_be_visible()


STATES = {
    "items": show_items,
    "results": show_results,
    "words": show_words,
    "error": show_error,
    "dialog": show_dialog,
}


@pytest.fixture(scope="module")
def few(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A few items: axe looks at each."""
    folder = tmp_path_factory.mktemp("galleries") / "few.gallery"
    gallery = Gallery.create(folder, encoder=ColourWordsInParts())
    gallery.add(photos)
    gallery.remove(where="id > 5 AND id < 55")
    with serving(gallery) as where:
        yield where


@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(browser: Any, few: str, photos: Path, width: int) -> None:
    """In light and in dark; screenshots where the variable FASTRETRIEVE_SCREENSHOTS says."""
    script, folder = axe(), os.environ.get("FASTRETRIEVE_SCREENSHOTS")
    found: dict[str, list[str]] = {}
    for name, show in STATES.items():
        page = browser.new_page(
            viewport={"width": width, "height": 900}, reduced_motion="reduce", bypass_csp=True
        )
        page.goto(few)
        expect(page.locator(".card")).to_have_count(11)
        show(page, photos)
        page.wait_for_load_state("networkidle")
        page.evaluate(script)
        for colours in ("light", "dark"):
            page.emulate_media(color_scheme=colours)
            # Colours change nothing but the contrast.
            rules = [] if colours == "light" else ["color-contrast"]
            found[f"{name}, {colours}"] = violations(page, rules)
            if folder:
                page.screenshot(path=Path(folder) / f"{name}-{width}-{colours}.png")
        page.close()
    assert not any(found.values()), found


def violations(page: Page, rules: list[str]) -> list[str]:
    run = "async (rules) => (await axe.run(rules.length ? { runOnly: rules } : {})).violations"
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes']][:3]}"
        for one in page.evaluate(run, rules)
    ]


def test_axe_finds_planted_faults(browser: Any, few: str) -> None:
    page = browser.new_page(bypass_csp=True, color_scheme="dark", reduced_motion="reduce")
    page.goto(few)
    expect(page.locator(".card")).to_have_count(11)
    page.evaluate("() => document.querySelector('#file').removeAttribute('aria-label')")
    page.evaluate("() => document.querySelector('#hint').remove()")
    page.evaluate("() => document.body.style.setProperty('--faint', '#333')")
    page.evaluate(axe())
    found = {each.partition(":")[0] for each in violations(page, [])}
    page.close()
    assert found >= {"label", "color-contrast"}
