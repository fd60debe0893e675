"""What a search can do beside finding neighbours: one query that a generator imagines more of, and
one match that explains itself.

The generator is a small ``vae``, which trains for a quarter of a minute and stays in the output
folder.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from fastretrieve.data.fashion_mnist import Pictures, Split
from fastretrieve.demo.learning import Learned, is_finished, some, stem_of
from fastretrieve.demo.lines import say
from fastretrieve.demo.sheet import Panel
from fastretrieve.encoders import create_encoder
from fastretrieve.gallery import Imagine
from fastretrieve.training import train

ITEMS, EPOCHS, DIM, WIDTH = 20_000, 1, 32, 16
FEW, EPOCHS_OF_FEW = 5_000, 4
IMAGINED, SPREAD, FOUND = 6, 0.5, 5


def panels(
    pictures: Pictures, learned: Learned, out: Path, *, console: Console, fresh: bool
) -> list[Panel]:
    """A search with imagined pictures, and the heat maps of its first match."""
    folder = drawer(pictures.gallery, out / f"{stem_of(pictures)}.vae", console, fresh=fresh)
    query = pictures.queries.images[1]
    gallery = learned.gallery
    found = gallery.search(query, imagine=Imagine(folder, n=IMAGINED, spread=SPREAD), k=FOUND)
    why = gallery.explain(query, found[0].item)
    return [
        Panel("searched with what a vae imagines near to the query, too", found.image()),
        Panel("where the query and its first match are alike", why.image()),
    ]


def drawer(split: Split, folder: Path, console: Console, *, fresh: bool) -> Path:
    """The directory of a generator of such pictures, trained now or by an earlier run."""
    shown = some(split, ITEMS).images
    side = max(shown.shape[1:])
    options = {"dim": DIM, "image_size": side, "channels": 1, "width": WIDTH}
    vae = create_encoder("vae", **options, perceptual=0)  # which takes most of the time
    if fresh or not is_finished(folder, vae):
        epochs = EPOCHS if len(shown) > FEW else EPOCHS_OF_FEW
        result = train(vae, shown, epochs=epochs, out=folder, resume=not fresh, progress=False)
        about = f"a vae that draws such pictures, trained in {result.seconds:.0f} s"
        say(console, "imagined", f"{folder}: {about}")
    return folder
