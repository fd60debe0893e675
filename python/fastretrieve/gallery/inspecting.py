"""The verb that describes a gallery, an index file or a saved encoder: info."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.terminal import AsJson, console, open_gallery, sentences, tell


def info(
    path: Annotated[
        Path,
        typer.Argument(
            help="A gallery, an index file or a saved encoder.",
            metavar="GALLERY",
            show_default=False,
        ),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Read every byte and verify every checksum.")
    ] = False,
    unreadable: Annotated[
        bool, typer.Option("--unreadable", help="List what could not be read, and why.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a gallery, an index file or a saved encoder holds; with --check, whether it is
    whole: exit status 1 if not.

    Example: fastretrieve info photos.gallery --check
    """
    with sentences():
        facts = _facts(path, check, unreadable)
        table = Table(box=None, show_header=False)
        if as_json:
            tell(facts, "", as_json)
        else:
            for name, value in facts.items():
                table.add_row(name.replace("_", " "), escape(_readable(value)))
            console().print(table)
        if facts.get("faults"):
            raise typer.Exit(1)


def _facts(path: Path, check: bool, unreadable: bool) -> dict[str, Any]:
    from fastretrieve.encoders.saved.files import is_saved_encoder
    from fastretrieve.gallery import describing

    if path.is_file():
        return describing.index_file(path, check=check)
    if is_saved_encoder(path):
        return describing.saved_encoder(path, check=check)
    with open_gallery(path) as opened:
        facts = opened.info()
        if check:
            facts["faults"] = opened.check()
        if not facts.get("faults"):
            with contextlib.suppress(GalleryError, ValueError):  # of damage, which --check names
                facts["directions"] = opened.directions()
        if unreadable:
            facts["unreadable_items"] = {i.path: i.error for i in opened.unreadable()}
    return facts


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        shown = [f"{key} ({count})" for key, count in list(value.items())[:20]]
        more = len(value) - len(shown)
        return ", ".join(shown + [f"and {more} more"] * (more > 0)) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
