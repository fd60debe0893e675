"""Encoders from a file, ``./my.py:MyEncoder``, for one-offs that no package is worth.

The file becomes a module below this one whose name holds its path. So a worker process that is sent
such an encoder imports this module, and with it the finder that reads the path from the name.

A path in a name is no licence to run it: the finder knows the files that this process has named
itself, and in a worker process what its parent sends, which has named them.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import multiprocessing
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from fastretrieve._common.needs import sentence
from fastretrieve.encoders.errors import EncoderError

__path__: list[str] = []  # makes this module a package for the import system
_named: set[str] = set()  # what class_from_file was asked for, as the last part of a module's name


class _Finder:
    """Finds the modules below this one, and no others."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent, _, encoded = name.rpartition(".")
        if parent != __name__ or not (encoded in _named or _is_sent_by_parent()):
            return None
        return importlib.util.spec_from_file_location(name, _decoded(encoded))


def class_from_file(path: Path, attribute: str) -> Any:
    """Run the file, once for each process, and return one of its classes."""
    if not path.is_file():
        raise EncoderError(f"{path} does not exist; the form is ./my.py:MyEncoder")
    encoded = _encoded(path.resolve())
    _named.add(encoded)
    name = f"{__name__}.{encoded}"
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever a file does when it runs
        if isinstance(error, ImportError) and (told := sentence(error, what=str(path))):
            raise EncoderError(told) from error
        raise EncoderError(f"{path} fails when run: {type(error).__name__}: {error}") from error
    found = getattr(module, attribute, None)
    if found is None:
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise EncoderError(f"{path} has no {attribute!r}; its classes are {classes}")
    return found


def named_files() -> list[str]:
    """What this process has named, for a worker process of ours: ``also_named`` takes it."""
    return sorted(_named)


def also_named(files: Sequence[str]) -> None:
    """Take over what the parent process has named."""
    _named.update(files)


def _is_sent_by_parent() -> bool:
    """Whether this is a process of multiprocessing: it exists to run what its parent sends."""
    starting = getattr(multiprocessing.current_process(), "_inheriting", False)
    return starting or multiprocessing.parent_process() is not None


def _encoded(path: Path) -> str:
    return path.stem + "_" + base64.b32encode(str(path).encode()).decode().rstrip("=")


def _decoded(encoded: str) -> str:
    text = encoded.rpartition("_")[2]
    return base64.b32decode(text + "=" * (-len(text) % 8)).decode()


sys.meta_path.append(_Finder)
