"""The verbs of the gallery: index, add, remove, update, search, duplicates, evaluate, info, export,
serve, train. ``cli.py`` mounts them; an error is one sentence and exit status 1.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from fastretrieve.gallery import Added, Gallery, Matches

GalleryPath = Annotated[Path, typer.Argument(help="The gallery's directory.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Sources = Annotated[
    list[str],
    typer.Argument(help="Folders, images, tables (.csv, .jsonl), lists of URLs (.txt)."),
]
WhereOption = Annotated[
    str | None, typer.Option("--where", help="An SQL condition, such as \"label = 'boot'\".")
]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Workers = Annotated[int | None, typer.Option(help="Threads that read files.")]
BatchSize = Annotated[int, typer.Option(help="Items that the encoder takes at a time.")]
Flat = Annotated[bool, typer.Option("--flat", help="Leave out subfolders.")]
NoLabels = Annotated[bool, typer.Option("--no-labels", help="Do not take labels from folders.")]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder", help="The encoder, for galleries made with ./my.py:MyEncoder or module:..."
    ),
]


def index(
    gallery: GalleryPath,
    sources: Sources,
    encoder: Annotated[
        str, typer.Option(help="A trained encoder's directory, or a name: pixels, pretrained, ...")
    ] = "pixels",
    image_size: Annotated[
        int | None, typer.Option(help="Pixels a side, for an encoder given by name.")
    ] = None,
    dim: Annotated[int | None, typer.Option(help="Dimension, for an encoder by name.")] = None,
    metric: Annotated[str, typer.Option(help="cosine, ip, l2 or sqeuclidean.")] = "cosine",
    device: Device = "cpu",
    workers: Workers = None,
    batch_size: BatchSize = 128,
    flat: Flat = False,
    no_labels: NoLabels = False,
    as_json: AsJson = False,
) -> None:
    """Make a gallery of images, or go on with one: what is in it already is not encoded again.

    Example: fastretrieve index photos.gallery photos/ more.csv --encoder my-encoder/
    """
    with _sentences():
        from fastretrieve.gallery import Gallery, manifest

        if (gallery / manifest.FILE).exists():
            made = Gallery.open(gallery, device=device)
            _refuse_other_encoder(made, encoder)
        else:
            options = {"image_size": image_size, "dim": dim}
            config: dict[str, Any] = {n: value for n, value in options.items() if value is not None}
            made = Gallery.create(gallery, encoder=encoder, metric=metric, device=device, **config)
        result = made.add(
            *sources,
            workers=workers,
            batch_size=batch_size,
            recursive=not flat,
            labels_from_folders=not no_labels,
        )
        _tell_added(made, result, as_json)


def add(
    gallery: GalleryPath,
    sources: Sources,
    encoder: EncoderOption = None,
    device: Device = "cpu",
    workers: Workers = None,
    batch_size: BatchSize = 128,
    flat: Flat = False,
    no_labels: NoLabels = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="Bring items back that were removed.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try unreadable items again that have not changed.")
    ] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for another process.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Add to a gallery. Only new and changed files are encoded; a stopped addition goes on.

    Example: fastretrieve add photos.gallery photos/2026 captions.csv
    """
    with _sentences(), _open(gallery, encoder, device) as opened:
        result = opened.add(
            *sources,
            workers=workers,
            batch_size=batch_size,
            recursive=not flat,
            labels_from_folders=not no_labels,
            restore=restore,
            retry=retry,
            wait=wait,
        )
        _tell_added(opened, result, as_json)


def update(gallery: GalleryPath, encoder: EncoderOption = None, as_json: AsJson = False) -> None:
    """Look at every file again: encode what changed, remove what is gone, retry what failed.

    Example: fastretrieve update photos.gallery
    """
    with _sentences(), _open(gallery, encoder) as opened:
        _tell_added(opened, opened.update(), as_json)


def remove(
    gallery: GalleryPath,
    items: Annotated[list[str] | None, typer.Argument(help="Paths or ids.")] = None,
    where: WhereOption = None,
    as_json: AsJson = False,
) -> None:
    """Remove items from a gallery; their files stay where they are.

    Example: fastretrieve remove photos.gallery --where "width < 64"
    """
    with _sentences(), _open(gallery) as opened:
        what = [int(each) if each.isdigit() else each for each in items or []]
        n = opened.remove(what or None, where=where)
        _tell({"removed": n, "items": len(opened)}, f"removed {n:,}, {len(opened):,} stay", as_json)


