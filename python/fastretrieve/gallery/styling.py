"""The verb style: fit a style of queries to a gallery."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastretrieve.gallery.terminal import (
    AsJson,
    Device,
    EncoderOption,
    GalleryPath,
    open_gallery,
    sentences,
    tell,
)


def style(
    gallery: GalleryPath,
    pictures: Annotated[
        Path, typer.Argument(help="A folder of pictures like the queries.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Where the style goes.", show_default=False)],
    how: Annotated[
        str,
        typer.Option(help="mean, coral or whiten: how much of the two styles is made alike."),
    ] = "whiten",
    encoder: EncoderOption = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Fit a style to pictures like the queries: search --translate carries queries over by it.

    Example: fastretrieve style photos.gallery sketches/ --out my-style/
    """
    with sentences(), open_gallery(gallery, encoder, device) as opened:
        opened.fit_style(pictures, how=how, out=out)
        facts = {"out": str(out), "how": how}
        tell(facts, f"wrote {out}: search {gallery} QUERY --translate {out}", as_json)
