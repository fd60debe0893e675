"""Encode a whole data set: read ahead, encode in batches, list what could not be read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data import Dataset, Loader, Skipped, longest_side
from fastretrieve.data.texts import as_texts
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import Encoder

if TYPE_CHECKING:
    from fastretrieve.encoders.protocol import TextTower

T = TypeVar("T")
_TEXTS = 256  # that an encoder is given at once


class Encoded(NamedTuple):
    """The vectors of the items that could be read, and which items those are."""

    vectors: NDArray[np.float32]  # [n, dim]
    rows: NDArray[np.int64]  # [n], positions in the data set, ascending
    skipped: list[Skipped]
    wait_share: float  # the share of the time that the encoder waited for items
    probabilities: NDArray[np.float32] | None  # [n, n_classes], where asked for and there is a head


def encode_dataset(
    encoder: Encoder,
    dataset: Dataset,
    *,
    batch_size: int = 256,
    workers: int | None = None,
    progress: bool | None = None,
    probabilities: bool = False,
) -> Encoded:
    """Encode every item that can be read; the others are in ``skipped`` with the reason.

    ``probabilities`` asks the encoder's head too, if it has one. ``progress`` shows a bar; None
    shows one where standard error is a terminal.
    """
    if dataset.modality != encoder.modality:
        raise EncoderError(
            f"encoder {encoder.name!r} takes {encoder.modality} items but the data set holds "
            f"{dataset.modality} items; open it with modality={encoder.modality!r}"
        )
    refuse_untrained(encoder)
    size = longest_side(encoder)
    vectors, rows = [np.empty((0, encoder.dim), np.float32)], [np.empty(0, np.int64)]
    head = getattr(encoder, "probabilities", None) if probabilities else None
    classes = getattr(encoder, "classes", ())
    shares = [np.empty((0, len(classes)), np.float32)]
    with Loader(
        dataset, encoder.preprocess, batch_size=batch_size, workers=workers, size=size
    ) as loader:
        for loaded in track(loader, len(loader), text="encoding", show=progress):
            vectors.append(as_array(encoder.encode(loaded.batch)))
            rows.append(loaded.rows)
            if head is not None and classes:
                shares.append(as_array(head(loaded.batch)))
        return Encoded(
            np.concatenate(vectors),
            np.concatenate(rows),
            loader.skipped,
            loader.wait_share,
            np.concatenate(shares) if head is not None and classes else None,
        )


def encode_texts(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Texts as vectors [n, dim], by an encoder of texts or one with the capability "text"."""
    listed = as_texts(texts)
    if not knows_words(encoder):
        raise EncoderError(
            f"encoder {encoder.name!r} knows no words; give an encoder of texts, such as 'minilm', "
            "or one with the capability 'text'"
        )
    found = [np.empty((0, encoder.dim), np.float32)]
    for start in range(0, len(listed), _TEXTS):
        part = listed[start : start + _TEXTS]
        if encoder.modality == "text":
            found.append(as_array(encoder.encode(encoder.preprocess(part))))
        else:
            found.append(as_array(cast("TextTower", encoder).encode_text(part)))
    return np.concatenate(found)


def knows_words(encoder: Encoder) -> bool:
    """Whether an encoder answers words."""
    return encoder.modality == "text" or "text" in encoder.capabilities


def refuse_untrained(encoder: Encoder) -> None:
    """An encoder with random weights makes vectors that mean nothing."""
    if getattr(encoder, "is_trained", True) is False:
        raise EncoderError(
            f"encoder {encoder.name!r} is not trained, so its vectors mean nothing; train it "
            "(fr.train or `fastretrieve train`), or take 'pixels' or 'pretrained', which need none"
        )


def as_array(vectors: Any) -> NDArray[np.float32]:
    """What ``encode`` returned, as an array on the CPU."""
    return np.asarray(vectors.detach().cpu() if hasattr(vectors, "detach") else vectors)


def track(steps: Iterable[T], n_steps: int, *, text: str, show: bool | None = None) -> Iterator[T]:
    """The steps, with a progress bar on standard error if that is a terminal."""
    if not (sys.stderr.isatty() if show is None else show):
        yield from steps
        return
    from rich.console import Console
    from rich.progress import track as bar

    console = Console(stderr=True)
    # In a file, the finished bar stays as a line of the log.
    shown = bar(steps, text, total=n_steps, console=console, transient=console.is_terminal)
    yield from shown
