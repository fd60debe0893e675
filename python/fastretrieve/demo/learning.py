"""The part of the demo that needs torch: train a small ``cnn`` and build its gallery; where the
extra is installed, fit ``pretrained`` on a few thousand pictures beside it.

All of it stays in the output folder. A stopped run goes on where it was, a second one finds them
done, and a gallery whose encoder has changed is made anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from fastretrieve._common.needs import is_installed
from fastretrieve.data import read_image
from fastretrieve.data.fashion_mnist import Pictures, Split
from fastretrieve.demo.comparing import Space, space_of
from fastretrieve.demo.lines import say
from fastretrieve.encoders import EncoderError, create_encoder, load_encoder
from fastretrieve.encoders.defaults import FITTED_PRETRAINED
from fastretrieve.encoders.encoding import as_array
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.encoders.saved.files import is_saved_encoder, read_encoder
from fastretrieve.gallery import Gallery, Item
from fastretrieve.gallery.store import manifest
from fastretrieve.training import train

NAME = "the trained cnn"
PRETRAINED = "pretrained"
# Small pictures: its network takes a hundred times the work of ours.
PRETRAINED_OPTIONS = {**FITTED_PRETRAINED, "image_size": 64}
PRETRAINED_SHOWN, PRETRAINED_ASKED = 5_000, 1_000  # pictures: half a minute on two cores
DIM, WIDTH = 64, 12
EPOCHS = 3  # a minute or two on two cores
FEW, EPOCHS_OF_FEW = 10_000, 10
BATCH = 128
ASKED = 20  # searches by picture, for the median of their times
SHOWN_EPOCHS = 5


class Learned(NamedTuple):
    """A gallery, and its vectors as something to compare."""

    gallery: Gallery
    items: list[Item]  # in order of the space's rows
    space: Space

    def picture(self, row: int) -> Image.Image:
        return read_image(self.gallery.file_of(self.items[row]))


def learn(pictures: Pictures, out: Path, *, console: Console, fresh: bool = False) -> Learned:
    """Train on the pictures, add them to a gallery, and encode the queries."""
    stem = stem_of(pictures)
    shown, names = pictures.gallery.images, np.array(pictures.label_names)
    labels = names[pictures.gallery.labels].tolist()
    saved, folder = out / f"{stem}.encoder", out / f"{stem}.gallery"
    encoder = trained(shown, labels, saved, console=console, resume=not fresh)
    gallery = opened(folder, encoder, saved, fresh=fresh)
    say(console, "gallery", f"{folder}: {gallery.add(shown, labels=labels)}")
    with console.status("encoding the queries"):
        queries = encode(encoder, pictures.queries.images)
        encoding, searching = seconds_by_picture(gallery, pictures.queries.images)
    times = f"{encoding * 1e3:.1f} ms to encode it, {searching * 1e3:.1f} ms for the rest"
    say(console, "", f"a search by a picture takes {times}")
    items = gallery.items()
    known = np.array([str(item.label) for item in items])
    wanted = names[pictures.queries.labels]
    return Learned(gallery, items, space_of(NAME, gallery.vectors(), known, queries, wanted))


def learn_pretrained(
    pictures: Pictures, out: Path, *, console: Console, fresh: bool = False
) -> Learned | None:
    """A gallery of some pictures by ``pretrained``; None where its package is not installed."""
    if not is_installed(PRETRAINED):
        return None
    names = np.array(pictures.label_names)
    shown = some(pictures.gallery, PRETRAINED_SHOWN)
    asked = _first(pictures.queries, PRETRAINED_ASKED)
    folder = out / f"{stem_of(pictures)}.pretrained.gallery"
    gallery = opened_pretrained(folder, fresh=fresh)
    with console.status("encoding with pretrained"):
        told = gallery.add(shown.images, labels=names[shown.labels].tolist(), progress=False)
        queries = encode(gallery.encoder, asked.images)
    about = f"{len(shown.labels):,} of the pictures, {len(asked.labels):,} of the queries"
    say(console, "beside", f"{folder}: {told}")
    say(console, "", f"{PRETRAINED} takes longer: only {about}")
    items = gallery.items()
    known = np.array([str(item.label) for item in items])
    name = f"fitted {PRETRAINED}" if gallery.info()["fitted_to"] else PRETRAINED
    vectors, wanted = gallery.vectors(), names[asked.labels]
    return Learned(gallery, items, space_of(name, vectors, known, queries, wanted))


def opened_pretrained(folder: Path, *, fresh: bool) -> Gallery:
    """The gallery of an earlier run, or a new one, which fits its encoder to what is added."""
    if (folder / manifest.FILE).exists():
        if not fresh:
            return Gallery.open(folder)
        shutil.rmtree(folder)
    return Gallery.create(folder, encoder=PRETRAINED, **PRETRAINED_OPTIONS)


def some(split: Split, n: int) -> Split:
    """Up to ``n`` pictures, evenly from all."""
    chosen = np.linspace(0, len(split.labels) - 1, min(n, len(split.labels))).astype(np.int64)
    return Split(split.images[chosen], split.labels[chosen])


def _first(split: Split, n: int) -> Split:
    """The first ``n`` pictures, and as many more as it takes for one of each kind."""
    enough = max(n, int(np.unique(split.labels, return_index=True)[1].max()) + 1)
    return Split(split.images[:enough], split.labels[:enough])


def stem_of(pictures: Pictures) -> str:
    """The name of the pictures as part of a file's name."""
    return pictures.name.lower().replace(" ", "-")


