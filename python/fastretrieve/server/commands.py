"""The verb serve. FastAPI is only imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from fastretrieve._common.needs import wanting
from fastretrieve.gallery.terminal import (
    Device,
    EncoderOption,
    GalleryPath,
    ImagineOption,
    TranslateOption,
    open_gallery,
    sentences,
)


def serve(
    gallery: GalleryPath,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes any that is free.")
    ] = 8000,
    host: Annotated[
        str, typer.Option(help="127.0.0.1 for this machine alone; 0.0.0.0 for all that reach it.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(envvar="FASTRETRIEVE_TOKEN", help="Ask everybody for this token."),
    ] = None,
    max_upload_mb: Annotated[
        float, typer.Option(min=0.001, help="The largest upload, in megabytes.")
    ] = 20.0,
    imagine: ImagineOption = None,
    translate: TranslateOption = None,
    encoder: EncoderOption = None,
    device: Device = "cpu",
) -> None:
    """Open a page on which a gallery is searched by images. Needs the extra "serve".

    Example: fastretrieve serve photos.gallery --port 8000
    """
    with sentences(), open_gallery(gallery, encoder, device) as opened:
        with wanting("serve", "serve"):
            from fastretrieve.server import Limits, run
        limits = Limits(upload_bytes=int(max_upload_mb * 1e6))
        run(
            opened,
            host=host,
            port=port,
            token=token,
            limits=limits,
            imagine=imagine or None,
            translate=translate,
        )