def search(
    gallery: GalleryPath,
    query: Annotated[str, typer.Argument(help="An image, or the id of an item.")],
    k: Annotated[int, typer.Option("-k", help="How many.")] = 12,
    where: WhereOption = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the result as a picture (.png) or page (.html).")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Open the picture.")] = False,
    encoder: EncoderOption = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Search a gallery by an image: a table, a picture, or JSON.

    Example: fastretrieve search photos.gallery query.jpg -k 12 --where "label = 'boot'"
    """
    with _sentences(), _open(gallery, encoder, device) as opened:
        asked = int(query) if query.isdigit() and not Path(query).exists() else query
        matches = opened.search(asked, k=k, where=where)
        if save is not None:
            write = matches.to_html if save.suffix in (".html", ".htm") else matches.save
            write(save)
        if as_json:
            typer.echo(json.dumps(matches.to_dict(), indent=2))
        else:
            _console().print(_table(matches))
            typer.echo(
                f"{matches.seconds.encode * 1e3:.1f} ms to encode, "
                f"{matches.seconds.search * 1e3:.1f} ms to search {len(opened):,} items"
                + (f"; wrote {save}" if save else "")
            )
        if show:
            matches.show()


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
    with _sentences(), _open(gallery) as opened:
        groups = opened.duplicates(threshold)
        if as_json:
            typer.echo(json.dumps([[item.to_dict() for item in group] for group in groups]))
            return
        for number, group in enumerate(groups, 1):
            typer.echo(f"group {number}: {len(group)} items")
            for item in group:
                typer.echo(f"  {item.id:>8}  {opened.file_of(item)}")
        spare = sum(len(group) - 1 for group in groups)
        typer.echo(f"{len(groups)} groups; {spare} items could go")


def evaluate(
    gallery: GalleryPath,
    queries: Annotated[
        Path | None, typer.Argument(help="Labelled images; none: the gallery's own items.")
    ] = None,
    by: Annotated[list[str] | None, typer.Option(help="Break down by this column.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report (.html).")] = None,
    encoder: EncoderOption = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Say how well labels are found again: recall, precision, mAP, nDCG and more.

    Example: fastretrieve evaluate photos.gallery queries/
    """
    with _sentences(), _open(gallery, encoder, device) as opened:
        result = opened.evaluate(queries, by=by or ())
        if report is not None:
            result.report(report)
        typer.echo(json.dumps(result.to_dict(), indent=2) if as_json else str(result))


