"""The exceptions of the readers, the record of a skipped item, and how both write names."""

from __future__ import annotations

import os
from typing import Any, NamedTuple


def readable(name: Any) -> str:
    r"""Text that can be printed and stored: bytes that are not UTF-8 are escaped.

    >>> readable("caf\udce9.jpg"), readable("\ud800")
    ('caf\\xe9.jpg', '\\ud800')
    """
    text = str(name)
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        pass
    try:
        return os.fsencode(text).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that no file name brings
        return text.encode("utf-8", "backslashreplace").decode()


class Skipped(NamedTuple):
    """An item that could not be read, and why."""

    key: str
    reason: str


class DataError(ValueError):
    """A data set, or one item of it, cannot be read. The message says which and what to do."""

    def __init__(self, message: object = "") -> None:
        super().__init__(readable(message))


class TooLarge(DataError):
    """An item is larger than its reader takes; this is found before it is decoded."""