def trained(
    images: NDArray[np.uint8], labels: list[str], folder: Path, *, console: Console, resume: bool
) -> Encoder:
    """The encoder that an earlier run trained, or a new one."""
    side = max(images.shape[1:])
    encoder = create_encoder("cnn", dim=DIM, image_size=side, channels=1, width=WIDTH)
    if resume and is_finished(folder, encoder):
        say(console, "training", f"{folder} is there from an earlier run; --fresh trains anew")
        tell_course(console, folder)
        return load_encoder(folder)
    is_long = len(images) >= FEW
    epochs = EPOCHS if is_long else EPOCHS_OF_FEW
    about = f"a cnn: {side} x {side} pixels in, {DIM} numbers out, {epochs} passes"
    say(console, "training", about + (", a minute or two on two cores" if is_long else ""))
    result = train(encoder, images, labels=labels, epochs=epochs, out=folder, resume=resume)
    tell_course(console, folder)
    say(console, "", f"{folder}: trained in {result.seconds:.0f} s")
    return encoder


def is_finished(folder: Path, encoder: Any) -> bool:
    """Whether the folder holds this encoder, trained to the end."""
    if not is_saved_encoder(folder):
        return False
    try:
        saved = read_encoder(folder)
    except EncoderError:  # damaged: to be trained again
        return False
    return saved.trained and (saved.encoder, saved.config) == (encoder.name, encoder.config)


def tell_course(console: Console, folder: Path) -> None:
    """How loss and recall went from epoch to epoch, by the log of the training."""
    lines = (folder / "training" / "log.jsonl").read_text("utf-8").splitlines()
    epochs = [line for line in map(json.loads, lines) if line["event"] == "epoch"]
    shown = np.linspace(0, len(epochs) - 1, min(SHOWN_EPOCHS, len(epochs))).astype(int)
    for name, form, note in (("loss", ".2f", ""), ("recall@1", ".1%", " on pictures held out")):
        if name in epochs[0]:
            course = " → ".join(format(epochs[i][name], form) for i in shown)
            say(console, "", f"{name:<9} {course}{note}")


def opened(folder: Path, encoder: Encoder, saved: Path, *, fresh: bool) -> Gallery:
    """The gallery of this encoder; one of another encoder is replaced."""
    if (folder / manifest.FILE).exists():
        gallery = Gallery.open(folder)
        if not fresh and gallery.manifest.weights_sha256 == read_encoder(saved).weights_sha256:
            return gallery
        gallery.close()
        shutil.rmtree(folder)
    return Gallery.create(folder, encoder=encoder)


def encode(encoder: Encoder, images: Any) -> NDArray[np.float32]:
    """Vectors of pictures in memory."""
    parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    return np.concatenate([as_array(encoder.encode(encoder.preprocess(part))) for part in parts])


def seconds_by_picture(gallery: Gallery, images: Any) -> tuple[float, float]:
    """(to encode a picture, for the rest of a search with it): medians of some searches."""
    times = [gallery.search(image, k=10).seconds for image in images[:ASKED]]
    encoding = np.median([each.encode for each in times])
    return float(encoding), float(np.median([each.search for each in times]))
