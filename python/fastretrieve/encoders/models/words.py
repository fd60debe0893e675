"""``words``: pictures and words in one space, learned from pairs of picture and caption.

Two towers, an encoder of pictures and one of texts, stay as they are. A linear map on each brings
them together: it starts in closed form (``blocks/towers.py``) and learns by contrast, among the
pairs of a batch and the hardest rivals that an exact search finds. ``fr.train`` encodes each
picture and each caption once. The towers are saved in the folders ``image`` and ``text``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastretrieve.encoders.base import (
    UNSAVED_BYTES,
    TorchEncoder,
    batch_length,
    restored,
)
from fastretrieve.encoders.defaults import FITTED_PRETRAINED
from fastretrieve.encoders.encoding import encode_texts, knows_words
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.models.words_head import RECIPE, WordsHead
from fastretrieve.encoders.protocol import Batch, Encoder, Figure, Items
from fastretrieve.encoders.saved import files
from fastretrieve.encoders.saved.nested import (
    frozen_encoder,
    load_nested,
    no_digest,
    refuse_another,
    save_nested,
)

IMAGE, TEXT = "image", "text"  # the folders of the towers, inside the encoder's
MAX_DIM = 4096  # of a tower: the start takes the cube of it in time
_DIM = 256


class WordsEncoder(TorchEncoder):
    """Pictures and sentences as vectors that can be compared: any encoder learns words.

    ``image`` and ``text`` are encoders, names, or directories of saved ones; ``options`` are those
    of an image encoder that is made here by its name. Without any, ``pretrained`` is the one that
    is fitted to the pictures. The vectors have unit length.

    >>> import fastretrieve as fr
    >>> words = fr.create_encoder("words")  # doctest: +SKIP
    >>> fr.train(words, "pairs.csv")  # with the columns path and caption; # doctest: +SKIP
    >>> words.encode_text(["a red boot"]).shape  # doctest: +SKIP
    torch.Size([1, 256])
    """

    name = "words"
    capabilities = frozenset({"trainable", "text"})
    unsaved_bytes = UNSAVED_BYTES
    progress_figure = Figure("loss", "lower")
    recipe = RECIPE
    augmentable = False
    learns_captions = True

    image_sha256: torch.Tensor
    text_sha256: torch.Tensor

    def __init__(
        self,
        *,
        image: Any = "pretrained",
        options: dict[str, Any] | None = None,
        text: Any = "minilm",
        dim: int | None = None,
        rivals: int = 2,
        seed: int = 0,
    ) -> None:
        """``rivals`` is how many of the hardest other pictures and texts a pair is told apart
        from, beside those of its batch.
        """
        if rivals < 0:
            raise ValueError(f"rivals is a number of pictures and texts, 0 for none, got {rivals}")
        if dim is not None and dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        towers = _towers(image, options, text)
        width = dim or min(_DIM, *(tower.dim for tower in towers))
        config: dict[str, Any] = {"dim": width, "rivals": rivals, "seed": seed}
        super().__init__(dim=width, config=config)
        # In a list, so that their weights are none of this module's: it saves and trains its own.
        self._kept: list[Encoder] = towers
        self.modality = self.frozen.modality
        for name in ("image_size", "channels"):
            if hasattr(self.frozen, name):
                setattr(self, name, getattr(self.frozen, name))
        if "parts" in self.frozen.capabilities:
            self.capabilities = frozenset({*type(self).capabilities, "parts"})
        self.head = WordsHead(
            image_dim=self.frozen.dim, text_dim=self.text.dim, modality=self.modality, **config
        )
        # With them the checksum of the weights covers the towers.
        self.register_buffer("image_sha256", no_digest())
        self.register_buffer("text_sha256", no_digest())

    @property
    def frozen(self) -> Encoder:
        """The encoder of pictures, which training leaves as it is."""
        return self._kept[0]

    @property
    def text(self) -> Encoder:
        """The encoder of texts, which training leaves as it is."""
        return self._kept[1]

    def preprocess(self, items: Items) -> Batch:
        return self.frozen.preprocess(items)

    def encode(self, batch: Batch) -> torch.Tensor:
        if batch_length(batch) == 0:
            return torch.zeros(0, self.dim, device=self.device)
        with self.evaluating():
            return self.embed(batch).float()

    def embed(self, batch: Batch) -> torch.Tensor:
        return self.head.embed_images(self._rows(self.frozen.encode(batch)))

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts as vectors [n, dim], comparable with those of pictures."""
        with self.evaluating():
            return self.head.embed_texts(self._rows(encode_texts(self.text, texts))).float()

    def parts(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """What each position adds to a vector: that of the image encoder, mapped. Lengths are
        those of the whole, so the parts still sum to it.
        """
        frozen: Any = self.frozen
        located, constant = (self._rows(each) for each in frozen.parts(batch))
        if not len(constant):
            return located[..., :1].expand(*located.shape[:3], self.dim), self._no_rows()
        with self.evaluating():
            rows = located.sum((1, 2)) + constant
            before = rows.norm(dim=1).clamp(min=1e-12)
            mean, to = self.head.image_mean, self.head.image_map
            after = ((rows / before[:, None] - mean) @ to).norm(dim=1).clamp(min=1e-12)
            placed = located @ to / (before * after)[:, None, None, None]
            rest = (constant / before[:, None] - mean) @ to / after[:, None]
        return placed.float(), rest.float()

    def loss(self, batch: Batch, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """The head's loss, where the names of labels are captions. ``fr.train`` asks the head
        itself, on vectors and captions that it has kept.
        """
        if labels is None:
            raise ValueError("words are learned from captions, and no item here has any")
        named = labels.tolist()
        kept = [i for i, label in enumerate(named) if label >= 0]
        texts = [self.classes[named[i]] if self.classes else str(named[i]) for i in kept]
        images = self._rows(self.frozen.encode(batch))[kept]
        rows = torch.cat([images, self._rows(encode_texts(self.text, texts))], dim=1)
        return self.head.loss(rows)

    def to(self, *args: Any, **kwargs: Any) -> WordsEncoder:
        super().to(*args, **kwargs)
        self._kept[:] = [tower.to(self.device) for tower in self._kept]
        return self

    def extra(self) -> dict[str, Any]:
        return {**super().extra(), "image": self.frozen.name, "text": self.text.name}

    def save(self, directory: str | Path) -> None:
        """Write the towers into the folders ``image`` and ``text``, then the maps."""
        self.image_sha256.copy_(save_nested(self.frozen, Path(directory) / IMAGE))
        self.text_sha256.copy_(save_nested(self.text, Path(directory) / TEXT))
        super().save(directory)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        device: str = "cpu",
        image: Any = None,
        text: Any = None,
    ) -> WordsEncoder:
        """Read back what ``save`` wrote. ``image`` and ``text`` are towers whose class is no
        installed plugin's, or that are named by a path: from a file, a wrapped module, a ``clip``.
        """
        saved = files.read_encoder(directory)
        image = load_nested(saved.directory / IMAGE, image)
        text = load_nested(saved.directory / TEXT, text)
        found = restored(saved, lambda: cls(image=image, text=text, **saved.config), cls)
        refuse_another(saved.directory / IMAGE, found.image_sha256, cls.name)
        refuse_another(saved.directory / TEXT, found.text_sha256, cls.name)
        return found.to(device)

    def _rows(self, found: Any) -> torch.Tensor:
        rows = found if isinstance(found, torch.Tensor) else torch.tensor(found)
        return rows.to(self.device)

    def _no_rows(self) -> torch.Tensor:
        return torch.zeros(0, self.dim, device=self.device)


def _towers(image: Any, options: dict[str, Any] | None, text: Any) -> list[Encoder]:
    """Both towers, trained and not too wide."""
    towers = [
        frozen_encoder(image, options, defaults={"pretrained": FITTED_PRETRAINED}),
        frozen_encoder(text, defaults={}),
    ]
    if towers[0].modality == "text" or not knows_words(towers[1]):
        raise EncoderError(
            "words joins an image encoder (image=) with one that knows words (text=), got "
            f"{towers[0].name!r} and {towers[1].name!r}; text='minilm' needs no training"
        )
    for tower in towers:
        if tower.dim > MAX_DIM:
            raise EncoderError(
                f"words maps vectors of up to {MAX_DIM} numbers, and those of {tower.name!r} have "
                f"{tower.dim}; give it a smaller dim"
            )
    return towers
