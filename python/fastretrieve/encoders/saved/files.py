"""An encoder on disk: ``config.json`` and ``weights.safetensors`` in one directory.

The config is JSON and the weights are safetensors, so reading them executes nothing. Each file is
written beside its final name and renamed; the config carries the SHA-256 of the weights, so a pair
that does not belong together is refused. The file names the encoder, never code to run:
``registry.plugin_class`` looks the name up among the installed plugins. ``opening.py`` opens the
files, ``weights.py`` looks at the tensors before they are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.atomic import replacing
from fastretrieve._common.needs import wanting
from fastretrieve.encoders.discovery import provider
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.saved.opening import (
    kind_fault,
    naming,
    ordinary_file,
    printable,
    read_object,
)
from fastretrieve.encoders.saved.weights import Entry, read_entries

FORMAT = "fastretrieve-encoder"
FORMAT_VERSION = 1
CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
MAX_CONFIG_BYTES = 8 << 20  # the names of 100,000 classes are half of it
_HEX = re.compile(r"[0-9a-f]{64}")
# A name from data may be an entry point's, alone or after its distribution's.
_NAME = re.compile(
    r"(?:(?P<distribution>[A-Za-z0-9][A-Za-z0-9._-]{0,99}):)?[A-Za-z0-9_][\w. -]{0,99}"
)


class SavedEncoder(NamedTuple):
    """A saved encoder, as ``write_encoder`` wrote it."""

    encoder: str  # the name in the registry, or "distribution:name"
    config: dict[str, Any]  # keyword arguments of the class
    trained: bool
    extra: dict[str, Any]  # whatever else the encoder keeps
    provider: str  # "distribution version" that had the encoder, "" where none did
    weights_sha256: str
    directory: Path

    @property
    def fitted_to(self) -> int | None:
        """How many items it was fitted to, 0 if it still may be; None where it says nothing."""
        found = self.extra.get("fitted_to")
        return found if type(found) is int and 0 <= found < 1 << 48 else None

    def faults(self) -> list[str]:
        """The faults of a directory whose checksum fits, in its name and its tensors."""
        found = []
        if fault := name_fault(self.encoder):
            found.append(f"{self.directory / CONFIG}: {fault}")
        try:
            self.entries()
        except EncoderError as error:
            found.append(str(error))
        return found

    def entries(self) -> dict[str, Entry]:
        """Dtype and shape of each tensor, from the header alone."""
        return read_entries(self._weights)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The weights as NumPy arrays (for encoders without torch)."""
        self.entries()
        with wanting("networks", "reading weights"), naming(self._weights, "safetensors"):
            from safetensors.numpy import load_file

            found = load_file(self._weights)
        self._refuse_nan(n for n, a in found.items() if a.dtype.kind in "fc" and np.isnan(a).any())
        return found

    def tensors(self, *, device: str = "cpu") -> dict[str, Any]:
        """The weights as torch tensors."""
        self.entries()
        with wanting("networks", "reading weights"), naming(self._weights, "safetensors"):
            from safetensors.torch import load_file

            found = load_file(self._weights, device=str(device))
        self._refuse_nan(n for n, t in found.items() if _may_be_nan(t) and bool(t.isnan().any()))
        return found

    @property
    def _weights(self) -> Path:
        return self.directory / WEIGHTS

    def _refuse_nan(self, names: Iterable[str]) -> None:
        for name in names:
            raise EncoderError(
                f"{self._weights}: tensor {printable(name[:60])!r} holds NaN, so every vector "
                "would; train the encoder again, or restore the file"
            )


def _may_be_nan(tensor: Any) -> bool:
    """Whether torch can be asked: it cannot for numbers of eight bits."""
    return bool(tensor.is_complex() or (tensor.is_floating_point() and tensor.element_size() > 1))


def write_encoder(
    directory: str | Path,
    *,
    encoder: str,
    config: Mapping[str, Any],
    weights: Mapping[str, Any],
    trained: bool = True,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write an encoder; ``weights`` are NumPy arrays or torch tensors, and may be empty.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> write_encoder(folder, encoder="mean", config={"dim": 3}, weights={})
    >>> read_encoder(folder).config
    {'dim': 3}
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    data = _serialise(weights)
    plugin = provider(encoder)
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "encoder": encoder,
        "provider": f"{plugin.distribution} {plugin.version}" if plugin else "",
        "config": dict(config),
        "trained": bool(trained),
        "extra": dict(extra or {}),
        "weights_sha256": hashlib.sha256(data).hexdigest(),
    }
    text = json.dumps(header, indent=2, allow_nan=False).encode() + b"\n"
    if len(text) > MAX_CONFIG_BYTES:
        raise EncoderError(
            f"{folder / CONFIG} would take {len(text)} bytes and may take {MAX_CONFIG_BYTES}: its "
            "config and extra are for options; numbers belong into the weights"
        )
    for name in (WEIGHTS, CONFIG):  # writing must not follow a link
        if fault := kind_fault(folder / name):
            raise EncoderError(fault)
    with replacing(folder / WEIGHTS) as weights_file, replacing(folder / CONFIG) as config_file:
        weights_file.write(data)
        config_file.write(text)


