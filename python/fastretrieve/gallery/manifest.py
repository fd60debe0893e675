"""``gallery.json``: what a gallery is. Written once, when it is made.

It carries a checksum of itself, and the hash of the encoder's weights, so that vectors and the
encoder that made them cannot be parted unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastretrieve._common.atomic import replacing
from fastretrieve.gallery.errors import GalleryError

FORMAT = "fastretrieve-gallery"
FORMAT_VERSION = 1
FILE = "gallery.json"


@dataclass(frozen=True)
class Manifest:
    """What does not change while a gallery lives."""

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
        with replacing(folder / FILE) as file:
            file.write(_with_checksum(fields))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and verify; an error names the file and what is wrong with it."""
        path = folder / FILE
        try:
            data = path.read_bytes()
            fields = json.loads(data)
        except (FileNotFoundError, NotADirectoryError):
            raise GalleryError(
                f"{folder} is not a gallery (no {FILE}); make one with Gallery.create or "
                "`fastretrieve index`"
            ) from None
        except (ValueError, OSError) as error:
            raise GalleryError(f"{path} cannot be read: {error}; restore it") from error
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise GalleryError(f"{path} is not the manifest of a gallery")
        version = fields.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
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
        return cls(**{name: fields[name] for name in wanted})


def _with_checksum(fields: dict[str, Any]) -> bytes:
    complete = {**fields, "sha256": _checksum(fields)}
    return json.dumps(complete, indent=2, allow_nan=False).encode() + b"\n"


def _checksum(fields: dict[str, Any]) -> str:
    rest = {name: value for name, value in fields.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
