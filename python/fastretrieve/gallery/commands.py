"""The verbs that make and change a gallery: index, add, update, remove, forget, copy, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastretrieve.gallery.terminal import (
    AsJson,
    Device,
    EncoderOption,
    GalleryPath,
    Split,
    Wait,
    WhereOption,
    counted,
    open_gallery,
    sentences,
    tell,
)

if TYPE_CHECKING:
    from fastretrieve.gallery import Added, Gallery

SHOWN_UNREADABLE = 20

Sources = Annotated[
    list[str],
    typer.Argument(
        help="Folders, images, tables (.csv, .jsonl), lists of URLs (.txt), files that hold many "
        "pictures (IDX, CIFAR, .npz, tar, Parquet). With an encoder of texts: .txt with a text a "
        "line, tables with a column of texts."
    ),
]
Workers = Annotated[int | None, typer.Option(min=0, help="Threads that read files.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Items that the encoder takes at a time.")]
Flat = Annotated[bool, typer.Option("--flat", help="Leave out subfolders.")]
NoLabels = Annotated[bool, typer.Option("--no-labels", help="Do not take labels from folders.")]
TextColumn = Annotated[
    str | None,
    typer.Option(
        help="The column of a table that holds the texts, for a gallery of texts: text or caption, "
        "if none is given.",
        show_default=False,
    ),
]
Restore = Annotated[bool, typer.Option("--restore", help="Bring items back that were removed.")]
Retry = Annotated[
    bool, typer.Option("--retry", help="Try unreadable items again that have not changed.")
]


def index(
    gallery: GalleryPath,
    sources: Sources,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="A trained encoder's directory, or a name: pixels, pretrained, ... For a new "
            "gallery pretrained, fitted to its pictures, if none is given and the extra is there."
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Pixels a side, for an encoder given by name.")
    ] = None,
    dim: Annotated[
        int | None, typer.Option(min=1, help="Dimension, for an encoder given by name.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="cosine (for a new gallery), ip, l2 or sqeuclidean.")
    ] = None,
    device: Device = "cpu",
    workers: Workers = None,
    batch_size: BatchSize = 128,
    split: Split = None,
    flat: Flat = False,
    no_labels: NoLabels = False,
    text_column: TextColumn = None,
    as_json: AsJson = False,
) -> None:
    """Make a gallery of images, or go on with one: items that it has are not encoded again.

    Example: fastretrieve index photos.gallery photos/ more.csv --encoder my-encoder/
    """
    with sentences():
        from fastretrieve.gallery import Gallery
        from fastretrieve.gallery.store import manifest
        from fastretrieve.gallery.store.fitting import (
            advice_on_default,
            refuse_another,
            refuse_other_options,
        )

        options = {"image_size": image_size, "dim": dim}
        config: dict[str, Any] = {n: value for n, value in options.items() if value is not None}
        if (gallery / manifest.FILE).exists():
            made = Gallery.open(gallery, device=device)
            refuse_another(gallery, made.manifest, encoder=encoder, metric=metric)
            if config:
                refuse_other_options(made.encoder, config)
        else:
            if encoder is None and (advice := advice_on_default()):
                typer.echo(advice, err=True)
            made = Gallery.create(
                gallery, encoder=encoder, metric=metric or "cosine", device=device, **config
            )
        with made:
            result = made.add(
                *sources,
                workers=workers,
                batch_size=batch_size,
                split=split,
                recursive=not flat,
                labels_from_folders=not no_labels,
                text_column=text_column,
            )
            _tell_added(made, result, as_json)


def add(
    gallery: GalleryPath,
    sources: Sources,
    encoder: EncoderOption = None,
    device: Device = "cpu",
    workers: Workers = None,
    batch_size: BatchSize = 128,
    split: Split = None,
    flat: Flat = False,
    no_labels: NoLabels = False,
    restore: Restore = False,
    retry: Retry = False,
    text_column: TextColumn = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Add to a gallery. Only new and changed files are encoded; a stopped addition goes on.

    Example: fastretrieve add photos.gallery photos/2026 captions.csv
    """
    with sentences(), open_gallery(gallery, encoder, device) as opened:
        result = opened.add(
            *sources,
            workers=workers,
            batch_size=batch_size,
            split=split,
            recursive=not flat,
            labels_from_folders=not no_labels,
            restore=restore,
            retry=retry,
            wait=wait,
            text_column=text_column,
        )
        _tell_added(opened, result, as_json)