def read_encoder(directory: str | Path, *, verify: bool = True) -> SavedEncoder:
    """Read and verify what ``write_encoder`` wrote; the tensors are read on demand. Without
    ``verify`` the config is read alone, for facts: hashing large weights takes longer.
    """
    folder = Path(directory)
    header = _read_header(folder)
    if verify:
        _verify(folder, header["weights_sha256"])
    return SavedEncoder(
        encoder=header["encoder"],
        config=header["config"],
        trained=header["trained"],
        extra=header["extra"],
        provider=header["provider"],
        weights_sha256=header["weights_sha256"],
        directory=folder,
    )


def _verify(folder: Path, wanted: str) -> None:
    """Raise where the weights are not those of the config."""
    weights = folder / WEIGHTS
    try:
        with ordinary_file(weights) as file:
            found = _sha256(file)
    except FileNotFoundError:
        raise EncoderError(
            f"{folder} has {CONFIG} but no {WEIGHTS}; save the encoder again"
        ) from None
    if found != wanted:
        raise EncoderError(
            f"{weights} does not belong to its {CONFIG}: its SHA-256 is {found[:12]}..., not "
            f"{wanted[:12]}...; a save was cut off or the file is damaged, "
            "so save the encoder again or restore both files"
        )


def is_saved_encoder(directory: str | Path) -> bool:
    """Whether the directory holds an encoder's config."""
    return (Path(directory) / CONFIG).is_file()


def name_fault(name: str) -> str:
    """Why a name that comes from data cannot be an entry point's; "" where it can.

    >>> name_fault("cnn"), name_fault("some-package:cnn")
    ('', '')
    >>> name_fault("./my.py:MyEncoder")[:56]
    "'./my.py:MyEncoder' is no name of an installed encoder; "
    """
    found = _NAME.fullmatch(name)
    package = (found and found["distribution"]) or ""
    if found and package.lower() != "module" and not package.endswith(".py"):
        return ""
    return (
        f"{printable(name[:120])!r} is no name of an installed encoder; what a directory names is "
        "never run: a file or a module must be named by the caller"
    )


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return _sha256(file)


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _serialise(weights: Mapping[str, Any]) -> bytes:
    with wanting("networks", "saving an encoder"):
        if any(not isinstance(value, np.ndarray) for value in weights.values()):
            import torch
            from safetensors.torch import save

            # A clone of each: safetensors refuses tensors that share memory (tied weights).
            return save(
                {
                    name: torch.as_tensor(value).detach().cpu().clone().contiguous()
                    for name, value in weights.items()
                }
            )
        from safetensors.numpy import save as save_arrays

        return save_arrays({name: np.ascontiguousarray(value) for name, value in weights.items()})


def _read_header(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        with ordinary_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_CONFIG_BYTES:
                raise EncoderError(
                    f"{path} takes {size} bytes, of at most {MAX_CONFIG_BYTES}; restore it"
                )
            header = read_object(path, file.read(MAX_CONFIG_BYTES))
    except FileNotFoundError:
        raise EncoderError(
            f"{folder} holds no saved encoder (no {CONFIG}); `fastretrieve train` writes one, "
            "and so does encoder.save(directory)"
        ) from None
    if header.get("format") != FORMAT:
        raise EncoderError(
            f"{path} is not the config of a fastretrieve encoder (its format should be {FORMAT!r})"
        )
    version = header.get("format_version")
    if type(version) is int and version > FORMAT_VERSION:
        raise EncoderError(
            f"{path} has format version {printable(str(version)[:20])} but this fastretrieve reads "
            f"up to {FORMAT_VERSION}; upgrade fastretrieve"
        )
    header = {"provider": "", "extra": {}, **header}
    for name, (is_right, wanted) in _FIELDS.items():
        if not is_right(header.get(name)):
            what = "no" if name not in header else "a wrong"
            raise EncoderError(
                f"{path} has {what} {name!r}, which should be {wanted}; save the encoder again, or "
                "restore the file"
            )
    return header


# Each field of the config: whether a value is right, and what it should be.
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "format_version": (lambda v: type(v) is int and v >= 1, "a whole number from 1 on"),
    "encoder": (lambda v: isinstance(v, str) and 0 < len(v) < 500, "an encoder's name"),
    "provider": (lambda v: isinstance(v, str) and len(v) < 500, "a package and its version"),
    "config": (lambda v: isinstance(v, dict), "an object of options"),
    "trained": (lambda v: isinstance(v, bool), "true or false"),
    "extra": (lambda v: isinstance(v, dict), "an object"),
    "weights_sha256": (
        lambda v: isinstance(v, str) and _HEX.fullmatch(v) is not None,
        "64 hexadecimal digits",
    ),
}
