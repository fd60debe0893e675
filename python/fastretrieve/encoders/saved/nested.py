"""An encoder inside another: chosen by the caller, frozen, and saved in a folder of its own.

An adapter keeps one encoder below it, ``words`` two. The folder is data: the class of what it holds
is looked up among the installed plugins, as for every saved encoder. A SHA-256 of its config, which
holds that of its weights, stands among the weights of the outer encoder.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Any

import torch

from fastretrieve.encoders.encoding import refuse_untrained
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.encoders.registry import as_encoder, create_encoder, load_encoder
from fastretrieve.encoders.saved import files
from fastretrieve.encoders.saved.opening import naming, ordinary_file


def frozen_encoder(
    chosen: Any, options: dict[str, Any] | None = None, *, defaults: dict[str, dict[str, Any]]
) -> Encoder:
    """The trained encoder that is meant: an encoder, a name with options, or a saved one's
    directory. ``defaults`` are the options of names that are given without any.
    """
    if isinstance(chosen, str) and not Path(chosen).exists():
        if options is None:
            options = defaults.get(chosen)
        made = create_encoder(chosen, **(options or {}))
    elif options:
        raise ValueError(
            f"options are for an encoder that is made here by its name, not for {chosen!r}; leave "
            f"out {', '.join(options)}"
        )
    else:
        made = as_encoder(chosen)
    refuse_untrained(made)
    return made


def save_nested(encoder: Encoder, below: Path) -> torch.Tensor:
    """Write the encoder into its folder; returns the digest."""
    refuse_link(below)
    encoder.save(below)
    return digest_of(below, encoder.name)


def load_nested(below: Path, given: Any) -> Encoder:
    """The encoder in the folder, or the one that is given in its place."""
    if given is not None:
        return as_encoder(given)
    refuse_link(below)
    return load_encoder(below)


def refuse_link(below: Path) -> None:
    """A saved encoder holds the frozen one itself: a link could lead anywhere."""
    try:
        mode = below.lstat().st_mode
    except OSError:
        return  # reading or making it says why
    if not stat.S_ISDIR(mode):
        raise EncoderError(f"{below} is no folder of its own (links are not followed); remove it")


def refuse_another(below: Path, wanted: torch.Tensor, outer: str) -> None:
    """Raise where the folder is not what the outer encoder was saved with."""
    if not torch.equal(wanted, digest_of(below, outer)):
        raise EncoderError(
            f"{below} is not the encoder that this {outer} was saved with; save the {outer} "
            "again, or restore its whole folder"
        )


def no_digest() -> torch.Tensor:
    """The digest before saving."""
    return torch.zeros(32, dtype=torch.uint8)


def digest_of(below: Path, user: str) -> torch.Tensor:
    """The SHA-256 of the config, which holds that of the weights."""
    with naming(below, user), ordinary_file(below / files.CONFIG) as file:
        digest = hashlib.sha256(file.read(files.MAX_CONFIG_BYTES)).digest()
    return torch.tensor(list(digest), dtype=torch.uint8)
