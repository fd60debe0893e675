"""The verbs that ask a gallery: search, duplicates, evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from fastretrieve.gallery.terminal import (
    AsJson,
    Device,
    EncoderOption,
    GalleryPath,
    ImagineOption,
    RegionOption,
    SaveOption,
    Split,
    TextOption,
    TranslateOption,
    WeightOption,
    WhereOption,
    console,
    counted,
    named_query,
    open_gallery,
    region_of,
    save_result,
    sentences,
)

if TYPE_CHECKING:
    from fastretrieve.gallery import Matches
    from fastretrieve.gallery.lookup.matches import Seconds


HowMany = Annotated[int, typer.Option("-k", min=1, help="How many.")]


def search(
    gallery: GalleryPath,
    query: Annotated[
        str | None,
        typer.Argument(
            help="An image, or the id of an item; may be left out with --text.", show_default=False
        ),
    ] = None,
    text: TextOption = None,
    weight: WeightOption = 0.5,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="Look for the words in what is written, too.")
    ] = False,
    k: HowMany = 12,
    where: WhereOption = None,
    imagine: ImagineOption = None,
    n: Annotated[int, typer.Option("-n", help="How many pictures are imagined.")] = 16,
    spread: Annotated[
        float, typer.Option(help="How far imagined pictures are from the query: above 0, to 1.")
    ] = 0.3,
    translate: TranslateOption = None,
    diversity: Annotated[
        float, typer.Option(help="How much the items should differ from each other: 0 to 1.")
    ] = 0.0,
    region: RegionOption = None,
    within: Annotated[
        str | None,
        typer.Option(
            help="Only of a cluster: its number, or cluster for the nearest one.",
            show_default=False,
        ),
    ] = None,
    save: SaveOption = None,
    show: Annotated[bool, typer.Option("--show", help="Open the picture.")] = False,
    encoder: EncoderOption = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Search a gallery by an image, by words, or by both: a table, a picture, or JSON.

    Example: fastretrieve search photos.gallery query.jpg -k 12 --where "label = 'boot'"

    Example: fastretrieve search photos.gallery query.jpg --text "but in blue" --weight 0.4
    """
    if query is None and text is None:
        raise typer.BadParameter("give an image, words (--text), or both", param_hint="QUERY")
    with sentences(), open_gallery(gallery, encoder, device) as opened:
        asked = None if query is None else named_query(query, opened.manifest.modality)
        holds = counted(len(opened), "item")  # opens the index, which is no part of the search
        stay = int(within) if within and within.isdecimal() else within
        matches = opened.search(
            asked,
            text=text,
            weight=weight,
            hybrid=hybrid,
            k=k,
            where=where,
            imagine=_imagine(imagine, n=n, spread=spread),
            translate=translate,
            diversity=diversity,
            region=region_of(region),
            within=stay,
        )
        _tell_found(matches, save, where, as_json, f"{_encoding(matches.seconds)}, ", holds)
        if show:
            matches.show()


def find(
    gallery: GalleryPath,
    text: Annotated[
        str,
        typer.Argument(
            help='Words, "phrases" in quotes, beginnings*, AND, OR, NOT and parentheses.',
            show_default=False,
        ),
    ],
    k: HowMany = 12,
    offset: Annotated[int, typer.Option(min=0, help="How many of the best to leave out.")] = 0,
    where: WhereOption = None,
    within: Annotated[
        int | None, typer.Option(min=0, help="Only of the cluster with this number.")
    ] = None,
    save: SaveOption = None,
    as_json: AsJson = False,
) -> None:
    """Find items by the words written about them: labels, captions, file names, columns of text.

    Example: fastretrieve find photos.gallery "boot NOT child" --where "width > 200"
    """
    with sentences(), open_gallery(gallery) as opened:
        holds = counted(len(opened), "item")
        matches = opened.find(text, k=k, offset=offset, where=where, within=within)
        _tell_found(matches, save, where, as_json, "", holds)
        if not matches and len(text.split()) > 1 and not as_json:
            typer.echo("all of the words must be there; with OR between them one is enough")