def info(
    gallery: GalleryPath,
    check: Annotated[
        bool, typer.Option("--check", help="Read every byte and verify every checksum.")
    ] = False,
    unreadable: Annotated[
        bool, typer.Option("--unreadable", help="List what could not be read, and why.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a gallery holds; with --check, whether all of it is whole.

    Example: fastretrieve info photos.gallery --check
    """
    with _sentences(), _open(gallery) as opened:
        facts = opened.info()
        if check:
            facts["faults"] = opened.check()
        if unreadable:
            facts["unreadable_items"] = {i.path: i.error for i in opened.unreadable()}
        if as_json:
            typer.echo(json.dumps(facts, indent=2))
        else:
            table = Table(box=None, show_header=False)
            for name, value in facts.items():
                table.add_row(name.replace("_", " "), escape(_readable(value)))
            _console().print(table)
        if facts.get("faults"):
            raise typer.Exit(1)


def export(
    gallery: GalleryPath,
    vectors: Annotated[Path | None, typer.Argument(help="Vectors as .npy.")] = None,
    items: Annotated[Path | None, typer.Argument(help="Items as .csv or .jsonl.")] = None,
) -> None:
    """Write the vectors and the items of a gallery, in the same order.

    Example: fastretrieve export photos.gallery vectors.npy items.csv
    """
    with _sentences(), _open(gallery) as opened:
        n = opened.export(vectors, items)
        typer.echo(f"wrote {n:,} items to {', '.join(str(p) for p in (vectors, items) if p)}")


def serve(
    gallery: GalleryPath,
    port: Annotated[int, typer.Option(help="Where to listen.")] = 8000,
    host: Annotated[
        str, typer.Option(help="127.0.0.1 for this machine alone; 0.0.0.0 for all that reach it.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(envvar="FASTRETRIEVE_TOKEN", help="Ask everybody for this token."),
    ] = None,
    max_upload_mb: Annotated[float, typer.Option(help="The largest upload.")] = 20.0,
    encoder: EncoderOption = None,
    device: Device = "cpu",
) -> None:
    """Open a page on which a gallery is searched by images. Needs fastretrieve[serve].

    Example: fastretrieve serve photos.gallery --port 8000
    """
    with _sentences(), _open(gallery, encoder, device) as opened:
        try:
            from fastretrieve.server import Limits, run
        except ImportError as error:
            raise RuntimeError(f"{error}; pip install 'fastretrieve[serve]'") from error
        limits = Limits(upload_bytes=int(max_upload_mb * 1e6))
        run(opened, host=host, port=port, token=token, limits=limits)


def train(
    data: Annotated[Path, typer.Argument(help="A folder of class folders, or a table.")],
    out: Annotated[Path, typer.Option(help="Where the trained encoder goes.")],
    encoder: Annotated[str, typer.Option(help="cnn, autoencoder, vae, gan, rnn, ...")] = "cnn",
    dim: Annotated[int | None, typer.Option(help="Numbers in a vector.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels a side.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 for grey, 3 for colour.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Items in a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="The learning rate.")] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal encoders.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over instead of going on with a stopped run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train an encoder on images (or sequences); the same command goes on where it was stopped.

    Example: fastretrieve train photos/ --encoder cnn --dim 128 --epochs 10 --out my-encoder/
    """
    with _sentences():
        from fastretrieve.encoders import create_encoder, load_encoder
        from fastretrieve.training import train as fit

        given = {"dim": dim, "image_size": image_size, "channels": channels}
        config: dict[str, Any] = {n: value for n, value in given.items() if value is not None}
        is_saved = Path(encoder).is_dir()
        if is_saved and config:
            raise ValueError(f"{encoder} is a saved encoder: its {', '.join(config)} stay")
        made = load_encoder(encoder) if is_saved else create_encoder(encoder, **config)
        result = fit(
            made,
            data,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            seed=seed,
            device=device,
            out=out,
            resume=not fresh,
        )
        last = dict(result.epochs[-1]) if result.epochs else {}
        line = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
        _tell({"out": str(out), **last}, f"wrote {out}: {line or 'fitted'}", as_json)


# --- helpers --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Errors that a person can mend become one sentence; the others stay what they are."""
    from fastretrieve.data import DataError
    from fastretrieve.encoders import EncoderError

    try:
        yield
    except (EncoderError, DataError, KeyError) as error:
        raise RuntimeError(str(error)) from error
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise typer.Exit(130) from None


def _open(path: Path, encoder: str | None = None, device: str = "cpu") -> Gallery:
    from fastretrieve.gallery import Gallery

    return Gallery.open(path, encoder=encoder, device=device)


def _refuse_other_encoder(gallery: Gallery, encoder: str) -> None:
    from fastretrieve.encoders.files import is_saved_encoder, read_encoder

    wanted, name = gallery.manifest, encoder
    if encoder != "pixels" and is_saved_encoder(encoder):
        saved = read_encoder(encoder)
        if saved.weights_sha256 == wanted.weights_sha256:
            return
        name = saved.encoder
    elif encoder in ("pixels", wanted.encoder):
        return  # the default, or the same by name
    raise ValueError(
        f"{gallery.path} was made with another encoder ({wanted.encoder}) than {encoder} ({name}); "
        "index into another directory"
    )


def _tell_added(gallery: Gallery, result: Added, as_json: bool) -> None:
    facts = {**result.to_dict(), "items": len(gallery)}
    _tell(facts, f"{result}; {gallery.path} holds {len(gallery):,} items", as_json)
    if not as_json:
        for item in result.unreadable[:20]:
            typer.echo(f"  not read: {item.reason}", err=True)
        if len(result.unreadable) > 20:
            typer.echo(f"  all of them: fastretrieve info {gallery.path} --unreadable", err=True)


def _tell(facts: dict[str, Any], sentence: str, as_json: bool) -> None:
    typer.echo(json.dumps(facts, indent=2) if as_json else sentence)


def _table(matches: Matches) -> Table:
    table = Table(box=None)
    for heading in ("score", "id"):
        table.add_column(heading, justify="right")
    for heading in ("label", "path"):
        table.add_column(heading, overflow="fold")
    for match in matches:
        item = match.item
        shown = (f"{match.score:.4f}", str(item.id), escape(item.label or ""))
        table.add_row(*shown, escape(str(match.path)))
    return table


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} ({count})" for key, count in list(value.items())[:20])
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _console() -> Console:
    # In a pipe nothing may be cut at 80 columns.
    return Console() if sys.stdout.isatty() else Console(width=1000)
