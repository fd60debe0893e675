"""``conse``: pictures searched with words, without any caption (convex combination of semantic
embeddings, Norouzi et al. 2013).

``pretrained`` says how likely each of its 1,000 ImageNet classes is. The text vectors of the names
of the likeliest, weighed by that, sum to the picture's vector. So a picture lies among the words
for what ImageNet would call it, and any sentence can be compared with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fastretrieve.encoders.base import UNSAVED_BYTES, TorchEncoder, restored
from fastretrieve.encoders.blocks.networks import unit_rows
from fastretrieve.encoders.encoding import encode_texts, knows_words
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.models.pretrained import PretrainedEncoder
from fastretrieve.encoders.protocol import Batch, Encoder
from fastretrieve.encoders.saved import files
from fastretrieve.encoders.saved.nested import (
    frozen_encoder,
    load_nested,
    no_digest,
    refuse_another,
    save_nested,
)

TEXT = "text"  # the folder of the text encoder, inside this one's
_NAMES = Path(__file__).with_name("imagenet_names.txt")


class ConseEncoder(TorchEncoder):
    """The likeliest ``top`` classes of ImageNet, as a vector of words.

    It needs no training and no captions, and knows what ImageNet knows: animals and things, well
    photographed. ``text`` is an encoder of texts, a name, or the directory of a saved one.

    >>> import fastretrieve as fr
    >>> gallery = fr.Gallery.create("photos.gallery", encoder="conse")  # doctest: +SKIP
    >>> gallery.search(text="a parrot")  # doctest: +SKIP
    """

    name = "conse"
    capabilities = frozenset({"text"})
    unsaved_bytes = UNSAVED_BYTES

    class_vectors: torch.Tensor
    text_sha256: torch.Tensor

    def __init__(
        self,
        *,
        text: Any = "minilm",
        image_size: int | Sequence[int] = 224,
        top: int = 10,
        imagenet: bool = True,
    ) -> None:
        """``imagenet=False`` builds the network without weights, for others to be loaded."""
        if not 1 <= top <= len(class_names()):
            raise ValueError(f"top must be in [1, {len(class_names())}], got {top}")
        chosen = frozen_encoder(text, defaults={})
        if not knows_words(chosen):
            raise EncoderError(
                f"conse needs an encoder that knows words, got {chosen.name!r}; text='minilm' "
                "needs no training"
            )
        config = {"image_size": image_size, "top": top, "imagenet": False}
        super().__init__(dim=chosen.dim, config=config)
        self.channels = 3
        self.top = top
        side = image_size if isinstance(image_size, int) else (image_size[0], image_size[1])
        self.network = PretrainedEncoder(image_size=side, imagenet=imagenet)
        # In a list: its weights are none of this module's.
        self._kept: list[Encoder] = [chosen]
        vectors = torch.zeros(len(class_names()), self.dim)
        if imagenet:
            vectors = unit_rows(torch.tensor(encode_texts(chosen, class_names())))
        self.register_buffer("class_vectors", vectors)
        self.register_buffer("text_sha256", no_digest())
        self.is_trained = imagenet
        self.eval()

    @property
    def text(self) -> Encoder:
        """The encoder of texts."""
        return self._kept[0]

    def embed(self, batch: Batch) -> torch.Tensor:
        shares, classes = self.network.logits(batch).softmax(1).topk(self.top, dim=1)
        return unit_rows((shares[:, :, None] * self.class_vectors[classes]).sum(1))

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """The vectors of the text encoder, at unit length."""
        return unit_rows(torch.tensor(encode_texts(self.text, texts), device=self.device))

    def to(self, *args: Any, **kwargs: Any) -> ConseEncoder:
        super().to(*args, **kwargs)
        self._kept[0] = self.text.to(self.device)
        return self

    def extra(self) -> dict[str, Any]:
        return {**super().extra(), "text": self.text.name}

    def save(self, directory: str | Path) -> None:
        """Write the text encoder into the folder ``text``, then network and class vectors."""
        self.text_sha256.copy_(save_nested(self.text, Path(directory) / TEXT))
        super().save(directory)

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu", text: Any = None) -> ConseEncoder:
        """Read back what ``save`` wrote. ``text`` is the text encoder where its class is no
        installed plugin's.
        """
        saved = files.read_encoder(directory)
        text = load_nested(saved.directory / TEXT, text)
        found = restored(saved, lambda: cls(text=text, **saved.config), cls)
        refuse_another(saved.directory / TEXT, found.text_sha256, cls.name)
        return found.to(device)


@cache
def class_names() -> tuple[str, ...]:
    """The names of the 1,000 classes of ImageNet, in the usual order.

    >>> class_names()[1]
    'goldfish, Carassius auratus'
    """
    lines = _NAMES.read_text("utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))
