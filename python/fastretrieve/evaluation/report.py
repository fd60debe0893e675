"""A report of an evaluation, drawn with Pillow: an HTML page with tables, or the pictures alone."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fastretrieve._common.atomic import replacing
from fastretrieve.data import DataError, Dataset
from fastretrieve.data.pictures import enlarged, missing_picture, picture_of

_TILE, _GAP, _CAPTION = 96, 8, 16
_GREY, _GREEN, _RED = "#767676", "#1a7f37", "#cf222e"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .2rem .8rem; text-align: right }
th:first-child, td:first-child { text-align: left } tr:nth-child(even) { background: #f4f4f4 }
img { max-width: 100% } div { overflow-x: auto } .note { color: #555 }
@media (prefers-color-scheme: dark) { body { background: #111; color: #eee }
tr:nth-child(even) { background: #222 } .note { color: #aaa } }
"""


class GridTile(NamedTuple):
    """One picture of a grid; ``colour`` is its frame's."""

    image: Image.Image
    caption: str
    colour: str = _GREY


class Reported(Protocol):
    """The part of an ``Evaluation`` (``retrieval.py``) that a report reads."""

    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def per_class(self) -> Mapping[str, Mapping[str, float]]: ...
    @property
    def by(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]: ...
    @property
    def n_queries(self) -> int: ...
    @property
    def n_gallery(self) -> int: ...
    @property
    def n_unscored(self) -> int: ...
    @property
    def metric(self) -> str: ...
    @property
    def skipped(self) -> Sequence[Any]: ...
    @property
    def neighbours(self) -> NDArray[np.int64]: ...
    @property
    def rows(self) -> NDArray[np.int64]: ...
    @property
    def values(self) -> Mapping[str, NDArray[np.float64]]: ...
    @property
    def queries(self) -> Dataset | None: ...
    @property
    def gallery(self) -> Dataset | None: ...


def write_report(evaluation: Reported, path: Path, *, n_rows: int, k: int) -> None:
    """Write ``.html``, or ``.png`` with the result grids alone."""
    suffix = path.suffix.lower()
    if suffix not in (".html", ".htm", ".png"):
        raise ValueError(f"a report is .html or .png, got {path.name!r}")
    grids = result_grids(evaluation, n_rows=n_rows, k=k)
    if suffix == ".png":
        if not grids:
            raise ValueError(
                "there are no pictures to draw: this evaluation was given vectors without items; "
                "write an .html report, or evaluate data sets"
            )
        data = _png(_stacked([grid for _, grid in grids]))
    else:
        data = _page(evaluation, grids).encode()
    with replacing(path) as file:
        file.write(data)


def result_grids(evaluation: Reported, *, n_rows: int, k: int) -> list[tuple[str, Image.Image]]:
    """Pictures of queries with their neighbours: a few of all, and the worst."""
    if evaluation.queries is None or evaluation.gallery is None or n_rows < 1:
        return []
    spread = np.linspace(0, evaluation.n_queries - 1, min(n_rows, evaluation.n_queries))
    worst = np.argsort(evaluation.values["map"], kind="stable")[:n_rows]
    return [
        ("Queries from the whole set", _grid(evaluation, np.unique(spread.round().astype(int)), k)),
        ("The queries that went worst", _grid(evaluation, worst, k)),
    ]


