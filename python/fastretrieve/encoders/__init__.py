"""Encoders: images and sequences to vectors. Built-in and foreign ones load the same way.

``list_encoders`` says what is installed, ``create_encoder`` makes one by name, ``load_encoder``
reads a saved one. ``protocol.py`` is the contract, ``base.TorchEncoder`` a convenience for torch,
``docs/plugins.md`` the tutorial. Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastretrieve._common.needs import wanting
from fastretrieve.encoders.discovery import Plugin, list_encoders
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import API_VERSION, Encoder, Figure
from fastretrieve.encoders.registry import (
    as_encoder,
    check_plugins,
    create_encoder,
    encoder_class,
    load_encoder,
)
from fastretrieve.encoders.saved.files import read_encoder, write_encoder

if TYPE_CHECKING:
    from fastretrieve.data.images import image_batch
    from fastretrieve.encoders.base import TorchEncoder
    from fastretrieve.encoders.models.module import ModuleEncoder

__all__ = [
    "API_VERSION",
    "Encoder",
    "EncoderError",
    "Figure",
    "ModuleEncoder",
    "Plugin",
    "TorchEncoder",
    "as_encoder",
    "check_plugins",
    "create_encoder",
    "encoder_class",
    "image_batch",
    "list_encoders",
    "load_encoder",
    "read_encoder",
    "write_encoder",
]

# These import torch or Pillow.
_LAZY = {
    "TorchEncoder": "fastretrieve.encoders.base",
    "ModuleEncoder": "fastretrieve.encoders.models.module",
    "image_batch": "fastretrieve.data.images",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        with wanting("networks", name):
            return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
