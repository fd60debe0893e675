"""The verb that makes and lists the clusters of a gallery: clusters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from fastretrieve.gallery.terminal import (
    AsJson,
    GalleryPath,
    SaveOption,
    Wait,
    console,
    counted,
    open_gallery,
    save_result,
    sentences,
)

if TYPE_CHECKING:
    from fastretrieve.gallery import Clustering


def clusters(
    gallery: GalleryPath,
    n: Annotated[
        int | None,
        typer.Option("-n", help="Make so many, in place of those that are kept.", min=1),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random start; another may suit.")] = 0,
    save: SaveOption = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """List the clusters of a gallery; with -n make them first.

    Example: fastretrieve clusters photos.gallery -n 20 --save clusters.png
    """
    with sentences(), open_gallery(gallery) as opened:
        try:
            found = opened.clusters(n, seed=seed, wait=wait)
        except KeyboardInterrupt:
            typer.echo("stopped; the clusters are those that were there before", err=True)
            raise typer.Exit(130) from None
        save_result(found, save)
        if as_json:
            typer.echo(json.dumps(found.to_dict(), indent=2))
            return
        console().print(_table(found))
        holds = f"{counted(sum(found.sizes), 'item')} in {counted(len(found), 'cluster')}"
        typer.echo(holds + (f"; wrote {save}" if save else ""))


def _table(found: Clustering) -> Table:
    table = Table(box=None)
    for heading in ("cluster", "items"):
        table.add_column(heading, justify="right")
    table.add_column("name", overflow="fold")
    table.add_column("share", justify="right")
    table.add_column("nearest to the centre", overflow="fold")
    for each in found:
        share = "" if each.share is None else f"{each.share:.0%}"
        shown = (str(each.number), f"{each.size:,}", escape(each.name), share)
        table.add_row(*shown, escape(each.item.origin))
    return table
