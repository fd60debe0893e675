"""Open untrusted files: the allowed formats, kinds of file and sizes.

``open_picture`` is the package's only call of ``Image.open``. It allows the formats in ``FORMATS``,
checks sizes before it decodes pixels, and turns every fault of a decoder into a ``DataError``.
``open_file`` opens regular files only: a pipe or a device could block a reader.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from PIL import Image, UnidentifiedImageError

from fastretrieve.data.errors import DataError, TooLarge

_PLUGINS = {
    "JPEG": "Jpeg",  # and MPO, which Pillow finds inside it
    "PNG": "Png",
    "WEBP": "WebP",
    "GIF": "Gif",
    "BMP": "Bmp",
    "TIFF": "Tiff",
    "AVIF": "Avif",  # where Pillow has it
    "PPM": "Ppm",
    "JPEG2000": "Jpeg2K",
    "ICO": "Ico",
    "TGA": "Tga",  # last: the format has no signature
}
for _name in _PLUGINS.values():
    with contextlib.suppress(ImportError):
        importlib.import_module(f"PIL.{_name}ImagePlugin")

FORMATS = tuple(name for name in _PLUGINS if name in Image.OPEN)  # in files and downloads
PAGED = ("TIFF", "MPO")  # whose frames stand alone
UPLOAD_FORMATS = tuple(name for name in FORMATS if name in (*_PLUGINS,)[:7])  # in uploads

Picture = str | os.PathLike[str] | IO[bytes]


@contextlib.contextmanager
def open_picture(
    source: Picture,
    *,
    name: Any = None,
    formats: Sequence[str] = FORMATS,
    max_pixels: int | None = None,
) -> Iterator[Image.Image]:
    """An open picture of an allowed size, before its pixels are decoded.

    Whatever a decoder raises inside the ``with`` comes out as a ``DataError`` that begins with
    ``name``. ``max_pixels`` counts width times height; None is twice ``Image.MAX_IMAGE_PIXELS``,
    at which Pillow raises.
    """
    called = source if name is None else name
    with contextlib.ExitStack() as stack:
        is_path = isinstance(source, (str, os.PathLike))
        file: Any = stack.enter_context(open_file(source)) if is_path else source  # type: ignore[arg-type]
        limit = pixel_limit(max_pixels)
        try:
            _refuse_large_icon(file, called, limit)
            with Image.open(file, formats=tuple(formats)) as image:
                refuse_pixels(called, _area(image), limit)
                yield image
        except DataError:
            raise
        except UnidentifiedImageError as error:  # whose text only names the file again
            raise DataError(f"{called}: not a readable image") from error
        except Image.DecompressionBombError as error:
            raise TooLarge(f"{called}: not a readable image: {error}") from error
        except Exception as error:  # a damaged file makes a decoder raise anything at all
            kind = type(error).__name__
            raise DataError(f"{called}: a damaged image ({kind}: {error})") from error


def pixel_limit(max_pixels: int | None = None) -> int | None:
    """The largest number of pixels; None if ``Image.MAX_IMAGE_PIXELS`` is None."""
    general = None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS
    given = [each for each in (general, max_pixels) if each is not None]
    return min(given, default=None)


def refuse_pixels(name: Any, n_pixels: int, limit: int | None, what: str = "") -> None:
    """Raise if there are more pixels than the limit."""
    if limit is not None and n_pixels > limit:
        raise TooLarge(f"{name}: {n_pixels:,} pixels{what}, at most {limit:,} go")


def _area(image: Image.Image) -> int:
    """Pixels to decode: the tile of a TIFF may be larger than the picture."""
    tags: Any = getattr(image, "tag_v2", None)
    tile = 1
    for number in (322, 323) if tags else ():  # TileWidth, TileLength
        value = tags.get(number, 1)
        tile *= value if isinstance(value, int) else 1
    return max(image.width * image.height, tile)


def _refuse_large_icon(file: IO[bytes], name: Any, limit: int | None) -> None:
    """Raise where an icon holds a large picture: Pillow decodes an icon when it opens it."""
    file.seek(0)
    head = file.read(6)
    if head[:4] == b"\0\0\1\0":
        entries = file.read(16 * int.from_bytes(head[4:], "little"))
        for at in range(0, len(entries), 16):
            file.seek(int.from_bytes(entries[at + 12 : at + 16], "little"))
            inner = file.read(24)
            is_png = inner[:8] == b"\x89PNG\r\n\x1a\n"
            sides = (inner[16:20], inner[20:24]) if is_png else (inner[4:8], inner[8:12])
            order: Any = "big" if is_png else "little"
            width, height = (abs(int.from_bytes(side, order, signed=True)) for side in sides)
            refuse_pixels(name, width * height, limit)
    file.seek(0)


def open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file to read it; a pipe, a device, a socket or a folder is a ``DataError``.

    It never blocks: a pipe is not opened, and one that replaces the file meanwhile is opened
    without waiting for its other end.
    """
    try:
        _refuse_other_kinds(path, os.stat(path).st_mode)
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _refuse_other_kinds(path, os.fstat(number).st_mode)
            return os.fdopen(number, "rb")
        except BaseException:
            os.close(number)
            raise
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _refuse_other_kinds(path: Any, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {
        stat.S_ISDIR: "a folder",
        stat.S_ISFIFO: "a pipe",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    kind = next((text for test, text in kinds.items() if test(mode)), "something else")
    raise DataError(f"{Path(path)}: {kind}, not a file")
