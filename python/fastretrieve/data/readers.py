"""Read one item from one file: an image, or a sequence of frames.

Every way in which a file can be bad becomes a ``DataError`` with the reason, so that a loader can
skip, count and list it. Pillow decodes; a JPEG is decoded at a reduced size where that is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageSequence, UnidentifiedImageError

from fastretrieve.data.errors import DataError
from fastretrieve.encoders.images import to_image

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".avif", ".jp2", ".ico", ".tga",
})
# fmt: on
ANIMATION_SUFFIXES = frozenset({".gif", ".webp", ".png", ".apng", ".tif", ".tiff", ".avif"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg"})
ARRAY_SUFFIXES = frozenset({".npy"})
MAX_FRAMES = 64  # of an animation, video or frame folder, spread evenly over its length

_ORIENTATION = 0x0112  # the EXIF tag; from 5 on width and height change places

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


def read_image(path: str | Path, *, size: int | None = None, box: Box | None = None) -> Image.Image:
    """Read an upright image in mode "L" or "RGB"; of an animation, the first frame.

    ``size`` is the side that the image will be resized to: it permits decoding a JPEG at a
    reduced size, never below twice that. ``box`` crops (left, top, right, bottom).
    """
    return decode_image(path, name=path, size=size, box=box)[0]


def decode_image(
    source: str | Path | IO[bytes],
    *,
    name: str | Path,
    size: int | None = None,
    box: Box | None = None,
) -> tuple[Image.Image, tuple[int, int]]:
    """An image as ``read_image`` gives it, from a path or an open file, and the width and height
    that it has upright and not reduced. ``name`` is what errors call it.
    """
    try:
        with Image.open(source) as image:
            width, height = image.size
            if size is not None and box is None:
                image.draft(None, (2 * size, 2 * size))
            image.load()
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
            upright = to_image(image)
    except UnidentifiedImageError as error:  # whose text only names the file again
        raise DataError(f"{name}: not a readable image") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: not a readable image: {error}") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError) as error:
        # What Pillow's decoders raise on damaged files, by way of its own fuzzers.
        raise DataError(f"{name}: {type(error).__name__}: {error}") from error
    if box is not None:
        upright = _crop(upright, box, name)
        return upright, upright.size
    return upright, (height, width) if turned else (width, height)


def read_item(
    path: str | Path, *, modality: str = "image", size: int | None = None, box: Box | None = None
) -> Any:
    """Read a file, or a folder of frames, as an image or as a sequence."""
    return (
        read_sequence(path, size=size)
        if modality == "sequence"
        else read_image(path, size=size, box=box)
    )


def read_sequence(
    path: str | Path, *, size: int | None = None, max_frames: int = MAX_FRAMES
) -> Any:
    """Read a sequence: an array [t, ...] from .npy, else a list of frames.

    Frames come from a folder of images, an animation (GIF, WebP, APNG), a video (by the extra
    ``fastretrieve[video]``), or a single image.
    """
    path = Path(path)
    if path.is_dir():
        return _read_frame_folder(path, size=size, max_frames=max_frames)
    suffix = path.suffix.lower()
    if suffix in ARRAY_SUFFIXES:
        return _read_array(path)
    if suffix in VIDEO_SUFFIXES:
        from fastretrieve.data.video import read_video

        return read_video(path, max_frames=max_frames)
    return _read_animation(path, max_frames=max_frames)


def frame_numbers(n_frames: int, max_frames: int = MAX_FRAMES) -> list[int]:
    """At most ``max_frames`` frame numbers, spread evenly, the first and last among them.

    >>> frame_numbers(9, 5)
    [0, 2, 4, 6, 8]
    """
    if n_frames <= max_frames:
        return list(range(n_frames))
    return [int(i) for i in np.linspace(0, n_frames - 1, max_frames).round()]


def list_images(folder: Path) -> Iterator[Path]:
    """The image files directly inside a folder, sorted; hidden files are left out."""
    for path in sorted(folder.iterdir()):
        if is_image(path):
            yield path


def is_image(path: Path) -> bool:
    return (
        path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _crop(image: Image.Image, box: Box, path: str | Path) -> Image.Image:
    left, top = max(round(box[0]), 0), max(round(box[1]), 0)
    right, bottom = min(round(box[2]), image.width), min(round(box[3]), image.height)
    if right <= left or bottom <= top:
        raise DataError(
            f"{path}: box (left, top, right, bottom) = {box} holds no pixel of an image of "
            f"{image.width} x {image.height}"
        )
    return image.crop((left, top, right, bottom))


def _read_frame_folder(folder: Path, *, size: int | None, max_frames: int) -> list[Image.Image]:
    paths = list(list_images(folder))
    if not paths:
        raise DataError(f"{folder}: no frames; a frame folder holds image files")
    return [read_image(paths[i], size=size) for i in frame_numbers(len(paths), max_frames)]


def _read_array(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a readable array: {error}") from error


def _read_animation(path: Path, *, max_frames: int) -> list[Image.Image]:
    try:
        with Image.open(path) as image:
            wanted = set(frame_numbers(getattr(image, "n_frames", 1), max_frames))
            return [
                to_image(frame.copy())
                for i, frame in enumerate(ImageSequence.Iterator(image))
                if i in wanted
            ]
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable animation: {error}") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError) as error:
        raise DataError(f"{path}: {type(error).__name__}: {error}") from error
