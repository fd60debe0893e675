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

TILE, GAP, LINE, COLUMNS = 160, 12, 16, 6
_INK, _FAINT, _PAPER, _FRAME = "#1f2328", "#656d76", "#ffffff", "#0969da"
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


def picture_or_cross(path: Path, *, modality: str, box: Box | None) -> Image.Image:
    """A picture of an item for a tile, or a cross where there is none any more."""
    try:
        return picture_in(path, modality=modality, box=box, size=2 * TILE)
    except (DataError, ValueError, OSError):
        return missing_picture(TILE)


def sheet(
    query: Captioned | None, tiles: Sequence[Captioned], *, beside: Sequence[Captioned] = ()
) -> Image.Image:
    """The query first, then what was made of it (``beside``), framed; what was found, in rows.

    >>> sheet(None, [Captioned(Image.new("L", (8, 8)), "a")] * 8).size
    (1044, 420)
    """
    asked = [*([query] if query else []), *beside]
    every = [*asked, *tiles]
    columns = max(min(COLUMNS, len(every)), 1)
    pitch, height = TILE + GAP, TILE + 2 * LINE + GAP
    n_lines = max(-(-len(every) // columns), 1)
    canvas = Image.new("RGB", (GAP + columns * pitch, GAP + n_lines * height), _PAPER)
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(12)
    for i, tile in enumerate(every):
        left, top = GAP + i % columns * pitch, GAP + i // columns * height
        image = enlarged(tile.image, TILE)
        canvas.paste(image, (left + (TILE - image.width) // 2, top + (TILE - image.height) // 2))
        if i < len(asked):
            pen.rectangle((left - 4, top - 4, left + TILE + 3, top + TILE + 3), None, _FRAME, 3)
        pen.text((left, top + TILE + 2), cut(tile.title, pen, font), _INK, font)
        pen.text((left, top + TILE + LINE), cut(tile.note, pen, font), _FAINT, font)
    return canvas


def cut(text: str, pen: ImageDraw.ImageDraw, font: Any) -> str:
    """The text as far as it fits under a tile; the end of a path says most."""
    text = "".join(c if c.isprintable() else " " for c in text)
    if pen.textlength(text, font) <= TILE:
        return text
    while text and pen.textlength("…" + text, font) > TILE:
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


def page(
    title: str,
    note: str,
    query: Captioned | None,
    tiles: Sequence[Captioned],
    *,
    beside: Sequence[Captioned] = (),
) -> str:
    """A page with the pictures inside it; ``beside`` were made of the query."""
    shown = "".join(_figure(each) for each in [*([query] if query else []), *beside])
    asked = f"<section class='query'>{shown}</section>" if shown else ""
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
