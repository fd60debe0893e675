"""The demo's picture: queries on the left, beside each the nearest pictures, panels below."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from fastretrieve.data.pictures import enlarged

TILE, CAPTION, GAP, FRAME = 84, 20, 10, 4
MARGIN, APART, HEAD = 20, 34, 58
PITCH, LINE = TILE + GAP, TILE + CAPTION + GAP
PAPER, INK, FAINT, WRONG = "#ffffff", "#1f2328", "#656d76", "#cf222e"
LEGEND = "A red frame: not what the query shows."


class SheetTile(NamedTuple):
    """A picture and what it shows."""

    image: Image.Image
    label: str


class Group(NamedTuple):
    """The results of one kind of vectors: a row of tiles for each query."""

    title: str
    note: str
    rows: Sequence[Sequence[SheetTile]]


class Panel(NamedTuple):
    """Another picture below the results."""

    title: str
    image: Image.Image


def with_panels(sheet: Image.Image, panels: Sequence[Panel]) -> Image.Image:
    """The sheet with panels below it, each under its title.

    >>> panel = Panel("more", Image.new("RGB", (100, 20)))
    >>> with_panels(Image.new("RGB", (300, 80)), [panel]).size
    (300, 154)
    """
    width = max(sheet.width, *(2 * MARGIN + panel.image.width for panel in panels))
    height = sheet.height + sum(panel.image.height + APART + MARGIN for panel in panels)
    whole = Image.new("RGB", (width, height), PAPER)
    whole.paste(sheet)
    pen, top = ImageDraw.Draw(whole), sheet.height
    for panel in panels:
        pen.text((MARGIN, top), panel.title, INK, _font(18))
        whole.paste(panel.image, (MARGIN, top + APART))
        top += panel.image.height + APART + MARGIN
    return whole


def draw(queries: Sequence[SheetTile], groups: Sequence[Group]) -> Image.Image:
    """One sheet; a picture of another class than its query gets a red frame and name.

    >>> tile = SheetTile(Image.new("L", (28, 28)), "bag")
    >>> draw([tile], [Group("cnn", "all right", [[tile] * 5])]).size
    (628, 202)
    """
    lefts = [MARGIN + PITCH + APART]
    for group in groups:
        lefts.append(lefts[-1] + PITCH * len(group.rows[0]) + APART)
    size = (lefts[-1] - APART - GAP + MARGIN, HEAD + LINE * len(queries) + MARGIN + CAPTION - GAP)
    canvas = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(canvas)
    _head(pen, MARGIN, "query", "")
    for left, group in zip(lefts, groups, strict=False):
        _head(pen, left, group.title, group.note)
    for line, query in enumerate(queries):
        top = HEAD + LINE * line
        _tile(canvas, pen, (MARGIN, top), query)
        for left, group in zip(lefts, groups, strict=False):
            for column, tile in enumerate(group.rows[line]):
                is_wrong = tile.label != query.label
                _tile(canvas, pen, (left + PITCH * column, top), tile, is_wrong=is_wrong)
    pen.text((MARGIN, size[1] - CAPTION - GAP), LEGEND, FAINT, _font(12))
    return canvas


def _head(pen: ImageDraw.ImageDraw, left: int, title: str, note: str) -> None:
    pen.text((left, 10), title, INK, _font(18))
    pen.text((left, 33), note, FAINT, _font(13))


def _tile(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    tile: SheetTile,
    *,
    is_wrong: bool = False,
) -> None:
    left, top = place
    image = enlarged(tile.image, TILE)
    canvas.paste(image, (left + (TILE - image.width) // 2, top + (TILE - image.height) // 2))
    if is_wrong:
        box = (left - FRAME, top - FRAME, left + TILE + FRAME - 1, top + TILE + FRAME - 1)
        pen.rectangle(box, None, WRONG, FRAME)
    middle = (left + TILE / 2, top + TILE + FRAME)
    pen.text(middle, tile.label, WRONG if is_wrong else FAINT, _font(12), anchor="ma")


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
