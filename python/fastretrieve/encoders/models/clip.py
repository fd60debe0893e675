"""``clip``: a CLIP model of your own, from your disk: pictures and words in one space.

``path`` is a folder with an ONNX model (``clip_onnx.py``) or a checkpoint for open_clip
(``clip_checkpoint.py``). The caller names it each time. A saved copy holds neither the model nor
its path, but the SHA-256 of its files, so that no other one takes its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data.images import Size, image_batch
from fastretrieve.data.texts import as_texts
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.models.clip_onnx import OnnxTowers
from fastretrieve.encoders.protocol import API_VERSION, Items, Modality
from fastretrieve.encoders.saved import files
from fastretrieve.encoders.saved.opening import naming, ordinary_file

_AT_ONCE = 32  # pictures or texts in a run, which bounds its memory
_SHA256 = "model_sha256"


class Towers(Protocol):
    """A CLIP model, however it is stored. Vectors need no unit length."""

    files: Sequence[Path]  # what it was read from
    image_size: Size
    mean: Sequence[float]
    std: Sequence[float]

    def images(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors [n, dim] of pixels [n, 3, height, width], which are ``(x - mean) / std``."""
        ...

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, dim] of texts."""
        ...


class ClipEncoder:
    """The vectors of a CLIP model, at unit length.

    >>> import fastretrieve as fr
    >>> clip = fr.create_encoder("clip", path="/models/my-clip")  # doctest: +SKIP
    >>> gallery = fr.Gallery.create("photos.gallery", encoder=clip)  # doctest: +SKIP
    >>> fr.Gallery.open("photos.gallery", encoder="clip:/models/my-clip")  # doctest: +SKIP

    ``path`` is a folder with ``visual.onnx``, ``textual.onnx`` and ``tokenizer.json``, or a file of
    weights for open_clip, whose ``model`` is the name of the architecture, such as ViT-B-32.
    Pictures are resized to the model's size whole: nothing is cut off.
    """

    name = "clip"
    modality: Modality = "image"
    api_version = API_VERSION
    capabilities: frozenset[str] = frozenset({"text"})
    channels = 3

    def __init__(self, *, path: str | Path | None = None, model: str | None = None) -> None:
        if path is None:
            raise EncoderError(
                "clip is a model of your own: name its folder or file, path='/models/my-clip' "
                "(--encoder clip:/models/my-clip), each time; docs/words.md says what it holds"
            )
        self._towers = _read(Path(path), model)
        self.image_size = self._towers.image_size
        self._mean, self._std = (
            np.asarray(values, np.float32)[:, None, None]
            for values in (self._towers.mean, self._towers.std)
        )
        blank = self.preprocess([np.zeros((8, 8, 3), np.uint8)])
        widths = self._towers.images(blank).shape[1], self._towers.texts(["a"]).shape[1]
        if widths[0] != widths[1]:
            raise EncoderError(
                f"{path} makes {widths[0]} numbers of a picture and {widths[1]} of a text: these "
                "are not the two halves of one CLIP model"
            )
        self.dim = int(widths[0])
        self._digest = _digest(self._towers.files)

    def preprocess(self, items: Items) -> NDArray[np.float32]:
        pixels = image_batch(items, size=self.image_size, channels=3)
        scaled: NDArray[np.float32] = (pixels - self._mean) / self._std
        return scaled

    def encode(self, batch: Any) -> NDArray[np.float32]:
        pixels = np.asarray(batch, np.float32)
        return self._unit([pixels[i : i + _AT_ONCE] for i in range(0, len(pixels), _AT_ONCE)], 0)

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts as vectors [n, dim], comparable with those of pictures."""
        listed = as_texts(texts)
        return self._unit([listed[i : i + _AT_ONCE] for i in range(0, len(listed), _AT_ONCE)], 1)

    def _unit(self, parts: Sequence[Any], side: int) -> NDArray[np.float32]:
        """The vectors of pictures (side 0) or texts, at unit length."""
        ask = (self._towers.images, self._towers.texts)[side]
        rows = np.concatenate([np.empty((0, self.dim), np.float32), *map(ask, parts)])
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        found: NDArray[np.float32] = (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
        return found

    def to(self, device: Any) -> ClipEncoder:
        """It stays on the CPU."""
        return self

    def save(self, directory: str | Path) -> None:
        """Only the SHA-256 of the model's files: the model stays where it is."""
        weights = {_SHA256: self._digest}
        files.write_encoder(directory, encoder=self.name, config={}, weights=weights, trained=True)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        device: str = "cpu",
        path: str | Path | None = None,
        model: str | None = None,
    ) -> ClipEncoder:
        """Check that the model at ``path`` is the one that was saved, and use it."""
        saved = files.read_encoder(directory)
        if path is None:
            raise EncoderError(
                f"{saved.directory} was made with a CLIP model on a disk, and what a directory "
                "names is never opened: name the model, encoder='clip:/models/my-clip' or "
                "encoder=fr.create_encoder('clip', path=...)"
            )
        with naming(saved.directory, cls.__name__):
            wanted = np.asarray(saved.arrays()[_SHA256])
        found = cls(path=path, model=model)
        if not np.array_equal(found._digest, wanted):
            raise EncoderError(
                f"{path} is not the CLIP model that {saved.directory} was made with: its files "
                "differ, so its vectors cannot be compared with those that are there"
            )
        return found


def _read(path: Path, model: str | None) -> Towers:
    if path.is_dir():
        return OnnxTowers(path)
    if path.is_file():
        from fastretrieve.encoders.models.clip_checkpoint import CheckpointTowers

        return CheckpointTowers(path, model)
    raise EncoderError(
        f"{path} is no folder with a CLIP model and no file of weights; docs/words.md says what "
        "such a folder holds"
    )


def _digest(paths: Sequence[Path]) -> NDArray[np.uint8]:
    """The SHA-256 of the files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with ordinary_file(path.resolve()) as file:
            while part := file.read(1 << 20):
                digest.update(part)
        digest.update(path.name.encode())
    return np.array(list(digest.digest()), np.uint8)
