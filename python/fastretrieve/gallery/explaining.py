"""The verb that says why a match matched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fastretrieve.gallery.terminal import (
    AsJson,
    Device,
    EncoderOption,
    GalleryPath,
    RegionOption,
    TextOption,
    WeightOption,
    named_query,
    open_gallery,
    region_of,
    sentences,
)


def explain(
    gallery: GalleryPath,
    query: Annotated[
        str,
        typer.Argument(
            help="An image, or the id of an item; may be left out with --text.", show_default=False
        ),
    ],
    item: Annotated[
        str | None, typer.Argument(help="The match: its id, or its path.", show_default=False)
    ] = None,
    text: TextOption = None,
    weight: WeightOption = 0.5,
    region: RegionOption = None,
    save: Annotated[
        Path | None, typer.Option(help="Write both heat maps as a picture (.png, .jpg, .webp).")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Open the picture.")] = False,
    encoder: EncoderOption = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Say why an item matches a query, words, or both: a heat map on each picture.

    Example: fastretrieve explain photos.gallery query.jpg 17 --save why.png

    Example: fastretrieve explain photos.gallery 17 --text "a red boot" --save why.png
    """
    if item is None and text is None:
        raise typer.BadParameter("give the match, or ask with words (--text)", param_hint="ITEM")
    asked, match = (None, query) if item is None and text is not None else (query, item)
    with sentences(), open_gallery(gallery, encoder, device) as opened:
        found = opened.explain(
            None if asked is None else named_query(asked),
            None if match is None else named_query(match),
            text=text,
            weight=weight,
            region=region_of(region),
        )
        if save is not None:
            found.save(save)
        if as_json:
            typer.echo(json.dumps(found.to_dict(), indent=2))
        else:
            typer.echo(str(found) + (f"\nwrote {save}" if save else ""))
        if show:
            found.show()
