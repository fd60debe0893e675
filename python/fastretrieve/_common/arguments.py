"""Checks of arguments that are no arrays: whole numbers, names and files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

MAX_COUNT = 2**31 - 1  # the core counts results in int32


def whole(value: Any, name: str, *, least: int = 1, most: int = MAX_COUNT) -> int:
    """Return ``value`` as an int, refusing what is not a whole number from ``least`` to ``most``.

    >>> whole(2.0, "k")
    Traceback (most recent call last):
    ...
    TypeError: k must be a whole number, got 2.0
    """
    if type(value) is int and least <= value <= most:
        return value  # the usual case; the rest takes a fiftieth of a small search
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {shown(value)}")
    try:
        number = int(value.__index__())
    except TypeError as error:  # an array of more than one number
        raise TypeError(f"{name} must be a whole number, got {shown(value)}") from error
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    if number > most:
        raise ValueError(f"{name} must be in [{least}, {most}], got {number}")
    return number


def one_of(value: Any, names: Sequence[str], name: str) -> str:
    """Return ``value`` if it is one of some names.

    >>> one_of("l3", ("l2", "ip"), "metric")
    Traceback (most recent call last):
    ...
    ValueError: metric must be l2 or ip, got 'l3'
    """
    if isinstance(value, str) and value in names:
        return value
    listed = f"{', '.join(names[:-1])} or {names[-1]}"
    raise ValueError(f"{name} must be {listed}, got {shown(value)}")


def file_name(value: Any, name: str = "path") -> str:
    """Return the name of a file as text.

    >>> file_name(3)
    Traceback (most recent call last):
    ...
    TypeError: path must be the name of a file, as a str or a Path, got 3
    """
    try:
        return os.fsdecode(value)
    except TypeError as error:
        raise TypeError(
            f"{name} must be the name of a file, as a str or a Path, got {shown(value)}"
        ) from error


def shown(value: object) -> str:
    """The value for a message: its beginning where it is long.

    >>> shown(list(range(100)))
    '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17...'
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= 64 else f"{text[:61]}..."