def draw_grid(rows: Sequence[Sequence[GridTile]]) -> Image.Image:
    """Tiles in rows; the first of each row is the query and stands apart.

    >>> draw_grid([[GridTile(Image.new("L", (8, 8)), "query")]]).size
    (128, 128)
    """
    pitch, height = _TILE + _GAP, _TILE + _CAPTION + _GAP
    width = max(len(row) for row in rows) * pitch + 3 * _GAP
    canvas = Image.new("RGB", (width, len(rows) * height + _GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            left = _GAP + x * pitch + (_GAP if x else 0)
            top = _GAP + y * height
            picture = enlarged(tile.image, _TILE - 6)
            draw.rectangle((left, top, left + _TILE - 1, top + _TILE - 1), tile.colour)
            draw.rectangle((left + 3, top + 3, left + _TILE - 4, top + _TILE - 4), "white")
            place = (left + (_TILE - picture.width) // 2, top + (_TILE - picture.height) // 2)
            canvas.paste(picture, place)
            draw.text((left + 2, top + _TILE + 1), _cut(tile.caption, draw, font), "black", font)
    return canvas


def _thumbnail(dataset: Dataset, index: int) -> Image.Image:
    try:
        return picture_of(dataset.read(index, size=_TILE), modality=dataset.modality)
    except (DataError, ValueError):
        return missing_picture(_TILE)


def _grid(evaluation: Reported, picked: NDArray[np.int64], k: int) -> Image.Image:
    queries, gallery = evaluation.queries, evaluation.gallery
    assert queries is not None
    assert gallery is not None
    rows = []
    for i in picked.tolist():
        row = int(evaluation.rows[i])
        name = queries.label_name(row)
        tiles = [GridTile(_thumbnail(queries, row), str(name))]
        for found in evaluation.neighbours[i, :k].tolist():
            label = gallery.label_name(found)
            tiles.append(
                GridTile(_thumbnail(gallery, found), str(label), _GREEN if label == name else _RED)
            )
        rows.append(tiles)
    return draw_grid(rows)


def _cut(text: str, draw: ImageDraw.ImageDraw, font: Any) -> str:
    while text and draw.textlength(text, font) > _TILE - 4:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text


def _stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    width = max(picture.width for picture in pictures)
    canvas = Image.new("RGB", (width, sum(picture.height for picture in pictures)), "white")
    top = 0
    for picture in pictures:
        canvas.paste(picture, (0, top))
        top += picture.height
    return canvas


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _page(evaluation: Reported, grids: Sequence[tuple[str, Image.Image]]) -> str:
    parts = [
        "<h1>Retrieval report</h1>",
        f"<p>{evaluation.n_queries} queries against {evaluation.n_gallery} items by "
        f"{html.escape(evaluation.metric)}; {evaluation.n_unscored} queries had no class mate to "
        f"find and {len(evaluation.skipped)} items could not be read.</p>",
        _table({"all queries": _plain(evaluation.metrics)}),
        _table(_by_k(evaluation.metrics)),
        "<h2>By class</h2>",
        _table({name: _plain(values) for name, values in _worst_first(evaluation)}),
    ]
    for column, groups in evaluation.by.items():
        parts += [f"<h2>By {html.escape(column)}</h2>"]
        parts.append(_table({name: _plain(values) for name, values in groups.items()}))
    for title, grid in grids:
        image = base64.b64encode(_png(grid)).decode()
        parts += [
            f"<h2>{title}</h2><p class='note'>The query comes first, then what was found, best "
            "first; a green frame is the query's class.</p>",
            f"<img alt='{title}' src='data:image/png;base64,{image}'>",
        ]
    if evaluation.skipped:
        rows = "".join(
            f"<tr><td>{html.escape(s.key)}</td><td>{html.escape(s.reason)}</td></tr>"
            for s in evaluation.skipped[:1000]
        )
        head = "<tr><th>item</th><th>reason</th></tr>"
        parts.append(f"<h2>Not read</h2><div><table>{head}{rows}</table></div>")
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Retrieval report</title>"
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _plain(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that have no k, and the count of queries."""
    return {name: value for name, value in metrics.items() if "@" not in name or name == "map@r"}


def _by_k(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """``recall@5`` and its like as a table with one row for each k."""
    rows: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        metric, _, k = name.partition("@")
        if k.isdigit():
            rows.setdefault(f"first {k}", {})[metric] = value
    return rows


def _worst_first(evaluation: Reported) -> list[tuple[str, Mapping[str, float]]]:
    return sorted(evaluation.per_class.items(), key=lambda group: group[1]["accuracy"])


def _table(groups: Mapping[str, Mapping[str, float]]) -> str:
    """One row a group, one column a metric; groups have the same metrics."""
    names = list(next(iter(groups.values()), {}))
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in ["", *names])
    lines = []
    for group, values in groups.items():
        cells = "".join(
            f"<td>{values[name]:{'.0f' if name == 'n_queries' else '.4f'}}</td>" for name in names
        )
        lines.append(f"<tr><td>{html.escape(group)}</td>{cells}</tr>")
    return f"<div><table><tr>{head}</tr>{''.join(lines)}</table></div>"
