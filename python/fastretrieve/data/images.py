"""Items to pixels: any image (PIL, array, tensor) to float32 [n, channels, h, w] in [0, 1].

Needs NumPy and Pillow only. An item gets the same numbers in any batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Size: TypeAlias = tuple[int, int]  # height, width

_CHANNELS = (1, 3, 4)
_ORIENTATION = 0x0112  # the EXIF tag
_EIGHT_BITS = np.float32(1 / 255)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow's convert("L")
_TOLERANCE = 1e-3  # a decoder's output may overshoot [0, 1] by rounding


def as_size(size: int | Sequence[int]) -> Size:
    """``28`` or ``(48, 64)`` as (height, width)."""
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if height < 1 or width < 1:
        raise ValueError(f"an image size is (height, width) in pixels, at least 1, got {size}")
    return height, width


def image_batch(items: Any, *, size: int | Sequence[int], channels: int) -> NDArray[np.float32]:
    """Return float32 [n, channels, height, width] in [0, 1]; ``channels`` is 1 (grey) or 3 (RGB).

    >>> image_batch([np.full((8, 8), 255, np.uint8)], size=4, channels=1).max()
    np.float32(1.0)
    """
    height, width = as_size(size)
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {channels}")
    bulk = _bulk(items, (height, width), channels)
    if bulk is not None:
        return bulk
    batch = np.empty((len(items), channels, height, width), np.float32)
    for planes, item in zip(batch, items, strict=True):
        _fill(planes, item, channels)
    return batch


def to_image(item: Any, *, mode: str | None = None) -> Image.Image:
    """Return the item as an upright PIL image, in mode "L" or "RGB" where one is asked for.

    Transparency is laid on white; 16-bit and float images are scaled to eight bits.
    """
    if isinstance(item, Image.Image):
        image = item
    else:
        array = _as_array(item)
        image = Image.fromarray(
            array if array.dtype == np.uint8 else np.rint(array * 255).astype(np.uint8)
        )
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_wide_to_eight_bits(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), layer).convert("RGB")
    wanted = mode or ("L" if image.mode in ("1", "L") else "RGB")
    return image if image.mode == wanted else image.convert(wanted)


def resize(image: Image.Image, size: Size) -> Image.Image:
    """Resize to (height, width) with antialiasing; big reductions go through a box first."""
    height, width = size
    return image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)


def _fill(planes: NDArray[np.float32], item: Any, channels: int) -> None:
    """Write one image to [channels, h, w]. Floats stay floats: they are not rounded to bytes."""
    size = planes.shape[1], planes.shape[2]
    if not isinstance(item, Image.Image):
        array = _as_array(item)
        if array.dtype != np.uint8:
            planes[:] = _float_planes(array, size, channels)
            return
        item = array
    image = to_image(item, mode="L" if channels == 1 else "RGB")
    if image.size != size[::-1]:
        image = resize(image, size)
    pixels = np.asarray(image)
    source = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
    np.multiply(source, _EIGHT_BITS, out=planes, dtype=np.float32)


def _float_planes(array: NDArray[np.float32], size: Size, channels: int) -> NDArray[np.float32]:
    planes = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if len(planes) == 4:  # transparency is laid on white, as for files
        planes = planes[:3] * planes[3:] + (1 - planes[3:])
    if channels == 1 and len(planes) == 3:
        planes = np.tensordot(_LUMA, planes, axes=1)[None]
    if planes.shape[1:] != size:
        planes = np.stack([np.asarray(resize(Image.fromarray(plane), size)) for plane in planes])
    return planes


def _bulk(items: Any, size: Size, channels: int) -> NDArray[np.float32] | None:
    """One array or tensor of the right shape needs no Pillow, and is a hundred times faster."""
    if hasattr(items, "detach") and tuple(items.shape[1:]) == (channels, *size):
        array = items.detach().cpu().numpy()
        return _unit_range(np.asarray(array)) if array.dtype == np.float32 else None
    if not isinstance(items, np.ndarray) or items.dtype != np.uint8:
        return None
    if items.ndim == 3 and channels == 1 and items.shape[1:] == size:
        planes = items[:, None]
    elif items.ndim == 4 and items.shape[1:] == (*size, channels):
        planes = items.transpose(0, 3, 1, 2)
    else:
        return None
    batch: NDArray[np.float32] = np.multiply(planes, _EIGHT_BITS, dtype=np.float32, order="C")
    return batch


def _as_array(item: Any) -> NDArray[Any]:
    """An array [h, w] or [h, w, c], or a tensor [c, h, w], as [h, w] or [h, w, 3 or 4].

    The result is uint8, or float32 in [0, 1].
    """
    is_tensor = hasattr(item, "detach")
    array = np.asarray(item.detach().cpu() if is_tensor else item)
    if array.ndim == 3:
        first, last = array.shape[0] in _CHANNELS, array.shape[2] in _CHANNELS
        if first and (is_tensor or not last):
            array = array.transpose(1, 2, 0)
        if array.shape[2] == 1:
            array = array[:, :, 0]
    if array.ndim not in (2, 3) or array.size == 0 or array.shape[2:] not in ((), (3,), (4,)):
        raise ValueError(
            "an image is an array [h, w] or [h, w, 1, 3 or 4], or a tensor [c, h, w]; "
            f"got shape {tuple(array.shape)}"
        )
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    return _unit_range(array)


def _unit_range(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype == np.bool_:
        return array.astype(np.float32)
    if array.dtype == np.uint16:
        scaled: NDArray[np.float32] = array.astype(np.float32) / np.float32(65535)
        return scaled
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"an image is uint8, uint16 or float in [0, 1]; got dtype {array.dtype}")
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise ValueError(
            f"a float image holds values in [0, 1], got {low:.4g} to {high:.4g}; divide by 255, "
            "or pass uint8"
        )
    clipped: NDArray[np.float32] = np.clip(array.astype(np.float32), 0, 1)
    return clipped


def _wide_to_eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Modes I and F do not say what white is, so the values decide: 1, 255 or 65535."""
    pixels = np.asarray(image, np.float64)
    peak = float(pixels.max())
    white = 65535.0 if image.mode.startswith("I;16") or peak > 255 else 255.0
    if image.mode == "F" and peak <= 1:
        white = 1.0
    return np.rint(np.clip(pixels / white, 0, 1) * 255).astype(np.uint8)
