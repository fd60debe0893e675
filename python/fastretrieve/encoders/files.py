"""An encoder on disk: ``config.json`` and ``weights.safetensors`` in one directory.

The config is JSON and the weights are safetensors, so reading them executes nothing. Each file is
written beside its final name and renamed; the config carries the SHA-256 of the weights, so a pair
that does not belong together is refused. The file names the encoder, never code to run:
``registry.load_encoder`` looks the name up among the installed plugins.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve.atomic import replacing
from fastretrieve.encoders.discovery import provider
from fastretrieve.encoders.errors import EncoderError

FORMAT = "fastretrieve-encoder"
FORMAT_VERSION = 1
CONFIG = "config.json"
WEIGHTS = "weights.safetensors"


class SavedEncoder(NamedTuple):
    """What ``write_encoder`` wrote."""

    encoder: str  # the name in the registry, or "distribution:name"
    config: dict[str, Any]  # keyword arguments of the class
    trained: bool
    extra: dict[str, Any]  # whatever else the encoder keeps
    provider: str  # "distribution version" that had the encoder, "" where none did
    weights_sha256: str
    directory: Path

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The weights as NumPy arrays (for encoders without torch)."""
        from safetensors.numpy import load_file

        return load_file(self.directory / WEIGHTS)

    def tensors(self, *, device: str = "cpu") -> dict[str, Any]:
        """The weights as torch tensors."""
        from safetensors.torch import load_file

        return load_file(self.directory / WEIGHTS, device=str(device))


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
    with replacing(folder / WEIGHTS) as weights_file, replacing(folder / CONFIG) as config_file:
        weights_file.write(data)
        config_file.write(text)


def read_encoder(directory: str | Path) -> SavedEncoder:
    """Read and verify what ``write_encoder`` wrote; the tensors are read on demand."""
    folder = Path(directory)
    header = _read_header(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise EncoderError(f"{folder} has {CONFIG} but no {WEIGHTS}; save the encoder again")
    found = file_sha256(weights)
    if found != header["weights_sha256"]:
        raise EncoderError(
            f"{weights} does not belong to its {CONFIG}: its SHA-256 is {found[:12]}..., not "
            f"{str(header['weights_sha256'])[:12]}...; a save was cut off or the file is damaged, "
            "so save the encoder again or restore both files"
        )
    return SavedEncoder(
        encoder=str(header["encoder"]),
        config=dict(header["config"]),
        trained=bool(header["trained"]),
        extra=dict(header.get("extra", {})),
        provider=str(header.get("provider", "")),
        weights_sha256=found,
        directory=folder,
    )


def is_saved_encoder(directory: str | Path) -> bool:
    """Whether the directory holds an encoder's config."""
    return (Path(directory) / CONFIG).is_file()


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _serialise(weights: Mapping[str, Any]) -> bytes:
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
        header = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise EncoderError(
            f"{folder} holds no saved encoder (no {CONFIG}); `fastretrieve train` writes one, "
            "and so does encoder.save(directory)"
        ) from None
    except (ValueError, OSError) as error:
        raise EncoderError(f"{path} cannot be read ({error}); save the encoder again") from error
    wanted = {"encoder", "config", "trained", "weights_sha256"}
    if not isinstance(header, dict) or header.get("format") != FORMAT or not wanted <= set(header):
        raise EncoderError(
            f"{path} is not the config of a fastretrieve encoder (its format should be {FORMAT!r})"
        )
    if header["format_version"] > FORMAT_VERSION:
        raise EncoderError(
            f"{path} has format version {header['format_version']} but this fastretrieve reads up "
            f"to {FORMAT_VERSION}; upgrade fastretrieve"
        )
    return header
