"""What an encoder is: the whole contract between fastretrieve and a plugin.

An encoder turns items (images, sequences or texts) into vectors worth searching. It need not
inherit from anything: a class with these names is an encoder. ``base.TorchEncoder`` writes most of
them for a torch module; ``fastretrieve.testing.check_encoder`` checks all of them; ``registry.py``
finds encoders by entry point; ``docs/plugins.md`` is the tutorial.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

API_VERSION = 1
"""The version of this contract. A plugin that speaks another one is listed as broken."""

Modality: TypeAlias = Literal["image", "sequence", "text"]

Items: TypeAlias = Sequence[Any]
"""Images: PIL images, arrays [h, w] or [h, w, c] (uint8, or floats in [0, 1]), tensors [h, w] or
[c, h, w]; also one array [n, h, w] or [n, h, w, c]. Sequences: arrays [t, features], of any lengths
t, or lists of t frames, each an image. Texts: ``str``."""

Batch: TypeAlias = Any
"""What ``preprocess`` returns: one array or tensor, or a tuple of them (a sequence encoder's
``(values, lengths)``), each with the items along its first dimension. It is what ``encode``,
``loss``, ``reconstruct`` and ``layers`` take; they move it to their own device."""

Vectors: TypeAlias = "torch.Tensor | NDArray[np.float32]"
"""Float32 [n, dim]."""


class Figure(NamedTuple):
    """A number worth watching, and which way is better.

    >>> Figure("reconstruction", "lower").improved(before=0.5, after=0.25)
    True
    """

    name: str
    direction: Literal["lower", "higher"]

    def improved(self, *, before: float, after: float) -> bool:
        return after < before if self.direction == "lower" else after > before


CAPABILITIES: Mapping[str, tuple[str, ...]] = {
    "trainable": ("loss", "parameters", "progress_figure", "is_trained"),
    "fit": ("fit", "is_trained"),
    "classify": ("set_classes", "classes", "probabilities"),
    "reconstruct": ("reconstruct",),
    "generate": ("generate",),
    "invert": ("invert", "draw"),
    "layers": ("layers",),
    "parts": ("parts",),
    "translate": ("translate",),
    "text": ("encode_text",),
}
"""Each optional capability and the attributes that an encoder declaring it must have."""


@runtime_checkable
class Encoder(Protocol):
    """What every encoder has. ``cls(**config)`` makes a new one; every option has a default.

    ``encode`` is deterministic, leaves global random state and gradients alone, gives an item
    the same vector (within 1e-5) alone and in any batch, and returns [0, dim] for an empty batch.
    """

    name: str  # as in the entry point
    dim: int  # columns of encode()
    modality: Modality
    api_version: int  # API_VERSION at the time of writing: 1
    capabilities: frozenset[str]  # of the keys of CAPABILITIES

    def preprocess(self, items: Items) -> Batch:
        """Turn items into a batch on the CPU: cheap, without gradients, safe in workers."""
        ...

    def encode(self, batch: Batch) -> Vectors:
        """Return float32 [n, dim], in evaluation mode and without gradients."""
        ...

    def save(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``weights.safetensors``: use ``files.write_encoder``."""
        ...

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> Encoder:
        """Read back what ``save`` wrote; the copy encodes equally and ``is_trained`` survives."""
        ...

    def to(self, device: Any) -> Any:
        """Move to a device and return self; an encoder without tensors returns self."""
        ...


@runtime_checkable
class Trainable(Encoder, Protocol):
    """Capability "trainable": learned by gradient descent through ``fr.train``.

    ``loss`` returns a tensor to minimise, or a dict of tensors. In a dict, the entry "loss" is
    minimised over ``parameters()`` and the other entries are figures to log. A game (a GAN) has no
    entry "loss" but a method ``parameter_groups() -> dict[str, list[Parameter]]``: each group
    descends on the loss of its own name, all taken from one call of ``loss``.

    ``progress_figure`` names what must improve within a few steps on one batch: "loss", or any
    entry of the dict. ``fr.train`` sets ``is_trained``; a gallery refuses an encoder where it is
    False. Labels are int64 [n], -1 where an item has none, or None where no item has one.
    ``train()`` and ``eval()`` switch modes as in torch.

    Optional: ``augmentable = False`` says that changed views of an item mean something else.
    """

    progress_figure: Figure
    is_trained: bool

    def loss(
        self, batch: Batch, labels: torch.Tensor | None = None
    ) -> torch.Tensor | dict[str, torch.Tensor]: ...

    def parameters(self) -> Iterable[torch.nn.Parameter]: ...

    def train(self, mode: bool = True) -> Any: ...

    def eval(self) -> Any: ...


