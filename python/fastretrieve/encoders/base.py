"""A convenience for encoders made of torch: write ``embed``, get the rest of the protocol.

``TorchEncoder`` is a torch module, so ``parameters``, ``to``, ``train`` and ``eval`` are torch's.
It is optional: ``protocol.Encoder`` is what counts.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from fastretrieve.data.images import as_size, image_batch
from fastretrieve.encoders.protocol import API_VERSION, Batch, Figure, Items, Modality
from fastretrieve.encoders.saved import files
from fastretrieve.encoders.saved.opening import naming
from fastretrieve.encoders.saved.options import refuse_other_kinds
from fastretrieve.encoders.saved.weights import Entry

Self = TypeVar("Self", bound="TorchEncoder")
_OURS = (
    "cnn",
    "autoencoder",
    "vae",
    "gan",
    "autoregressive",
    "rnn",
    "pretrained",
    "module",
    "adapter",
    "translator",
    "words",
    "conse",
)
UNSAVED_BYTES = 32 << 20  # of the built-in encoders, which save all that they build


class TorchEncoder(torch.nn.Module):
    """Base class: an encoder is a torch module with ``embed(batch) -> [n, dim]``.

    A subclass sets ``name``, passes its own constructor arguments to ``super().__init__`` as
    ``config``, and writes ``embed``; images need no more than that. ``self.image_size`` (height,
    width) and ``self.channels`` are taken from the config where it has them.

    >>> class Mean(TorchEncoder):
    ...     name, capabilities = "mean", frozenset()
    ...     def __init__(self, *, image_size=8, channels=3):
    ...         super().__init__(dim=3, config={"image_size": image_size, "channels": channels})
    ...     def embed(self, batch):
    ...         return batch.mean(dim=(2, 3))
    >>> encoder = Mean()
    >>> encoder.encode(encoder.preprocess([torch.ones(3, 20, 20)])).tolist()
    [[1.0, 1.0, 1.0]]
    """

    name: str = ""
    modality: Modality = "image"
    api_version: int = API_VERSION
    capabilities: frozenset[str] = frozenset({"trainable"})
    progress_figure: ClassVar[Figure] = Figure("loss", "lower")
    # Bytes that the constructor may allocate beyond the weights in a file, when the options come
    # from that file: for a frozen backbone that is not saved, say.
    unsaved_bytes: ClassVar[int] = 4 << 30
    # Options that older files do not name, with the values that their encoders were built with.
    unnamed_options: ClassVar[Mapping[str, Any]] = {}
    classes: tuple[str, ...] = ()

    def __init__(self, *, dim: int, config: Mapping[str, Any]) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        try:
            inspect.signature(type(self)).bind(**config)
        except TypeError as error:
            raise TypeError(
                f"config must hold keyword arguments of {type(self).__name__}, since load calls it "
                f"with them: {error}"
            ) from error
        self.dim = dim
        self.config = dict(config)
        self.is_trained = "trainable" not in self.capabilities
        if "image_size" in self.config:
            self.image_size = as_size(self.config["image_size"])
        if "channels" in self.config:
            self.channels = int(self.config["channels"])
            if self.channels not in (1, 3):
                raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {self.channels}")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    def embed(self, batch: Batch) -> torch.Tensor:
        """Return [n, dim] in the current mode, differentiable. The one method to write."""
        raise TypeError(f"{type(self).__name__} must define embed(batch) -> [n, dim]")

    def preprocess(self, items: Items) -> Batch:
        """Images of any kind to one float32 tensor [n, channels, height, width] in [0, 1]."""
        pixels = image_batch(items, size=self.image_size, channels=self.channels)
        return torch.from_numpy(pixels)

    def encode(self, batch: Batch) -> torch.Tensor:
        """Return float32 [n, dim] on the encoder's device."""
        if batch_length(batch) == 0:
            return torch.zeros(0, self.dim, device=self.device)
        with self.evaluating():
            return self.embed(self.on_device(batch)).float()

    def on_device(self, batch: Batch) -> Batch:
        """The batch as tensors on the encoder's device."""
        return move_batch(batch, self.device)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode without gradients; training mode comes back afterwards.

        An encoder that is in evaluation mode already is not touched, so threads may share it.
        """
        modes = {module: module.training for module in self.modules() if module.training}
        if modes:
            self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode

    def save(self, directory: str | Path) -> None:
        """Write config.json and weights.safetensors."""
        files.write_encoder(
            directory,
            encoder=self.name,
            config=self.config,
            weights=self.state_dict(),
            trained=self.is_trained,
            extra=self.extra(),
        )

    def extra(self) -> dict[str, Any]:
        """What ``save`` writes beside config and weights, for people and programs to read."""
        return {"classes": list(self.classes)}

    @classmethod
    def load(cls: type[Self], directory: str | Path, *, device: str = "cpu") -> Self:
        """Read back what ``save`` wrote, in evaluation mode."""
        saved = files.read_encoder(directory)
        config = {**cls.unnamed_options, **saved.config}
        return restored(saved, lambda: cls(**config), cls).to(device)

    def set_classes(self, names: Sequence[str]) -> None:
        """Remember the names; an encoder with a head overrides this and sizes the head."""
        self.classes = tuple(str(name) for name in names)


def restored(saved: files.SavedEncoder, make: Callable[[], Self], cls: type[TorchEncoder]) -> Self:
    """The encoder that ``make`` builds from the options of a file, with the file's weights.

    The size of the file limits what is built. The caller's random state comes back.
    """
    from fastretrieve.encoders.saved.budget import MemoryBudget

    entries = saved.entries()
    file_bytes = (saved.directory / files.WEIGHTS).stat().st_size
    budget = MemoryBudget(entries, file_bytes=file_bytes, unsaved_bytes=cls.unsaved_bytes)
    with naming(saved.directory, cls.__name__), torch.random.fork_rng(devices=[]):
        if cls.__module__ in [f"fastretrieve.encoders.models.{name}" for name in _OURS]:
            refuse_other_kinds(cls, saved.config)
        with budget:
            encoder = make()
            if classes := saved.extra.get("classes"):
                encoder.set_classes(_names(classes))
        _refuse_other_kinds(encoder.state_dict(), entries)
        encoder.load_state_dict(saved.tensors())
        encoder.is_trained = saved.trained
        return encoder.eval()


def arguments(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor as its ``config``: call it with ``locals()``, first thing.

    >>> class Example:
    ...     def __init__(self, *, dim=4, seed=0):
    ...         self.config = arguments(locals())
    >>> Example(seed=1).config
    {'dim': 4, 'seed': 1}
    """
    return {name: value for name, value in scope.items() if name not in ("self", "__class__")}