def _tell_found(
    matches: Matches, save: Path | None, where: str | None, as_json: bool, first: str, holds: str
) -> None:
    """Show what was found as was asked for; ``first`` says what came before the search."""
    save_result(matches, save)
    if as_json:
        typer.echo(json.dumps(matches.to_dict(), indent=2))
        return
    if len(matches):
        console().print(_table(matches))
    else:
        typer.echo("nothing was found" + (f" where {where}" if where else ""))
    searched = f"{matches.seconds.search * 1e3:.1f} ms to search {holds}"
    typer.echo(first + searched + _told(matches, save))


def _imagine(generators: list[str] | None, **options: Any) -> Any:
    from fastretrieve.gallery import Imagine

    return Imagine(generators, **options) if generators else None


def _told(matches: Matches, save: Path | None) -> str:
    """What else is to be said of a search."""
    inside = "" if matches.cluster is None else f", within cluster {matches.cluster}"
    how = f"; translated by {matches.translation}" if matches.translation else ""
    return inside + how + (f"; wrote {save}" if save else "")


def duplicates(
    gallery: GalleryPath,
    threshold: Annotated[
        float, typer.Option(help="The least score of a pair; the greatest, for a distance.")
    ] = 0.98,
    as_json: AsJson = False,
) -> None:
    """Find groups of items that are nearly the same.

    Example: fastretrieve duplicates photos.gallery --threshold 0.99
    """
    with sentences(), open_gallery(gallery) as opened:
        groups = opened.duplicates(threshold)
        if as_json:
            typer.echo(json.dumps([[item.to_dict() for item in group] for group in groups]))
            return
        for number, group in enumerate(groups, 1):
            typer.echo(f"group {number}: {counted(len(group), 'item')}")
            for item in group:
                typer.echo(f"  {item.id:>8}  {item.origin}")
        spare = sum(len(group) - 1 for group in groups)
        typer.echo(f"{counted(len(groups), 'group')}; {counted(spare, 'item')} could go")


def evaluate(
    gallery: GalleryPath,
    queries: Annotated[
        Path | None,
        typer.Argument(help="Labelled images; none: the gallery's own items.", show_default=False),
    ] = None,
    split: Split = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Break down by this column.", show_default=False),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report (.html).")] = None,
    encoder: EncoderOption = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Say how well labels are found again: recall, precision, mAP, nDCG and more.

    Example: fastretrieve evaluate photos.gallery queries/
    """
    with sentences(), open_gallery(gallery, encoder, device) as opened:
        result = opened.evaluate(queries, split=split, by=by or ())
        if report is not None:
            result.report(report)
        typer.echo(json.dumps(result.to_dict(), indent=2) if as_json else str(result))


def _encoding(seconds: Seconds) -> str:
    loading = f"{seconds.load * 1e3:.0f} ms to load the encoder, " if seconds.load else ""
    return f"{loading}{seconds.encode * 1e3:.1f} ms to read and encode"


def _table(matches: Matches) -> Table:
    from fastretrieve.gallery.lookup.matches import imagined_name

    table = Table(box=None)
    for heading in ("score", "id"):
        table.add_column(heading, justify="right")
    for heading in ("label", "from"):
        table.add_column(heading, overflow="fold")
    if matches.imagined:
        table.add_column("found by")
    if matches.is_hybrid:
        table.add_column("found in")
    for match in matches:
        item = match.item
        shown = (f"{match.score:.4f}", str(item.id), escape(item.label or ""))
        finder = [imagined_name(match.found_by)] if matches.imagined else []
        finder += [match.found_in] if matches.is_hybrid else []
        table.add_row(*shown, escape(item.origin), *finder)
    return table
