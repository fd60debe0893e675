"""A CLIP model as two ONNX files and a tokenizer, run by onnxruntime.

The folder, or its folder ``onnx``, holds

- ``visual.onnx`` (or ``vision_model.onnx``): pixels [n, 3, height, width] to vectors [n, dim];
- ``textual.onnx`` (or ``text_model.onnx``): tokens [n, length], and an ``attention_mask`` where it
  asks for one, to vectors [n, dim];
- ``tokenizer.json``, as the package tokenizers reads it;
- ``clip.json``, where the usual values do not fit: ``image_size``, ``mean``, ``std``,
  ``context_length``, ``pad``.

All weights are in the ONNX files: what they name outside is not opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.needs import wanting
from fastretrieve.data.images import Size, as_size
from fastretrieve.data.opening import open_file
from fastretrieve.data.texts import MAX_TEXT
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.saved.opening import brief, read_object

VISUAL = ("visual.onnx", "vision_model.onnx")
TEXTUAL = ("textual.onnx", "text_model.onnx")
TOKENIZER = ("tokenizer.json",)
_SETTINGS = "clip.json"
_MOST_MODEL, _MOST_TOKENIZER, _MOST_SETTINGS = 2 << 30, 64 << 20, 1 << 20  # bytes
_MOST_SIDE, _MOST_TOKENS = 2048, 4096
_OUTPUTS = ("image_embeds", "text_embeds")  # taken where a model has several
# Those of OpenAI's CLIP, which nearly all others keep.
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_SIDE, _LENGTH = 224, 77
_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class OnnxTowers:
    """See ``clip.Towers``."""

    def __init__(self, folder: Path) -> None:
        names = (VISUAL, TEXTUAL, TOKENIZER)
        visual, textual, tokenizer = (_found(folder, names) for names in names)
        settings = _settings(folder)
        self.files: Sequence[Path] = (visual, textual, tokenizer)
        self.mean: Sequence[float] = _three(settings.get("mean", _MEAN), "mean")
        self.std: Sequence[float] = _three(settings.get("std", _STD), "std")
        self._visual, self._textual = _session(visual), _session(textual)
        self.image_size: Size = self._side(visual, settings.get("image_size"))
        self._cut = self._tokenizer(tokenizer, settings)

    def images(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        (given,) = self._visual.get_inputs()
        return self._run(self._visual, [{given.name: row[None]} for row in pixels])

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        cut = self._cut.encode_batch([text[:MAX_TEXT] for text in texts])
        runs = []
        for each in cut:
            mask = np.asarray(each.attention_mask)[None]
            asked = {}
            for given in self._textual.get_inputs():
                values = mask if "mask" in given.name else np.asarray(each.ids)[None]
                asked[given.name] = values.astype(_TYPES.get(given.type, np.int64))
            runs.append(asked)
        return self._run(self._textual, runs)

    def _run(self, session: Any, runs: Sequence[dict[str, Any]]) -> NDArray[np.float32]:
        """One item a run: neither company nor a fixed batch size changes a vector."""
        names = [output.name for output in session.get_outputs()]
        name = next((name for name in names if name in _OUTPUTS), names[0])
        try:
            rows = [np.asarray(session.run([name], given)[0], np.float32) for given in runs]
        except Exception as error:  # onnxruntime has many kinds of its own
            raise EncoderError(f"the CLIP model cannot be run: {brief(error)}") from error
        for row in rows:
            if row.ndim != 2 or row.shape[0] != 1:
                raise EncoderError(
                    f"the output {name!r} of the CLIP model has shape {row.shape}, wanted [n, dim]"
                )
        return np.concatenate(rows)

    def _side(self, path: Path, given: Any) -> Size:
        """Height and width of pictures: those that the model asks for, or the settings."""
        inputs = self._visual.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise EncoderError(
                f"{path} has {len(inputs)} inputs, the first of shape {list(inputs[0].shape)}; "
                "wanted one, pixels [n, 3, height, width]"
            )
        asked = inputs[0].shape[2:]
        fixed = all(isinstance(side, int) and side > 0 for side in asked)
        try:
            size = as_size(tuple(asked) if fixed else (given or _SIDE))
        except (TypeError, ValueError) as error:
            raise EncoderError(f"image_size of {_SETTINGS}: {brief(error)}") from error
        if max(size) > _MOST_SIDE:
            raise EncoderError(f"{path}: pictures of {size} pixels, at most {_MOST_SIDE} a side go")
        return size

    def _tokenizer(self, path: Path, settings: dict[str, Any]) -> Any:
        """Cuts texts, and fills them up to the length that the model knows."""
        with wanting("text", "the encoder 'clip'", error=EncoderError):
            import tokenizers
        try:
            made = tokenizers.Tokenizer.from_buffer(_bytes(path, _MOST_TOKENIZER))
        except Exception as error:
            raise EncoderError(f"{path} is no tokenizer: {brief(error)}") from error
        asked = self._textual.get_inputs()[0].shape
        fixed = asked[-1] if isinstance(asked[-1], int) else None
        length = _whole(settings, "context_length", fixed or _LENGTH, most=_MOST_TOKENS)
        usual = (made.padding or {}).get("pad_id", 0)
        made.enable_truncation(length)
        made.enable_padding(length=length, pad_id=_whole(settings, "pad", usual, most=1 << 31))
        return made


def _found(folder: Path, names: Sequence[str]) -> Path:
    """The first of the files that is there."""
    for place in (folder, folder / "onnx"):
        for name in names:
            if (place / name).is_file():
                return place / name
    raise EncoderError(
        f"{folder} holds no {' or '.join(names)}; a CLIP model is {VISUAL[0]}, {TEXTUAL[0]} and "
        f"{TOKENIZER[0]}, or one file of weights for open_clip"
    )


def _bytes(path: Path, most: int) -> bytes:
    n_bytes = path.stat().st_size
    if n_bytes > most:
        raise EncoderError(f"{path} takes {n_bytes:,} bytes, and at most {most:,} go")
    with open_file(path) as file:
        return file.read(most)


def _session(path: Path) -> Any:
    with wanting("text", "the encoder 'clip'", error=EncoderError):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    try:
        # From memory: a file that the model names beside itself is not opened.
        return onnxruntime.InferenceSession(
            _bytes(path, _MOST_MODEL), options, providers=["CPUExecutionProvider"]
        )
    except EncoderError:
        raise
    except Exception as error:
        raise EncoderError(f"{path} is no model that onnxruntime runs: {brief(error)}") from error


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / _SETTINGS
    return read_object(path, _bytes(path, _MOST_SETTINGS)) if path.is_file() else {}


def _three(values: Any, name: str) -> Sequence[float]:
    numbers = values if isinstance(values, (list, tuple)) else ()
    if len(numbers) != 3 or not all(isinstance(x, (int, float)) and abs(x) < 1e6 for x in numbers):
        raise EncoderError(f"{name} in {_SETTINGS} is three numbers, got {str(values)[:80]!r}")
    if name == "std" and not all(x > 0 for x in numbers):
        raise EncoderError(f"std in {_SETTINGS} is three positive numbers, got {list(numbers)}")
    return [float(x) for x in numbers]


def _whole(settings: dict[str, Any], name: str, usual: int, *, most: int) -> int:
    value = settings.get(name, usual)
    if type(value) is not int or not 0 <= value <= most or (name != "pad" and value < 2):
        raise EncoderError(f"{name} in {_SETTINGS} is a whole number up to {most}, got {value!r}")
    return value
