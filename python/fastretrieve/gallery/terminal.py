"""What the verbs of the command line share: their common options, and how they speak.

An error that a person can mend is one sentence on standard error and exit status 1 (``cli.py``
prints it); an interruption is exit status 130.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from fastretrieve.gallery import Clustering, Gallery, Matches
    from fastretrieve.gallery.lookup.regions import Region

GalleryPath = Annotated[Path, typer.Argument(help="The gallery's directory.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
WhereOption = Annotated[
    str | None, typer.Option("--where", help="An SQL condition, such as \"label = 'boot'\".")
]
SaveOption = Annotated[
    Path | None,
    typer.Option(
        "--save", help="Write the result as a picture (.png, .jpg, .webp) or a page (.html)."
    ),
]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Wait = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for another process that changes the gallery.")
]
Split = Annotated[
    str | None, typer.Option(help="One split of files that have several: train, test, ...")
]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="The encoder, for galleries made with ./my.py:MyEncoder, module:... or clip:/PATH",
    ),
]
RegionOption = Annotated[
    str | None,
    typer.Option(
        "--region",
        metavar="L,T,R,B",
        help="The part of the query's picture that is meant, in pixels: left,top,right,bottom.",
    ),
]


def named_query(text: str, modality: str = "image") -> str | int | Path:
    """The id of an item, unless a file has that name; else a path. In a gallery of texts words,
    unless a file has that name.
    """
    if text.isdigit() and not os.path.exists(text):
        return int(text)
    return Path(text) if modality == "text" and os.path.isfile(text) else text


def region_of(text: str | None) -> Region | None:
    """The region that an option says, if it is given."""
    from fastretrieve.gallery.lookup.regions import parsed

    return None if text is None else parsed(text)


TextOption = Annotated[
    str | None,
    typer.Option(
        "--text", help="Words to ask with, alone or beside the query.", show_default=False
    ),
]
WeightOption = Annotated[
    float, typer.Option(min=0, max=1, help="The words' share beside the query: 0 to 1.")
]
ImagineOption = Annotated[
    list[str] | None,
    typer.Option(
        "--imagine",
        help="Search with pictures that this saved encoder (gan, vae, autoencoder) draws like the "
        "query, too; may be given several times.",
        show_default=False,
    ),
]
TranslateOption = Annotated[
    Path | None,
    typer.Option(
        "--translate",
        help="Carry the query into the gallery's style by this style's directory.",
        show_default=False,
    ),
]


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """Errors that a person can mend become one sentence; the others stay what they are."""
    from fastretrieve.data import DataError
    from fastretrieve.encoders import EncoderError

    try:
        yield
    except (EncoderError, DataError) as error:
        raise RuntimeError(str(error)) from error
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise typer.Exit(130) from None


def open_gallery(path: Path, encoder: str | None = None, device: str = "cpu") -> Gallery:
    """The gallery, to be used in a ``with`` statement."""
    from fastretrieve.gallery import Gallery

    return Gallery.open(path, encoder=encoder, device=device)


def tell(facts: Any, sentence: str, as_json: bool) -> None:
    """Print facts for a program, or a sentence for a person."""
    typer.echo(json.dumps(facts, indent=2) if as_json else sentence)


def save_result(result: Matches | Clustering, path: Path | None) -> None:
    """Write a result as a picture or a page, as the end of the name says."""
    if path is not None:
        write = result.to_html if path.suffix in (".html", ".htm") else result.save
        write(path)


def console() -> Console:
    """A console for tables; in a pipe nothing is cut at 80 columns."""
    return Console() if sys.stdout.isatty() else Console(width=1000)


def counted(n: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "item"), counted(1200, "item")
    ('1 item', '1,200 items')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