@runtime_checkable
class Fitted(Encoder, Protocol):
    """Capability "fit": learned in closed form, in one pass over batches (PCA, k-means).

    Optional: ``fit_items = (fewest, most)`` says how many random items are worth fitting to, and
    ``is_fitted`` is False while the encoder could still be fitted, though its vectors mean
    something already. A gallery fits such an encoder to items that are added first.
    """

    is_trained: bool

    def fit(self, batches: Iterable[Batch]) -> Any:
        """Learn from all batches, set ``is_trained`` and return self."""
        ...


@runtime_checkable
class Classifier(Encoder, Protocol):
    """Capability "classify": the encoder has a head over named classes.

    ``fr.train`` calls ``set_classes`` with the names before the first step; ``labels`` are
    positions in ``classes``, which survives ``save`` and ``load`` and is empty before.
    """

    classes: tuple[str, ...]

    def set_classes(self, names: Sequence[str]) -> None: ...

    def probabilities(self, batch: Batch) -> Vectors:
        """Return float32 [n, n_classes]; rows sum to one."""
        ...


@runtime_checkable
class Reconstructs(Encoder, Protocol):
    """Capability "reconstruct"."""

    def reconstruct(self, batch: Batch) -> torch.Tensor:
        """Return the batch as the encoder sees it: the same shape and range."""
        ...


@runtime_checkable
class Generates(Encoder, Protocol):
    """Capability "generate"."""

    def generate(self, n: int, seed: int = 0) -> torch.Tensor:
        """Return ``n`` new items as a batch; equal seeds give equal items."""
        ...


@runtime_checkable
class Inverts(Encoder, Protocol):
    """Capability "invert": from items to codes, and from codes to items.

    A column of the codes varies by about one over the training data. So a code that is mixed with
    a little standard normal noise is the code of a similar item: ``gallery.search(imagine=...)``
    draws such items.
    """

    def invert(self, batch: Batch) -> torch.Tensor:
        """Return codes, float32 [n, code_dim]; an item has the same code in any batch."""
        ...

    def draw(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the items of codes as a batch: images have values in [0, 1]."""
        ...


@runtime_checkable
class Layered(Encoder, Protocol):
    """Capability "layers": named features for ``fr.fuse``."""

    def layers(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return float32 [n, layer_dim] for each layer, in evaluation mode, without gradients."""
        ...


@runtime_checkable
class Parted(Encoder, Protocol):
    """Capability "parts": which position of an image adds what to its vector, so that
    ``gallery.explain`` is exact.
    """

    def parts(self, batch: Batch) -> tuple[Vectors, Vectors]:
        """Return float32 parts [n, positions_y, positions_x, dim] and a constant [n, dim], in
        evaluation mode and without gradients. The parts and the constant of an item sum to its
        row of ``encode``. Positions divide the image evenly, from its top left.
        """
        ...


class Translates(Encoder, Protocol):
    """Capability "translate": pictures of one style as pictures of another."""

    def translate(self, batch: Batch) -> torch.Tensor:
        """Return the batch in the other style: the same shape and range; an item alone and in any
        batch becomes the same.
        """
        ...


class TextTower(Encoder, Protocol):
    """Capability "text": words as vectors, in the space in which ``encode`` puts its items.

    So a sentence finds the items that it describes, by cosine. An encoder of sentences themselves
    (modality "text") needs none of this: ``encode`` answers there.
    """

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Return float32 [n, dim], in evaluation mode and without gradients; n may be 0. A text
        has the same vector (within 1e-5) alone and in any batch. Any str is a text: "" too.
        """
        ...
