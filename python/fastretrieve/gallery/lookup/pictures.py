"""Results as pictures: one sheet drawn with Pillow, or a page of HTML that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from fastretrieve._common.atomic import replacing
from fastretrieve.data import DataError, read_item
from fastretrieve.data.pictures import enlarged, missing_picture, picture_of
from fastretrieve.data.readers import Box
from fastretrieve.gallery.store.items import Item

TILE, GAP, LINE, COLUMNS = 160, 12, 16, 6
_INK, _FAINT, _PAPER, _FRAME = "#1f2328", "#656d76", "#ffffff", "#0969da"
_IMAGINED = "#eef4fb"
_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { font-size: .85rem; overflow-wrap: anywhere }
img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #8881 } .note { opacity: .7 }
.query { display: flex; gap: 1rem; margin-bottom: 1rem }
.query figure { width: 12rem } .query img { outline: 3px solid #0969da }
b { font-variant-numeric: tabular-nums }
.imagined { display: grid; grid-template-columns: repeat(auto-fill, minmax(5rem, 1fr)); gap: .5rem;
  margin: 1rem 0; padding: .5rem; background: #0969da18 }
"""


class Captioned(NamedTuple):
    """One picture with two lines under it."""

    image: Image.Image
    title: str
    note: str = ""


def picture_in(
    path: Path, *, modality: str = "image", box: Box | None = None, size: int | None = None
) -> Image.Image:
    """A picture of the item in a file, or of its box."""
    return picture_of(read_item(path, modality=modality, size=size, box=box), modality=modality)


def picture_of_item(item: Item, path: Path, *, modality: str) -> Image.Image:
    """A picture of an item, whose file is at ``path``, for a tile; a cross where there is none any
    more.
    """
    if item.text is not None:
        return picture_of(item.text, modality="text")
    try:
        return picture_in(path, modality=modality, box=item.box, size=2 * TILE)
    except (DataError, ValueError, OSError):
        return missing_picture(TILE)


def sheet(
    query: Captioned | None,
    tiles: Sequence[Captioned],
    *,
    beside: Sequence[Captioned] = (),
    imagined: Sequence[Image.Image] = (),
    side: int = TILE,
) -> Image.Image:
    """The query first, then what was made of it (``beside``), framed; what was found, in rows;
    above them what was imagined. A tile has ``side`` pixels a side.

    >>> sheet(None, [Captioned(Image.new("L", (8, 8)), "a")] * 8).size
    (1044, 420)
    """
    asked = [*([query] if query else []), *beside]
    every = [*asked, *tiles]
    columns = max(min(COLUMNS, len(every)), 1)
    pitch, height = side + GAP, side + 2 * LINE + GAP
    n_lines = max(-(-len(every) // columns), 1)
    width = GAP + columns * pitch
    above = _strip(imagined, width) if imagined else None
    start = above.height if above else 0
    canvas = Image.new("RGB", (width, start + GAP + n_lines * height), _PAPER)
    if above:
        canvas.paste(above, (0, 0))
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(12)
    for i, tile in enumerate(every):
        left, top = GAP + i % columns * pitch, start + GAP + i // columns * height
        image = enlarged(tile.image, side)
        canvas.paste(image, (left + (side - image.width) // 2, top + (side - image.height) // 2))
        if i < len(asked):
            pen.rectangle((left - 4, top - 4, left + side + 3, top + side + 3), None, _FRAME, 3)
        pen.text((left, top + side + 2), cut(tile.title, pen, font, side), _INK, font)
        pen.text((left, top + side + LINE), cut(tile.note, pen, font, side), _FAINT, font)
    return canvas


def _strip(imagined: Sequence[Image.Image], width: int) -> Image.Image:
    """Imagined pictures, small and numbered, on a ground of their own."""
    side = TILE // 2 - GAP // 2
    columns = max((width - GAP) // (side + GAP), 1)
    height = side + LINE + GAP
    strip = Image.new("RGB", (width, GAP + LINE + -(-len(imagined) // columns) * height), _IMAGINED)
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(12)
    pen.text((GAP, GAP // 2), "imagined", _INK, font)
    for i, picture in enumerate(imagined):
        left, top = GAP + i % columns * (side + GAP), GAP + LINE + i // columns * height
        image = enlarged(picture, side)
        strip.paste(image, (left + (side - image.width) // 2, top + (side - image.height) // 2))
        pen.text((left, top + side), str(i + 1), _FAINT, font)
    return strip


def cut(text: str, pen: ImageDraw.ImageDraw, font: Any, width: int = TILE) -> str:
    """The text as far as it fits under a tile; the end of a path says most."""
    text = "".join(c if c.isprintable() else " " for c in text)
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength("…" + text, font) > width:
        text = text[1:]
    return "…" + text


def save_image(image: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all."""
    form = _SUFFIXES.get(path.suffix.lower())
    if form is None:
        raise ValueError(f"a picture is saved as {', '.join(_SUFFIXES)}, got {path.name!r}")
    buffer = io.BytesIO()
    image.save(buffer, form)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(buffer.getvalue())


def save_page(text: str, path: Path) -> None:
    """Write a page whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.encode())


def page(
    title: str,
    note: str,
    query: Captioned | None,
    tiles: Sequence[Captioned],
    *,
    beside: Sequence[Captioned] = (),
    imagined: Sequence[Image.Image] = (),
) -> str:
    """A page with the pictures inside it; ``beside`` were made of the query."""
    shown = "".join(_figure(each) for each in [*([query] if query else []), *beside])
    asked = f"<section class='query'>{shown}</section>" if shown else ""
    if imagined:
        drawn = [Captioned(image, f"imagined {i}") for i, image in enumerate(imagined, 1)]
        asked += f"<section class='imagined'>{''.join(map(_figure, drawn))}</section>"
    figures = "".join(map(_figure, tiles))
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<body><h1>{html.escape(title)}</h1><p class='note'>{html.escape(note)}</p>{asked}"
        f"<main>{figures}</main></body></html>\n"
    )


def _figure(tile: Captioned) -> str:
    source = base64.b64encode(jpeg(enlarged(tile.image, 2 * TILE))).decode()
    return (
        f"<figure><img alt='{html.escape(tile.note or tile.title, quote=True)}' "
        f"src='data:image/jpeg;base64,{source}'><figcaption><b>{html.escape(tile.title)}</b><br>"
        f"{html.escape(tile.note)}</figcaption></figure>"
    )


def jpeg(image: Image.Image, *, quality: int = 88) -> bytes:
    """A picture as the bytes of a JPEG."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
