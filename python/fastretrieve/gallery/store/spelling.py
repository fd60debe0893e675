"""From a text to its words: the same for what is written about items and for what is asked.

A word is a run of letters and digits, without case and accents. Chinese, Japanese, Korean, Thai and
other scripts have no space between words, or join them: each of their characters is a word here,
and what a person calls a word there is some that follow each other. An emoji is a word, too.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote, urlsplit

MAX_TEXT = 100_000  # characters of a text of which words are made
MAX_WORD = 64  # its first characters count
_ASCII = "".join(chr(c) if chr(c).isalnum() else " " for c in range(128)).lower()  # by its code
# Between the words of a name: redBoot, PNGFile, boot01, 4x4.
_SEAMS = re.compile(
    "(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])"
)
_SPACELESS = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF)),  # Thai, Lao, Burmese, Khmer
    *((0x1100, 0x11FF), (0xAC00, 0xD7FF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F)),  # Hangul, Burmese
    *((0x3005, 0x3007), (0x3031, 0x31FF), (0x1AFF0, 0x1B16F)),  # kana, bopomofo
    *((0x3400, 0x4DBF), (0x4E00, 0xA4CF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),  # Han, Yi
)
_OPTIONAL = (  # marks that many writers leave out
    *((0x0300, 0x036F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF)),  # accents
    *((0x0591, 0x05BD), (0x05BF, 0x05C7), (0x0640, 0x0640), (0x064B, 0x065F), (0x0670, 0x0670)),
    *((0x20D0, 0x20FF), (0xFE00, 0xFE0F), (0x1F3FB, 0x1F3FF), (0xE0100, 0xE01EF)),  # of emoji
)


class _Bare(dict[int, str]):
    """What becomes of a character: marks that are optional go."""

    def __missing__(self, code: int) -> str:
        is_left_out = _is_in(code, _OPTIONAL) or unicodedata.category(chr(code)) == "Cf"
        self[code] = "" if is_left_out else chr(code)
        return self[code]


class _Split(dict[int, str]):
    """What becomes of a character: itself, a word of its own, or a space."""

    def __missing__(self, code: int) -> str:
        kind = unicodedata.category(chr(code))
        if kind in ("So", "Cn"):  # "Cn": an emoji that is younger than Python's tables
            self[code] = f" {chr(code)} "
        elif kind[0] in "LMN" or kind == "Co":
            self[code] = f" {chr(code)} " if _is_in(code, _SPACELESS) else chr(code)
        else:
            self[code] = " "
        return self[code]


_BARE, _SPLIT = _Bare(), _Split()


def words(text: str) -> list[str]:
    """The words of a text.

    >>> words("Grüne Stiefel, Größe 38"), words("赤い靴 (red)"), words("don't 👢!")
    (['grune', 'stiefel', 'grosse', '38'], ['赤', 'い', '靴', 'red'], ['don', 't', '👢'])
    """
    text = text[:MAX_TEXT]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _bare(text).casefold())
    found = text.translate(_ASCII if text.isascii() else _SPLIT).split()
    return [word[:MAX_WORD] for word in found] if len(text) > MAX_WORD else found


def words_of_name(name: str) -> list[str]:
    """The words of the name of a file or a class: as it is, and split where words meet.

    >>> words_of_name("red_boot-01.jpg"), words_of_name("redBoot")
    (['red', 'boot', '01', 'jpg'], ['redboot', 'red', 'boot'])
    """
    whole = words(name)
    bare = name if name.isascii() else _bare(name[:MAX_TEXT])
    split = words(_SEAMS.sub(" ", bare))
    return whole if split == whole else whole + split


def file_name(path: str, url: str | None) -> str:
    """The last part of a path or URL; nothing for pictures whose name the gallery has chosen.

    >>> file_name("/p/boot.jpg", None), file_name("pictures/ab/abcd.png", "http://a/red%20boot?x=1")
    ('boot.jpg', 'red boot')
    """
    if url is not None:
        try:
            path = unquote(urlsplit(url).path)
        except ValueError:  # no URL that anybody could fetch
            return ""
    return path.rpartition("/")[2] if path.startswith("/") else ""


def is_spaceless(word: str) -> bool:
    """Whether it is a character of a script that is written without spaces between words.

    >>> is_spaceless("靴"), is_spaceless("boot"), is_spaceless("b")
    (True, False, False)
    """
    return len(word) == 1 and _is_in(ord(word), _SPACELESS)


def _bare(text: str) -> str:
    """Without accents, and without what cannot be seen."""
    return unicodedata.normalize("NFKD", text).translate(_BARE)


def _is_in(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)
