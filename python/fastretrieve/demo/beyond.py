"""What a search can do beside finding neighbours: one query that a generator imagines more of, one
match that explains itself, and, where the extra ``text`` is installed, one search with words.

The generator is a small ``vae``, which trains for a quarter of a minute. Words meet the trained
``cnn`` by the names of the classes alone; the rest is what ``minilm`` knows of English. Both stay
in the output folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from fastretrieve._common.needs import is_installed
from fastretrieve.data.fashion_mnist import Pictures, Split
from fastretrieve.demo.learning import Learned, is_finished, opened, some, stem_of
from fastretrieve.demo.lines import say
from fastretrieve.demo.sheet import Panel
from fastretrieve.encoders import create_encoder, load_encoder
from fastretrieve.gallery import Imagine
from fastretrieve.training import train

ITEMS, EPOCHS, DIM, WIDTH = 20_000, 1, 32, 16
FEW, EPOCHS_OF_FEW = 5_000, 4
IMAGINED, SPREAD, FOUND = 6, 0.5, 5
CAPTIONED, NAMED = 2_000, 8
WORDS = {"Fashion-MNIST": "a handbag with a strap"}  # other pictures: the name of a class


def panels(
    pictures: Pictures, learned: Learned, out: Path, *, console: Console, fresh: bool
) -> list[Panel]:
    """A search with imagined pictures, and the heat maps of its first match."""
    folder = drawer(pictures.gallery, out / f"{stem_of(pictures)}.vae", console, fresh=fresh)
    query = pictures.queries.images[1]
    gallery = learned.gallery
    found = gallery.search(query, imagine=Imagine(folder, n=IMAGINED, spread=SPREAD), k=FOUND)
    why = gallery.explain(query, found[0].item)
    shown = [
        Panel("searched with what a vae imagines near to the query, too", found.image()),
        Panel("where the query and its first match are alike", why.image()),
    ]
    if is_installed("text"):
        shown.append(asked_with_words(pictures, learned, out, console, fresh=fresh))
    return shown


def asked_with_words(
    pictures: Pictures, learned: Learned, out: Path, console: Console, *, fresh: bool
) -> Panel:
    """A search with words, by a ``words`` that knows names of classes, among some pictures."""
    folder = out / f"{stem_of(pictures)}.words"
    shown = some(pictures.gallery, CAPTIONED)
    labels = np.array(pictures.label_names)[shown.labels].tolist()
    encoder = create_encoder("words", image=learned.gallery.encoder)
    if fresh or not is_finished(folder, encoder):
        result = train(
            encoder, shown.images, labels=labels, out=folder, resume=False, progress=False
        )
        about = f"words beside the cnn, trained on the names of classes in {result.seconds:.0f} s"
        say(console, "words", f"{folder}: {about}")
    else:
        encoder = load_encoder(folder)
    text = WORDS.get(pictures.name, pictures.label_names[0])
    with opened(out / f"{folder.name}.gallery", encoder, folder, fresh=fresh) as gallery:
        gallery.add(shown.images, labels=labels, progress=False)
        found = gallery.search(text=text, k=NAMED)
        known = f"it learned from {len(pictures.label_names)} names of classes"
        return Panel(f"searched with the words \u201c{text}\u201d; {known}", found.image())


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