def update(
    gallery: GalleryPath,
    encoder: EncoderOption = None,
    device: Device = "cpu",
    words: Annotated[
        bool, typer.Option("--words", help="Only make the index of words anew, that find asks.")
    ] = False,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Look at every file again: encode what changed, remove what is gone, retry what failed.

    Example: fastretrieve update photos.gallery
    """
    with sentences(), open_gallery(gallery, encoder, device) as opened:
        if words:
            n = opened.rebuild_words(wait=wait)
            tell({"words_of": n}, f"indexed the words of {counted(n, 'item')}", as_json)
            return
        _tell_added(opened, opened.update(wait=wait), as_json)


def remove(
    gallery: GalleryPath,
    items: Annotated[
        list[str] | None, typer.Argument(help="Paths, folders, URLs or ids.", show_default=False)
    ] = None,
    where: WhereOption = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Remove items from a gallery; their files stay where they are.

    Example: fastretrieve remove photos.gallery --where "width < 64"
    """
    with sentences(), open_gallery(gallery) as opened:
        what = [int(each) if each.isdigit() else each for each in items or []]
        n = opened.remove(what or None, where=where, wait=wait)
        tell({"removed": n, "items": len(opened)}, f"removed {n:,}, {len(opened):,} stay", as_json)


def forget(
    gallery: GalleryPath,
    items: Annotated[
        list[str] | None,
        typer.Argument(help="Paths, folders, URLs or ids; removed ones too.", show_default=False),
    ] = None,
    where: WhereOption = None,
    removed: Annotated[
        bool, typer.Option("--removed", help="All that were removed or could not be read.")
    ] = False,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Erase items for good: vectors, rows and kept pictures. Files elsewhere stay where they are.

    Example: fastretrieve forget photos.gallery photos/ann
    """
    with sentences(), open_gallery(gallery) as opened:
        what = [int(each) if each.isdigit() else each for each in items or []]
        done = opened.forget(what or None, where=where, removed=removed, wait=wait)
        sentence = (
            f"erased {counted(done.items, 'item')} and {counted(done.pictures, 'kept picture')}, "
            f"wrote {counted(done.index_files, 'index file')} anew; nothing of them is left in "
            f"{gallery}"
        )
        tell({**done.to_dict(), "stay": len(opened)}, sentence, as_json)


def copy(
    gallery: GalleryPath,
    target: Annotated[Path, typer.Argument(help="A directory that is not there yet.")],
    as_json: AsJson = False,
) -> None:
    """Copy a gallery whole and verified, also while another process changes it.

    Example: fastretrieve copy photos.gallery backup/photos.gallery
    """
    with sentences(), open_gallery(gallery) as opened, opened.copy(target) as made:
        n = len(made)
        tell({"items": n, "path": str(target)}, f"copied {counted(n, 'item')} to {target}", as_json)


def refit(
    gallery: GalleryPath,
    target: Annotated[Path, typer.Argument(help="A directory that is not there yet.")],
    as_json: AsJson = False,
) -> None:
    """Copy a gallery, its encoder fitted to the items that it holds by now, all vectors made anew.

    Example: fastretrieve refit photos.gallery refitted.gallery
    """
    with sentences(), open_gallery(gallery) as opened, opened.refit(target) as made:
        n, fitted = len(made), made.info()["fitted_to"]
        sentence = f"fitted the encoder to {counted(fitted, 'item')}; {target} holds {n:,}"
        tell({"items": n, "fitted_to": fitted, "path": str(target)}, sentence, as_json)


def export(
    gallery: GalleryPath,
    files: Annotated[
        list[Path], typer.Argument(help="Vectors as .npy, items as .csv or .jsonl, or both.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write the vectors and the items of a gallery, in the same order.

    Example: fastretrieve export photos.gallery vectors.npy items.csv
    """
    with sentences(), open_gallery(gallery) as opened:
        vectors = [path for path in files if path.suffix == ".npy"]
        items = [path for path in files if path not in vectors]
        if len(vectors) > 1 or len(items) > 1:
            raise ValueError(
                "give one .npy file for the vectors, and one .csv or .jsonl for the items"
            )
        n = opened.export(vectors[0] if vectors else None, items[0] if items else None)
        written = [str(path) for path in files]
        sentence = f"wrote {counted(n, 'item')} to {', '.join(written)}"
        tell({"items": n, "files": written}, sentence, as_json)


def _tell_added(gallery: Gallery, result: Added, as_json: bool) -> None:
    """What was done; exit status 1 where something could not be read and nothing could."""
    facts = {**result.to_dict(), "items": len(gallery)}
    holds = f"{gallery.path} holds {counted(len(gallery), 'item')}"
    tell(facts, f"{result}; {holds}", as_json)
    if not as_json:
        for item in result.unreadable[:SHOWN_UNREADABLE]:
            typer.echo(f"  not read: {item.reason}", err=True)
        if len(result.unreadable) > SHOWN_UNREADABLE:
            typer.echo(f"  all of them: fastretrieve info {gallery.path} --unreadable", err=True)
    if result.unreadable and not result.n_usable:
        raise typer.Exit(1)
