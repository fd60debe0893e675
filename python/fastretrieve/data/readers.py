"""Read one item from one file: an image, or a sequence of frames.

Every fault of a file becomes a ``DataError`` with the reason, so that a loader can skip, count and
list it. Pillow decodes, through ``opening.py``; a JPEG is decoded at a reduced size
where that is enough. The frames of a sequence are made by ``frames.py``, arrays by ``arrays.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from PIL import Image

from fastretrieve.data.arrays import read_array
from fastretrieve.data.errors import DataError
from fastretrieve.data.frames import MAX_FRAMES, PixelBudget, animation, fitted, frame_numbers
from fastretrieve.data.images import to_image
from fastretrieve.data.opening import open_picture

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".avif", ".jp2", ".ico", ".tga",
})
# fmt: on
ANIMATION_SUFFIXES = frozenset({".gif", ".webp", ".png", ".apng", ".tif", ".tiff", ".avif"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg"})
ARRAY_SUFFIXES = frozenset({".npy"})

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
    with open_picture(source, name=name) as image:
        width, height = image.size
        if size is not None and box is None:
            image.draft(None, (2 * size, 2 * size))
        image.load()
        turned = image.getexif().get(_ORIENTATION, 1) >= 5
        upright = to_image(image)
    if box is not None:
        upright = _crop(upright, box, name)
        return upright, upright.size
    return upright, (height, width) if turned else (width, height)


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
        return read_array(path)
    if suffix in VIDEO_SUFFIXES:
        from fastretrieve.data.video import read_video

        return read_video(path, size=size, max_frames=max_frames)
    return _read_animation(path, max_frames=max_frames)


def list_images(folder: Path) -> Iterator[Path]:
    """The image files directly inside a folder, sorted; hidden files are left out."""
    for path in sorted(folder.iterdir()):
        if is_image(path):
            yield path


def has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    """Whether a file's name ends so."""
    # Without a dot this is the last letter, which is no suffix; splitext takes longer.
    return name[name.rfind(".") :].lower() in suffixes


def is_image(path: Path) -> bool:
    """Whether a file has the name of an image; what cannot be looked at is none."""
    if not has_suffix(path.name, IMAGE_SUFFIXES) or path.name.startswith("."):
        return False
    try:
        return path.is_file()
    except OSError:
        return False


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
    try:
        paths = list(list_images(folder))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from error
    if not paths:
        raise DataError(f"{folder}: no frames; a frame folder holds image files")
    budget, numbers = PixelBudget(folder), frame_numbers(len(paths), max_frames)
    frames = []
    for number in numbers:
        frame = read_image(paths[number], size=size)
        frames.append(fitted(frame, n_frames=len(numbers), size=size))
        budget.keep(frames[-1].size)
    return frames


def _read_animation(path: Path, *, max_frames: int) -> list[Image.Image]:
    with open_picture(path) as image:
        wanted = frame_numbers(getattr(image, "n_frames", 1), max_frames)
        return animation(image, wanted, path)
