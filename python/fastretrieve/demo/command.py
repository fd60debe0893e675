"""``fastretrieve demo``: its steps in order, and its output."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from fastretrieve._common.needs import remedy
from fastretrieve.benchmarking.cases import Matrix
from fastretrieve.data import fashion_mnist as datasets
from fastretrieve.data.fashion_mnist import DatasetError, Pictures
from fastretrieve.demo import sheet
from fastretrieve.demo.comparing import Found, Space, compare, footnote, space_of, table_of
from fastretrieve.demo.lines import say
from fastretrieve.demo.sheet import Group, Panel, SheetTile

if TYPE_CHECKING:
    from fastretrieve.demo.learning import Learned

COLUMNS, FEWEST = 10, 4  # neighbours of a query on the sheet: of all kinds, of one at least
PIXELS = "raw pixels"
TORCH = f"{remedy('networks')}, then run this again"


def demo(
    out: Annotated[Path, typer.Option(help="The folder for encoder, gallery and pictures.")] = Path(
        "out"
    ),
    download: Annotated[
        bool, typer.Option(help="Download the pictures if they are not here.")
    ] = True,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Train anew what an earlier run left in the folder.")
    ] = False,
) -> None:
    """Train an encoder on real pictures, search with it, say how right and how fast that is.

    Leaves a gallery to search on a page, and a picture of what was found beside raw pixels.

    Example: fastretrieve demo --out out
    """
    console = Console(highlight=False)
    try:
        tell(console, out, download=download, fresh=fresh)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here")
        raise typer.Exit(130) from None


def tell(console: Console, out: Path, *, download: bool, fresh: bool) -> None:
    """The whole demo."""
    pictures = choose_pictures(console, download=download)
    shown, asked = pictures.gallery.images, pictures.queries.images
    about = f"{len(shown):,} pictures to search, {len(asked):,} to ask with ({pictures.source})"
    say(console, "pictures", f"{pictures.name}, {about}")
    out.mkdir(parents=True, exist_ok=True)
    missing = why_no_torch()
    learned = [] if missing else learn(pictures, out, console, fresh=fresh)

    spaces = [*(one.space for one in learned), pixels_of(pictures)]
    with console.status("searching, checking, timing"):
        found = [compare(space) for space in spaces]
    console.print()
    console.print(table_of(found))
    console.print(footnote(), style="dim")

    picture = draw(pictures, found, learned)
    if learned:
        with console.status("imagining, explaining"):
            panels = panels_of(pictures, learned[0], out, console, fresh=fresh)
        picture = sheet.with_panels(picture, panels)
    picture.save(out / "neighbours.png")
    console.print()
    more = "; below, what else a search can do" if learned else ""
    say(console, "look", f"{out / 'neighbours.png'}: what was found for a query of each kind{more}")
    if not learned:
        say(console, "more", f"training, a gallery and its page need torch ({missing}): {TORCH}")
        return
    Image.fromarray(asked[0]).save(out / "query.png")
    tell_next_steps(console, learned[0].gallery.path, out)
    for one in learned:
        one.gallery.close()


def choose_pictures(console: Console, *, download: bool) -> Pictures:
    """Fashion-MNIST if it is here or can be fetched, else cluttered digits, saying so."""
    folder = datasets.find_fashion_mnist()
    if folder is None and download:
        console.print(f"downloading Fashion-MNIST, about {datasets.DOWNLOAD_MB} MB")
        try:
            folder = datasets.fetch_fashion_mnist()
        except (DatasetError, OSError) as error:
            console.print(f"no download: {error}", style="yellow")
    if folder is not None:
        return datasets.load_fashion_mnist(folder)
    told = "Fashion-MNIST is not here: scikit-learn's digits stand in, made harder to find"
    console.print(told, style="yellow")
    return datasets.load_stand_in()


def why_no_torch() -> str | None:
    """Why torch cannot be used, or None where it can."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        return str(error)
    return None


def learn(pictures: Pictures, out: Path, console: Console, *, fresh: bool) -> "list[Learned]":
    """The trained encoder's gallery, and that of ``pretrained`` where it is installed."""
    from fastretrieve.demo import learning

    trained = learning.learn(pictures, out, console=console, fresh=fresh)
    other = learning.learn_pretrained(pictures, out, console=console, fresh=fresh)
    return [trained, *([other] if other else [])]


def panels_of(
    pictures: Pictures, learned: "Learned", out: Path, console: Console, *, fresh: bool
) -> list[Panel]:
    """A search with imagined pictures, and an explanation."""
    from fastretrieve.demo import beyond

    return beyond.panels(pictures, learned, out, console=console, fresh=fresh)


def pixels_of(pictures: Pictures) -> Space:
    """The pictures as they are."""
    names = np.array(pictures.label_names)
    shown, asked = pictures.gallery, pictures.queries
    rows, queries = _flat(shown.images), _flat(asked.images)
    return space_of(PIXELS, rows, names[shown.labels], queries, names[asked.labels])


def draw(pictures: Pictures, found: list[Found], learned: "list[Learned]") -> Image.Image:
    """The first query of each kind, and what was found by each kind of vectors."""
    asked = np.unique(pictures.queries.labels, return_index=True)[1].tolist()
    n = max(COLUMNS // len(found), FEWEST)

    def picture(space: Space, row: int) -> Image.Image:
        owner = next((one for one in learned if space is one.space), None)
        return owner.picture(row) if owner else Image.fromarray(pictures.gallery.images[row])

    def group(one: Found) -> Group:
        space = one.space
        rows = [
            [SheetTile(picture(space, row), str(space.labels[row])) for row in one.ids[query, :n]]
            for query in asked
        ]
        dim = space.data.rows.shape[1]
        asking = f"{len(space.data.queries):,} queries"
        note = f"{dim} numbers; the nearest is right for {one.recall:.1%} of {asking}"
        return Group(f"nearest by {space.name}", note, rows)

    wanted = found[0].space.wanted
    queries = [
        SheetTile(Image.fromarray(pictures.queries.images[i]), str(wanted[i])) for i in asked
    ]
    return sheet.draw(queries, [group(one) for one in found])


def tell_next_steps(console: Console, gallery: Path, out: Path) -> None:
    """Print the next commands to type."""
    command, needs = own_command(), ""
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        needs = f"{remedy('serve')} && "
    result = out / "found.png"
    say(console, "page", f"{needs}{command} serve {gallery}")
    say(console, "search", f"{command} search {gallery} {out / 'query.png'} --save {result}")
    say(console, "your own", f"{command} train photos/ --out my-encoder")
    say(console, "", f"{command} index photos.gallery photos/ --encoder my-encoder")


def own_command() -> str:
    """How this program is called from here: by its name only where the shell finds this one."""
    called = Path(sys.argv[0])
    if called.name != "fastretrieve":
        return "python -m fastretrieve"
    known = shutil.which("fastretrieve")
    if known is not None and called.exists() and os.path.samefile(known, called):
        return "fastretrieve"
    near = os.path.relpath(called)
    return str(called) if near.startswith("..") else near


def _flat(images: NDArray[np.uint8]) -> Matrix:
    return images.reshape(len(images), -1).astype(np.float32)
