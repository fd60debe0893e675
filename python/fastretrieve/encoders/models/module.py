"""``module:`` makes an encoder of any torch module that takes images, or of a timm model.

``ModuleEncoder(my_network)`` in Python; ``module:package.attribute`` or ``module:timm/resnet18``
where a name is wanted. The vector is the output, or the output of any layer inside, averaged over
positions. It serves as it is, or is fine-tuned on labels.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve._common.needs import wanting
from fastretrieve.encoders.base import TorchEncoder, batch_length, restored
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.protocol import Batch
from fastretrieve.encoders.saved import files
from fastretrieve.encoders.saved.opening import naming, printable

TIMM = "timm/"
_TIMM_FILES = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
OUTPUT = "output"
MAX_LOADED_SIDE = 2048  # of the image that a constructor tries the module on, where a file says

# What the hooks of one forward pass have seen. A context variable, so that threads that share an
# encoder do not see each other's.
_seen: ContextVar[dict[str, Any] | None] = ContextVar("_seen", default=None)


class _Watch:
    """A forward hook that notes a layer's output. A class, so that an encoder can be pickled."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        seen = _seen.get()
        if seen is not None:
            seen[self.name] = output


class ModuleEncoder(TorchEncoder):
    """Any torch module over images [n, channels, h, w], as an encoder.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))
    >>> ModuleEncoder(network, image_size=8).dim
    5
    >>> ModuleEncoder(network, layer="1", image_size=8).dim  # averaged over positions
    8
    """

    name = "module"
    mean: torch.Tensor
    std: torch.Tensor
    capabilities = frozenset({"trainable", "classify", "layers"})

    def __init__(
        self,
        module: nn.Module | None = None,
        *,
        target: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        layer: str | None = None,
        image_size: int | Sequence[int] | None = None,
        channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        trained: bool = True,
    ) -> None:
        """``layer`` is a name from ``module.named_modules()``; None takes the output.

        ``target`` is ``package.attribute`` or ``timm/model``, called with ``arguments`` where it is
        not a module already. Pixels in [0, 1] become ``(x - mean) / std``. ``trained=False`` says
        that the module's weights are random.
        """
        if (module is None) == (target is None):
            raise ValueError("give either a module or a target such as 'package.attribute'")
        if module is None:
            module = _build(str(target), dict(arguments or {}))
        defaults = getattr(module, "pretrained_cfg", None) or {}  # timm's models know theirs
        mean = mean or defaults.get("mean") or (0.0,) * channels
        std = std or defaults.get("std") or (1.0,) * channels
        size = image_size or defaults.get("input_size", (3, 224, 224))[-2:]
        config = {
            "target": target,
            "arguments": dict(arguments or {}),
            "layer": layer,
            "image_size": size if isinstance(size, int) else list(size),
            "channels": channels,
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
        }
        super().__init__(dim=1, config=config)
        self.module = module
        self.layer = layer
        self.head: nn.Linear | None = None
        self.is_trained = trained
        self.register_buffer("mean", torch.tensor(config["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config["std"])[:, None, None], persistent=False)
        self._watch()
        with self.evaluating():
            blank = torch.zeros(1, channels, *self.image_size, device=self.device)
            self._widths = {name: int(f.shape[1]) for name, f in self._features(blank).items()}
        self.dim = self._widths[layer or OUTPUT]

    def embed(self, batch: Batch) -> torch.Tensor:
        return self._features(batch)[self.layer or OUTPUT]

    def layers(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The module's children that give one tensor, the chosen layer and the output."""
        if batch_length(batch) == 0:
            return {name: torch.zeros(0, width) for name, width in self._widths.items()}
        with self.evaluating():
            return {name: f.float() for name, f in self._features(self.on_device(batch)).items()}

    def loss(self, batch: Batch, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Cross-entropy of a linear head on the vector; items without a label do not count."""
        if self.head is None or labels is None:
            raise EncoderError(
                "fine-tuning a module needs labels: give the data set labels and call set_classes, "
                "as fr.train does"
            )
        known = labels.to(self.device) >= 0
        logits: torch.Tensor = self.head(self.embed(self.on_device(batch)))[known]
        if not bool(known.any()):
            return logits.sum() * 0.0
        return F.cross_entropy(logits, labels.to(self.device)[known])

    def set_classes(self, names: Sequence[str]) -> None:
        super().set_classes(names)
        generator = torch.Generator().manual_seed(0)
        self.head = nn.Linear(self.dim, len(self.classes)).to(self.device)
        with torch.no_grad():
            weight = torch.randn(len(self.classes), self.dim, generator=generator) / self.dim**0.5
            self.head.weight.copy_(weight)
            self.head.bias.zero_()

    def probabilities(self, batch: Batch) -> torch.Tensor:
        if self.head is None:
            raise EncoderError("this module has no head yet; fine-tune it with fr.train and labels")
        with self.evaluating():
            logits: torch.Tensor = self.head(self.embed(self.on_device(batch)))
            return logits.softmax(dim=1)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        device: str = "cpu",
        module: nn.Module | None = None,
        target: str | None = None,
    ) -> ModuleEncoder:
        """Read back weights into ``module``, or into a new ``target``.

        The directory names its target, but only plain timm models are built from that: calling
        whatever a file names would run code on the word of a data file.
        """
        saved = files.read_encoder(directory)
        arguments = saved.config.get("arguments") or {}
        if target is None and module is None:
            target = _named_by_file(saved, arguments)
        if target is not None and not _are_harmless(target, arguments):
            raise EncoderError(
                f"{saved.directory} has arguments for {target} that are more than numbers and "
                "words, or are not for a file to give, so they could name files; make the module, "
                "and call ModuleEncoder.load(directory, module=module)"
            )
        if target is not None and target.startswith(TIMM):
            arguments = {**arguments, "pretrained": False}
        with naming(saved.directory, cls.__name__):
            if max(_sides(saved.config.get("image_size"))) > MAX_LOADED_SIDE:
                raise ValueError(f"image_size is over {MAX_LOADED_SIDE} pixels a side")
        config = {**saved.config, "target": target, "arguments": arguments}
        return restored(saved, lambda: cls(module, **config), cls).to(device)

    def _watch(self) -> None:
        inner = dict(self.module.named_modules())
        if self.layer is not None and self.layer not in inner:
            names = [name for name in inner if name]
            raise EncoderError(f"the module has no layer {self.layer!r}; it has {names}")
        watched = {name for name, _ in self.module.named_children()} | {self.layer or ""}
        for name in sorted(watched - {""}):
            inner[name].register_forward_hook(_Watch(name))

    def _features(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        token = _seen.set({})
        try:
            output = self.module((batch - self.mean) / self.std)
            seen = _seen.get() or {}
        finally:
            _seen.reset(token)
        pooled = {name: _pool(value) for name, value in {**seen, OUTPUT: output}.items()}
        found = {
            name: value
            for name, value in pooled.items()
            if value is not None and len(value) == len(batch)
        }
        if (self.layer or OUTPUT) not in found:
            value = seen.get(self.layer, output) if self.layer else output
            raise EncoderError(
                f"{'layer ' + repr(self.layer) if self.layer else 'the module'} gives "
                f"{type(value).__name__}, not a float tensor [n, ...]; choose another layer of "
                f"{[name for name, _ in self.module.named_modules() if name]}"
            )
        return found


def _named_by_file(saved: files.SavedEncoder, arguments: Any) -> str:
    """The target that the directory names, where it is one of timm's; else the caller must."""
    target = saved.config.get("target")
    if isinstance(target, str) and isinstance(arguments, dict) and _is_plain(target, arguments):
        return target
    wanted = f"encoder='module:{printable(target)}'" if isinstance(target, str) else "module=..."
    loader = "load_encoder" if isinstance(target, str) else "ModuleEncoder.load"
    raise EncoderError(
        f"{saved.directory} holds the weights of a torch module, which a file may not "
        f"choose; say which: {loader}(directory, {wanted})"
    )


def _are_harmless(target: str, arguments: Any) -> bool:
    """What a file hands to a module: numbers and plain words, no paths and no URLs."""
    if not isinstance(arguments, dict) or not all(map(_is_harmless, arguments.values())):
        return False
    return not (target.startswith(TIMM) and set(arguments) & _TIMM_FILES)


def _is_harmless(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(v, (int, float, str)) and _is_harmless(v) for v in value)
    is_word = isinstance(value, str) and re.fullmatch(r"\w{0,64}", value, re.ASCII) is not None
    return is_word or value is None or isinstance(value, (bool, int, float))


def _sides(size: Any) -> list[int]:
    sides = size if isinstance(size, list) else [size]
    if not sides or not all(type(side) is int for side in sides):
        raise ValueError(f"image_size is a side or [height, width], got {size!r}")
    return sides


def _is_plain(target: str, arguments: Mapping[str, Any]) -> bool:
    """Whether it names one of timm's own architectures: no hub, no folder, no checkpoint file."""
    name = target.removeprefix(TIMM)
    is_name = re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", name) is not None
    return target.startswith(TIMM) and is_name and set(arguments) <= {"pretrained"}


def _pool(value: Any) -> torch.Tensor | None:
    """[n, c] from [n, c], maps [n, c, h, w, ...] or tokens [n, t, c]; None from anything else."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.ndim < 2:
        return None
    if value.ndim == 2:
        return value
    return value.mean(dim=1) if value.ndim == 3 else value.flatten(2).mean(dim=2)


def _build(target: str, arguments: dict[str, Any]) -> nn.Module:
    if target.startswith(TIMM):
        return _build_timm(target.removeprefix(TIMM), arguments)
    package, _, attribute = target.rpartition(".")
    if not package:
        raise EncoderError(f"module:{target} is not of the form 'module:package.attribute'")
    try:
        made = getattr(importlib.import_module(package), attribute)
        if not isinstance(made, nn.Module):
            made = made(**arguments)
    except Exception as error:  # a foreign module may raise anything
        raise EncoderError(f"module:{target} fails: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise EncoderError(f"module:{target} gives {type(made).__name__}, not a torch module")
    return made


def _build_timm(model: str, arguments: dict[str, Any]) -> nn.Module:
    with wanting("timm", f"module:timm/{model}", error=EncoderError):
        import timm

    try:
        # No classes: the pooled features are the output.
        options = {"pretrained": True, "num_classes": 0, **arguments}
        made: nn.Module = timm.create_model(model, **options)
    except Exception as error:
        raise EncoderError(f"timm cannot make {model!r}: {error}") from error
    return made
