"""A text as an item: what one may be, reading one from a file, and its picture for people.

An item is a ``str``. Files that hold many texts, one a line or one a row, are opened by
``textfiles.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageDraw, ImageFont

from fastretrieve._common.arguments import shown
from fastretrieve.data.errors import DataError, TooLarge, readable
from fastretrieve.data.opening import open_file

TEXT_SUFFIXES = frozenset({".txt"})
MAX_TEXT = 1 << 16  # characters of one text
_COLUMNS = ("text", "caption")  # where a table has its texts, unless the caller says
_SIDE, _MARGIN = 320, 16  # pixels of a text's picture
_ROOM = 0.97 * (_SIDE - 2 * _MARGIN)  # letters of other sizes are not quite as wide in proportion
_DRAWN = 2000  # characters that may fit
_SIZES = (32, 26, 21, 17, 14, 12)  # of its letters
_PAPER, _INK = "#ffffff", "#1f2328"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def fault_of(text: Any) -> str:
    """Why something cannot be an item; "" where it can.

    >>> fault_of("a red boot"), fault_of(" "), fault_of("\\ud800")
    ('', 'it is empty', 'it holds half a surrogate pair, which no text can')
    """
    if text is None:
        return "it is empty"
    if not isinstance(text, str):
        return f"a text is a str, got {type(text).__name__}"
    if len(text) > MAX_TEXT:
        return f"a text of {len(text):,} characters, at most {MAX_TEXT:,} go"
    if not text or text.isspace():
        return "it is empty"
    if "\0" in text:
        return "it holds a NUL byte"
    return "" if is_unicode(text) else "it holds half a surrogate pair, which no text can"


def checked_text(text: Any, *, name: str) -> str:
    """The text, if it can be an item; errors call it ``name``."""
    if fault := fault_of(text):
        raise DataError(f"{name}: {fault}")
    return str(text)


def is_unicode(text: str) -> bool:
    """Whether it can be written down: half a surrogate pair cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_texts(items: Any) -> list[str]:
    """The texts that an encoder is given; a ``TypeError`` or ``ValueError`` says what is wrong.

    >>> as_texts(["a red boot", ""])
    ['a red boot', '']
    >>> as_texts("a red boot")
    Traceback (most recent call last):
    TypeError: texts come as a list of str, got one str; give ['a red boot']
    """
    if isinstance(items, str):
        raise TypeError(f"texts come as a list of str, got one str; give [{shown(items)}]")
    texts = list(items)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"a text is a str, got {type(text).__name__} as text {i}")
        if not is_unicode(text):
            raise ValueError(f"text {i} holds half a surrogate pair, which no text can")
    return texts


def read_text(
    source: Path | IO[bytes], *, name: str | Path, size: int | None = None, box: Any = None
) -> tuple[str, tuple[None, None]]:
    """The whole of a file of UTF-8 as one text. It has no sides, no smaller decoding, no boxes."""
    if isinstance(source, Path):
        with open_file(source) as file:
            return read_text(file, name=name)
    data = source.read(4 * MAX_TEXT + 4)  # a character takes at most four bytes; the mark three
    if len(data) > 4 * MAX_TEXT + 3:
        raise TooLarge(f"{name}: a text of more than {MAX_TEXT:,} characters")
    if data.startswith(UTF_16):
        raise DataError(f"{name}: text in UTF-16; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 (byte {error.start})") from error
    return checked_text(text, name=str(name)), (None, None)


def text_column(path: Path, names: Sequence[str], wanted: str | None) -> str:
    """The column of a table that holds its texts."""
    if wanted is not None and wanted in names:
        return wanted
    if wanted is None:
        for name in _COLUMNS:
            if name in names:
                return name
    listed = [readable(name)[:80] for name in names][:20]
    asked = f"{wanted!r}" if wanted is not None else " or ".join(map(repr, _COLUMNS))
    raise DataError(
        f"{path} has no column of text called {asked}; its columns are {listed}: name the one with "
        "the texts, text_column=..., or --text-column"
    )


def text_picture(text: Any) -> Image.Image:
    """The words, wrapped, in the largest letters with which all fit; else their beginning.

    Pillow's own font has Latin letters; it draws a box for others.

    >>> text_picture("a red boot").size
    (320, 320)
    """
    (text,) = as_texts([text])
    picture = Image.new("RGB", (_SIDE, _SIDE), _PAPER)
    pen = ImageDraw.Draw(picture)
    smallest = ImageFont.load_default(_SIZES[-1])
    words = "".join(c if c.isprintable() else " " for c in text[:_DRAWN]).split()
    widths = [pen.textlength(f"{word} ", smallest) for word in words]
    for size in _SIZES:
        n_lines = int(_ROOM / (1.25 * size))
        lines = _wrapped(words, widths, _ROOM * _SIZES[-1] / size)
        if len(lines) <= n_lines:
            break
    if len(lines) > n_lines or len(text) > _DRAWN:
        lines = [*lines[: n_lines - 1], f"{lines[n_lines - 1][:-2]} …"]
    font = ImageFont.load_default(size)
    for i, line in enumerate(lines):
        pen.text((_MARGIN, _MARGIN + int(1.25 * size * i)), line, _INK, font)
    return picture


def _wrapped(words: Sequence[str], widths: Sequence[float], room: float) -> list[str]:
    """Lines that fit into the room; a word that is too long is cut."""
    lines: list[str] = []
    left = 0.0  # room in the last line
    for word, width in zip(words, widths, strict=True):
        if width <= left:
            lines[-1] += f" {word}"
            left -= width
            continue
        step = max(int(len(word) * room / width), 1)
        lines += [word[i : i + step] for i in range(0, len(word), step)]
        left = room - width * len(lines[-1]) / len(word)
    return lines
