"""``gallery.json``: what a gallery is. Written when it is made, and when its encoder is fitted.

It carries a checksum of itself, and the hash of the encoder's weights, so that vectors and the
encoder that made them cannot be parted unnoticed. Whoever changes it can change the checksum too,
so every value is checked as well.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastretrieve import _core
from fastretrieve._common.arguments import shown
from fastretrieve._common.arrays import DTYPES
from fastretrieve._common.atomic import replacing
from fastretrieve._common.metric import METRICS
from fastretrieve.data.modalities import KINDS
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.store import parts

FORMAT = "fastretrieve-gallery"
FORMAT_VERSION = 1
FILE = parts.MANIFEST
MAX_BYTES = 1_000_000  # of the file; ours have 500


@dataclass(frozen=True)
class Manifest:
    """What does not change while a gallery holds vectors."""

    encoder: str  # its name
    weights_sha256: str
    dim: int
    modality: str
    metric: str
    dtype: str
    made_by: str  # the version of fastretrieve
    format_version: int = FORMAT_VERSION

    def write(self, folder: Path) -> None:
        fields = {"format": FORMAT, **asdict(self)}
        with replacing(parts.file(folder / FILE)) as file:
            file.write(_with_checksum(fields))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and verify; an error names the file and what is wrong with it."""
        path = folder / FILE
        fields = _parsed(path)
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise GalleryError(f"{path} is not the manifest of a gallery")
        version = fields.get("format_version")
        is_newer = type(version) is int and version > FORMAT_VERSION
        if not is_newer and any(isinstance(value, (dict, list)) for value in fields.values()):
            raise GalleryError(f"{path} holds lists, which no manifest does; restore it")
        if type(version) is not int or version < 1:
            raise GalleryError(
                f"{path} has format version {shown(version)}, which is none: the first is 1; "
                "restore it"
            )
        if is_newer:
            raise GalleryError(
                f"{path} has format version {version}, this fastretrieve reads up to "
                f"{FORMAT_VERSION}; upgrade fastretrieve"
            )
        if _checksum(fields) != fields.get("sha256"):
            raise GalleryError(
                f"{path} is damaged: its checksum does not fit its content; restore it"
            )
        wanted = set(cls.__dataclass_fields__)
        if missing := wanted - set(fields):
            raise GalleryError(f"{path} lacks {sorted(missing)}; restore it")
        for name, (rule, is_good) in _RULES.items():
            if not is_good(fields[name]):
                raise GalleryError(
                    f"{path} says {name} is {shown(fields[name])}, but it is {rule}; restore it"
                )
        return cls(**{name: fields[name] for name in wanted})


def _parsed(path: Path) -> Any:
    try:
        with parts.opened(path) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise GalleryError(
                f"{path} has more than {MAX_BYTES} bytes and is no manifest; restore it"
            )
        return json.loads(data, parse_constant=_refuse_constant)
    except (FileNotFoundError, NotADirectoryError):
        raise GalleryError(
            f"{path.parent} is not a gallery (no {FILE}); make one with Gallery.create or "
            "`fastretrieve index`"
        ) from None
    except RecursionError:
        raise GalleryError(f"{path} cannot be read: it is nested too deep; restore it") from None
    except (ValueError, OSError) as error:
        raise GalleryError(f"{path} cannot be read: {error}; restore it") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _is_name(value: Any) -> bool:
    """Whether it may be printed: a name holds no control characters and no half characters."""
    return isinstance(value, str) and 0 < len(value) <= 1000 and value.isprintable()


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _one_of(names: Collection[str]) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names


_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "encoder": ("a name", _is_name),
    "weights_sha256": ("a SHA-256 in hexadecimal", _is_sha256),
    "dim": (
        f"a whole number from 1 to {_core.MAX_DIM}",
        lambda value: type(value) is int and 1 <= value <= _core.MAX_DIM,
    ),
    "modality": _one_of(KINDS),
    "metric": _one_of(METRICS),
    "dtype": _one_of(tuple(DTYPES)),
    "made_by": ("a version", _is_name),
}


def _with_checksum(fields: dict[str, Any]) -> bytes:
    complete = {**fields, "sha256": _checksum(fields)}
    return json.dumps(complete, indent=2, allow_nan=False).encode() + b"\n"


def _checksum(fields: dict[str, Any]) -> str:
    rest = {name: value for name, value in fields.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
