"""Pictures of a training run, drawn with Pillow: its curves and its sheets of images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from fastretrieve._common.atomic import replacing

Curve = Sequence[float]
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")
_PANEL = (480, 260)
_MARGIN = (64, 34, 16, 30)  # left, top, right, bottom
_TILE = 56  # pixels a side, at least, of an image on a sheet


def draw_curves(path: Path, panels: Mapping[str, Mapping[str, Curve]]) -> None:
    """One panel for each entry, side by side; each holds named curves over the epochs."""
    shown = {title: curves for title, curves in panels.items() if any(map(len, curves.values()))}
    picture = Image.new("RGB", (_PANEL[0] * max(len(shown), 1), _PANEL[1]), "white")
    for index, (title, curves) in enumerate(shown.items()):
        _draw_panel(picture, index * _PANEL[0], title, curves)
    _write_png(path, picture)


def draw_sheet(path: Path, rows: Sequence[torch.Tensor]) -> None:
    """A sheet of images; each entry of ``rows`` is one row [n, channels, h, w] in [0, 1]."""
    height, width = rows[0].shape[2:]
    scale = max(1, math.ceil(_TILE / max(height, width)))
    gap, n_columns = 2, max(len(row) for row in rows)
    cell_h, cell_w = height * scale + gap, width * scale + gap
    sheet = Image.new("RGB", (n_columns * cell_w + gap, len(rows) * cell_h + gap), "#808080")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            tile = _to_picture(image).resize(
                (width * scale, height * scale), Image.Resampling.NEAREST
            )
            sheet.paste(tile, (gap + x * cell_w, gap + y * cell_h))
    _write_png(path, sheet)


def _to_picture(image: torch.Tensor) -> Image.Image:
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).convert(
        "RGB"
    )


def _draw_panel(picture: Image.Image, x0: int, title: str, curves: Mapping[str, Curve]) -> None:
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default()
    left, top, right, bottom = (
        x0 + _MARGIN[0],
        _MARGIN[1],
        x0 + _PANEL[0] - _MARGIN[2],
        _PANEL[1] - _MARGIN[3],
    )
    drawn = {name: curve for name, curve in curves.items() if len(curve)}
    low, high = _limits([value for curve in drawn.values() for value in curve])
    n_epochs = max(len(curve) for curve in drawn.values())

    def at(epoch: int, value: float) -> tuple[float, float]:
        across = epoch / max(n_epochs - 1, 1)
        return left + across * (right - left), bottom - (value - low) / (high - low) * (
            bottom - top
        )

    for tick in np.linspace(low, high, 5):
        y = at(0, float(tick))[1]
        draw.line([(left, y), (right, y)], fill="#dddddd")
        draw.text((x0 + 4, y - 6), f"{tick:.4g}", fill="#444444", font=font)
    draw.rectangle([left, top, right, bottom], outline="#444444")
    draw.text((left, bottom + 6), "epoch 1", fill="#444444", font=font)
    draw.text((right - 24, bottom + 6), f"{n_epochs}", fill="#444444", font=font)
    x = float(left)
    draw.text((x0 + 4, 4), title, fill="black", font=font)
    for (name, curve), colour in zip(drawn.items(), _COLOURS * len(drawn), strict=False):
        points = [at(epoch, value) for epoch, value in enumerate(curve)]
        if len(points) > 1:
            draw.line(points, fill=colour, width=2)
        for px, py in points:
            draw.ellipse([px - 2, py - 2, px + 2, py + 2], fill=colour)
        draw.text((x, 18), name, fill=colour, font=font)
        x += draw.textlength(name, font=font) + 14


def _limits(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    pad = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - pad, high + pad


def _write_png(path: Path, picture: Image.Image) -> None:
    with replacing(path) as file:
        picture.save(file, "PNG")