def _refuse_other_kinds(own: Mapping[str, Any], entries: Mapping[str, Entry]) -> None:
    """Raise if floats would replace whole numbers, or the reverse: torch compares names and
    shapes, but converts silently.
    """
    for name in sorted(set(own) & set(entries)):
        dtype, tensor = entries[name].dtype, own[name]
        is_float = dtype[0] in "FB" and dtype != "BOOL"
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() != is_float:
            raise ValueError(f"tensor {name!r} is {dtype}, the network's {tensor.dtype}")


def _names(classes: Any) -> list[str]:
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("the classes of a saved encoder are a list of names")
    return classes


def batch_length(batch: Batch) -> int:
    """How many items a batch holds.

    >>> batch_length((torch.zeros(4, 9, 2), torch.zeros(4)))
    4
    """
    return len(batch[0]) if isinstance(batch, (tuple, list)) else len(batch)


def move_batch(batch: Batch, device: torch.device | str) -> Batch:
    """The batch, or each part of it, as tensors on a device."""
    if isinstance(batch, (tuple, list)):
        parts = [torch.as_tensor(part).to(device, non_blocking=True) for part in batch]
        # A named tuple is built from its fields, a plain tuple from an iterable.
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return torch.as_tensor(batch).to(device, non_blocking=True)


def take_batch(batch: Batch, rows: Any) -> Batch:
    """The items ``rows`` (a slice, or an index array) of a batch, as a batch."""
    if isinstance(batch, (tuple, list)):
        parts = [part[rows] for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch[rows]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from ``seed``; the global state comes back afterwards.

    Constructors initialise their weights under it, so other code's draws stay the same.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def normal_noise(shape: tuple[int, ...], *, seed: int) -> torch.Tensor:
    """Standard normal numbers on the CPU, so that a seed gives the same ones on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
