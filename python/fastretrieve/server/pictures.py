"""Open uploads and files of the gallery within the limits of the page.

The one place of the server that decodes pictures: only formats that we mean, and pixels are counted
before they are decoded, those of all frames together where all are decoded.
"""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import IO

from PIL import Image

from fastretrieve.data import DataError, read_item
from fastretrieve.data.arrays import map_array
from fastretrieve.data.errors import TooLarge
from fastretrieve.data.frames import frame_numbers
from fastretrieve.data.modalities import kind_of
from fastretrieve.data.opening import FORMATS, UPLOAD_FORMATS, open_file, open_picture
from fastretrieve.data.pictures import picture_of
from fastretrieve.data.readers import (
    ARRAY_SUFFIXES,
    VIDEO_SUFFIXES,
    Box,
    list_images,
    read_sequence,
)
from fastretrieve.gallery.lookup.pictures import jpeg
from fastretrieve.server.limits import Refused

_BYTES_A_PIXEL = 8  # the most that a file needs; larger ones hold something else


def check_upload(data: bytes, *, limit: int, modality: str) -> str:
    """The format, found by content, of bytes that are safe to decode."""
    if kind_of(modality).is_words:
        raise Refused(415, "this gallery holds texts; search it with words, not with a file")
    try:
        kind, n_frames, (width, height) = _looked_at(
            io.BytesIO(data), formats=UPLOAD_FORMATS, all_frames=kind_of(modality).has_frames
        )
    except TooLarge:
        raise Refused(413, "the image is too large") from None
    except DataError:
        known = ", ".join(UPLOAD_FORMATS)
        raise Refused(415, f"this is no image, or a damaged one; known are {known}") from None
    if width * height * n_frames > limit:
        times = f" in {n_frames} frames" if n_frames > 1 else ""
        raise Refused(413, f"the image has {width} x {height} pixels{times}, at most {limit} go")
    return kind


def small_picture(path: Path, *, modality: str, box: Box | None, size: int, limit: int) -> bytes:
    """A new JPEG of the item in a file; ``Refused`` says why there is none."""
    if not (path.is_file() or path.is_dir()):  # a pipe would be waited for
        raise Refused(404, "its file is gone")
    try:
        kind = kind_of(modality)
        if kind.has_frames:
            image = _of_sequence(path, size=size, limit=limit)
        else:
            if kind.is_picture:
                _refuse_pixels(_pixels(path, limit=limit), limit)
            item = read_item(path, modality=modality, size=size, box=box)
            image = picture_of(item, modality=modality)
    except TooLarge:
        raise Refused(
            404, f"its file is too large for a picture: more than {limit} pixels"
        ) from None
    except (DataError, ValueError, OSError):
        raise Refused(404, "its file cannot be read") from None
    if max(image.size) <= size // 4:  # a small picture keeps its sharp pixels
        factor = size // 2 // max(image.size)
        image = image.resize(
            (image.width * factor, image.height * factor), Image.Resampling.NEAREST
        )
    image.thumbnail((size, size))
    return jpeg(image)


def as_text(picture: Image.Image) -> str:
    """A picture as JSON can hold it: a JPEG in base64."""
    return base64.b64encode(jpeg(picture)).decode()


def check_file(path: Path, *, limit: int) -> None:
    """``Refused`` unless the picture in a file may be decoded."""
    if not path.is_file():
        raise Refused(404, "its file is gone")
    try:
        _refuse_pixels(_pixels(path, limit=limit), limit)
    except TooLarge:
        raise Refused(404, f"its file is too large: more than {limit} pixels") from None
    except (DataError, ValueError, OSError):
        raise Refused(404, "its file cannot be read") from None


def _of_sequence(path: Path, *, size: int, limit: int) -> Image.Image:
    """The middle frame, or numbers as shades."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:  # its frames are large, and three of them have a middle one
        return picture_of(read_sequence(path, max_frames=3), modality="sequence")
    if path.is_dir():
        frames = list(list_images(path))
        chosen = [frames[i] for i in frame_numbers(len(frames))]
        n_pixels = sum(_pixels(each, limit=limit) for each in chosen)
    elif suffix in ARRAY_SUFFIXES:
        n_pixels = map_array(path).size
    else:
        n_pixels = _pixels(path, limit=limit, all_frames=True)
    _refuse_pixels(n_pixels, limit)
    return picture_of(read_item(path, modality="sequence", size=size), modality="sequence")


def _pixels(path: Path, *, limit: int, all_frames: bool = False) -> int:
    """How many pixels reading a file decodes."""
    with open_file(path) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if n_bytes > limit * _BYTES_A_PIXEL:
            raise Refused(404, f"its file is too large for a picture: {n_bytes} bytes")
        _, n_frames, (width, height) = _looked_at(file, formats=FORMATS, all_frames=all_frames)
    return n_frames * width * height


def _looked_at(
    file: IO[bytes], *, formats: tuple[str, ...], all_frames: bool
) -> tuple[str, int, tuple[int, int]]:
    with open_picture(file, name="the image", formats=formats) as image:
        n_frames = getattr(image, "n_frames", 1) if all_frames else 1
        return image.format or "", n_frames, image.size


def _refuse_pixels(n_pixels: int, limit: int) -> None:
    if n_pixels > limit:
        raise Refused(
            404, f"its file is too large for a picture: {n_pixels} pixels, at most {limit} go"
        )
