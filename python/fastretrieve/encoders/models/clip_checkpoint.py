"""A CLIP model as a checkpoint for the package open_clip, if that is installed.

The file is read with ``weights_only``, so that it cannot run anything. The architecture is one of
open_clip's own: names that make it download are refused.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastretrieve._common.needs import wanting
from fastretrieve.data.images import Size, as_size
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.models.pretrained import refuse_old_torch
from fastretrieve.encoders.saved.opening import brief

_MOST_BYTES = 16 << 30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class CheckpointTowers:
    """See ``clip.Towers``."""

    def __init__(self, path: Path, model: str | None) -> None:
        with wanting("clip", "a checkpoint of CLIP", error=EncoderError):
            open_clip: Any = importlib.import_module("open_clip")
        if model is None or not _NAME.fullmatch(model):
            raise EncoderError(
                f"{path} is a file of weights: name the architecture that they are for, such as "
                f"model='ViT-B-32'; got {model!r}"
            )
        if path.stat().st_size > _MOST_BYTES:
            raise EncoderError(f"{path} takes more than {_MOST_BYTES:,} bytes")
        refuse_old_torch()
        _refuse_downloads(open_clip.get_model_config(model), model)
        try:
            self._model = open_clip.create_model(
                model, pretrained=str(path.resolve()), weights_only=True
            ).eval()
            self._cut = open_clip.get_tokenizer(model)
        except Exception as error:  # it may raise anything
            raise EncoderError(f"open_clip cannot read {path}: {brief(error)}") from error
        self.files: Sequence[Path] = (path,)
        visual: Any = self._model.visual
        self.image_size: Size = as_size(visual.image_size)
        self.mean: Sequence[float] = visual.image_mean or open_clip.OPENAI_DATASET_MEAN
        self.std: Sequence[float] = visual.image_std or open_clip.OPENAI_DATASET_STD

    def images(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(self._model.encode_image(torch.from_numpy(pixels)).float())

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(self._model.encode_text(self._cut(list(texts))).float())


def _refuse_downloads(config: Any, model: str) -> None:
    """Nothing is fetched at run time, and some architectures take their tokenizer from a hub."""
    if config is None:
        raise EncoderError(f"open_clip has no architecture {model!r}; open_clip.list_models()")
    text = config.get("text_cfg", {})
    if named := text.get("hf_tokenizer_name") or text.get("hf_model_name"):
        raise EncoderError(
            f"the architecture {model!r} downloads its tokenizer ({named}), and nothing is "
            "downloaded here; export the model as ONNX, with its tokenizer.json beside it"
        )
