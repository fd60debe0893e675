"""Open and read untrusted files: those of a saved encoder, a checkpoint.

No link is followed and no pipe is waited for. Sizes are checked before anything is read, and every
fault is an ``EncoderError`` that names the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fastretrieve._common.needs import MissingPackage
from fastretrieve.encoders.errors import EncoderError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def ordinary_file(path: Path) -> Iterator[IO[bytes]]:
    """The file, open for reading, if it is one; a file that is not there is FileNotFoundError."""
    if fault := kind_fault(path):
        raise EncoderError(fault)
    try:
        handle = os.open(path, _FLAGS)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EncoderError(f"{path} cannot be read ({error.strerror}); restore it") from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):  # it was replaced since
            raise EncoderError(f"{path} is no ordinary file; restore it")
        try:
            yield file
        except OSError as error:
            raise EncoderError(f"{path} cannot be read ({error.strerror}); restore it") from error


def kind_fault(path: Path) -> str:
    """Why it is no file to read or to replace; "" where it is one, or is not there."""
    try:
        kind = stat.S_IFMT(os.lstat(path).st_mode)
    except OSError:
        return ""  # opening it says why
    if kind == stat.S_IFREG:
        return ""
    return (
        f"{path} is {_KINDS.get(kind, 'something else')} where a file belongs (links are not "
        "followed: a directory from elsewhere could lead anywhere); put the file itself there"
    )


def read_object(path: Path, data: bytes) -> dict[str, Any]:
    """A JSON object: UTF-8, no name twice, no NaN, no nesting without end."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise EncoderError(f"{path} cannot be read ({brief(error)}); restore it") from error
    if not isinstance(value, dict):
        raise EncoderError(f"{path} holds JSON but no object, {type(value).__name__}; restore it")
    return value


@contextlib.contextmanager
def naming(where: Path, user: str) -> Iterator[None]:
    """Turn whatever untrusted values make ``user`` raise into an error that names the file."""
    try:
        yield
    except (EncoderError, MissingPackage):
        raise
    except Exception as error:  # bad options can make a constructor raise anything
        raise EncoderError(
            f"{where} does not fit {user}: {brief(error)}; it was saved by another version or "
            "another encoder, or is damaged, so load it with the one that saved it"
        ) from error


def brief(error: BaseException) -> str:
    """An error in one line of limited length.

    >>> brief(KeyError("dim")), brief(ValueError("x" * 1000))[-3:]
    ("KeyError: 'dim'", '...')
    """
    try:
        text = printable(" ".join(str(error).split()))
    except RecursionError:
        text = ""
    is_plain = isinstance(error, (ValueError, TypeError, RuntimeError)) and text
    text = text if is_plain else f"{type(error).__name__}: {text}".rstrip(": ")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def printable(text: str) -> str:
    r"""Untrusted text for a terminal: control characters and unprintable ones are escaped.

    >>> printable("a\x1b[2J\ud800")
    'a\\x1b[2J\\ud800'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


_LONGEST = 400  # characters of an error that are worth reading


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has one name twice")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
