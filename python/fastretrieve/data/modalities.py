"""The registry of modalities: everything that depends on the modality of an item is asked here.

An ``ItemKind`` is one row. To add a modality, add its row to ``KINDS`` and its name to the literal
``Modality``, which type checkers read (and that of ``encoders/protocol.py``, which imports no
reader).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from PIL import Image

from fastretrieve._common.arguments import shown
from fastretrieve.data import samples
from fastretrieve.data.errors import DataError, Skipped
from fastretrieve.data.frames import middle_frame
from fastretrieve.data.images import to_image
from fastretrieve.data.readers import (
    ANIMATION_SUFFIXES,
    ARRAY_SUFFIXES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Box,
    decode_image,
    has_suffix,
    read_sequence,
)
from fastretrieve.data.texts import TEXT_SUFFIXES, read_text, text_picture
from fastretrieve.data.walking import is_file, walk

Modality = Literal["image", "sequence", "text"]
Sides = tuple[int | None, int | None]  # width and height in pixels; None where there are none
_MOVING = ANIMATION_SUFFIXES & {".gif", ".webp"} | VIDEO_SUFFIXES | ARRAY_SUFFIXES


class Decode(Protocol):
    """Reads an item, and finds its width and height. The source is a path, or the open file where
    an item is one file; errors call it ``name``; ``size`` permits a smaller decoding.
    """

    def __call__(
        self,
        source: Path | IO[bytes],
        *,
        name: str | Path,
        size: int | None = None,
        box: Box | None = None,
    ) -> tuple[Any, Sides]: ...


class Find(Protocol):
    """Lists the items below a folder, in order of name."""

    def __call__(self, root: Path, *, recursive: bool, skipped: list[Skipped]) -> Iterator[Path]:
        """Add to ``skipped`` the entries that cannot be looked at."""
        ...


@dataclass(frozen=True)
class ItemKind:
    """How items of one modality are found, read, shown and checked."""

    name: str
    item: str  # an item in a message, with its article
    items: str  # several
    files: str  # the files that hold one, for messages
    suffixes: frozenset[str]  # of a file that is an item by itself
    decode: Decode
    picture: Callable[[Any], Image.Image]  # of an item, for people
    sample: Callable[[Any], samples.Sample]  # small items with labels, to check an encoder with
    find_items: Find | None = None  # None: every file with one of the suffixes is an item
    # Items are pictures: views may change them, and a gallery keeps those without a file as PNG.
    is_picture: bool = False
    has_frames: bool = False  # all frames of a file belong to the item
    stacks_in_npy: bool = False  # an .npy file holds many items, not one
    is_words: bool = False  # an item is a ``str``; its files hold many (textfiles.py)

    @property
    def is_one_file(self) -> bool:
        """Whether an item is always one file, known by its suffix."""
        return self.find_items is None

    def find(self, root: Path, *, recursive: bool, skipped: list[Skipped]) -> Iterator[Path]:
        """The items below a folder, in order of name."""
        if self.find_items is not None:
            yield from self.find_items(root, recursive=recursive, skipped=skipped)
            return
        for _, found in walk(root, recursive=recursive, skipped=skipped):
            for entry in found:
                if has_suffix(entry.name, self.suffixes) and is_file(entry, skipped):
                    yield Path(entry.path)


def kind_of(modality: str) -> ItemKind:
    """The row of a modality; an unknown one is a ``DataError``.

    >>> kind_of("sequence").item
    'a sequence'
    """
    kind = KINDS.get(modality) if isinstance(modality, str) else None
    if kind is None:
        raise DataError(f"modality is one of {', '.join(KINDS)}, got {shown(modality)}")
    return kind


def read_item(
    path: str | Path, *, modality: str = "image", size: int | None = None, box: Box | None = None
) -> Any:
    """Read the item in a file, or in a folder where its modality has such items."""
    return kind_of(modality).decode(Path(path), name=path, size=size, box=box)[0]


def _decode_sequence(
    source: Any, *, name: str | Path, size: int | None = None, box: Box | None = None
) -> tuple[Any, Sides]:
    """A sequence, with the sides of its first frame if it has frames. It knows no boxes."""
    item = read_sequence(source, size=size)
    frame = item[0] if isinstance(item, list) and item else None
    return item, frame.size if isinstance(frame, Image.Image) else (None, None)


def _find_sequences(root: Path, *, recursive: bool, skipped: list[Skipped]) -> Iterator[Path]:
    """Arrays, animations and videos; a folder of plain images, not the root itself, is one item."""
    kinds = _MOVING | IMAGE_SUFFIXES
    for folder, found in walk(root, recursive=recursive, skipped=skipped):
        files = [
            entry.name
            for entry in found
            if has_suffix(entry.name, kinds) and is_file(entry, skipped)
        ]
        whole = [folder / name for name in files if has_suffix(name, _MOVING)]
        yield from whole
        if folder != root and not whole and files:
            yield folder


def _sample_sequences(encoder: Any) -> samples.Sample:
    """An encoder that has ``n_features`` gets sequences of that many."""
    return samples.sample_sequences(n_features=getattr(encoder, "n_features", None) or 6)


KINDS: dict[str, ItemKind] = {
    kind.name: kind
    for kind in (
        ItemKind(
            name="image",
            item="an image",
            items="images",
            files="an image file",
            suffixes=IMAGE_SUFFIXES,
            decode=decode_image,
            picture=to_image,
            sample=lambda encoder: samples.sample_images(),
            is_picture=True,
            stacks_in_npy=True,
        ),
        ItemKind(
            name="sequence",
            item="a sequence",
            items="sequences",
            files=".npy, .gif, a folder of frames",
            suffixes=_MOVING,
            decode=_decode_sequence,
            picture=middle_frame,
            sample=_sample_sequences,
            find_items=_find_sequences,
            has_frames=True,
        ),
        ItemKind(
            name="text",
            item="a text",
            items="texts",
            files=".txt with a text a line; a table with a column of texts",
            suffixes=TEXT_SUFFIXES,
            decode=read_text,
            picture=text_picture,
            sample=lambda encoder: samples.sample_texts(),
            is_words=True,
        ),
    )
}
"""The modalities by name."""
