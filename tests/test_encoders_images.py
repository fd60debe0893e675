"""Any kind of image becomes the same numbers in the same range."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fastretrieve.data.images import image_batch, to_image

rng = np.random.default_rng(11)
COLOUR = rng.integers(0, 256, (6, 9, 3)).astype(np.uint8)
GREY = rng.integers(0, 256, (6, 9)).astype(np.uint8)

SAME = {
    "PIL": Image.fromarray(COLOUR),
    "array": COLOUR,
    "array of channels first": COLOUR.transpose(2, 0, 1),
    "tensor": torch.from_numpy(COLOUR).permute(2, 0, 1),
    "float array": COLOUR / 255,
    "float tensor": torch.from_numpy(COLOUR).permute(2, 0, 1) / 255,
    "opaque RGBA": Image.fromarray(COLOUR).convert("RGBA"),
    "array with alpha": np.dstack([COLOUR, np.full((6, 9), 255, np.uint8)]),
    "not contiguous": np.repeat(COLOUR, 2, axis=1)[:, ::2],
    "16 bits": COLOUR.astype(np.uint16) * 257,
}


@pytest.mark.parametrize("kind", SAME)
def test_every_kind_of_colour_image_is_the_same_batch(kind):
    found = image_batch([SAME[kind]], size=(6, 9), channels=3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0].transpose(1, 2, 0), COLOUR / 255, atol=1e-6)


@pytest.mark.parametrize("size", [(6, 9), (4, 5), (13, 8)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", SAME)
def test_kinds_agree_at_every_size_within_half_a_level(kind, size, channels):
    wanted = image_batch([COLOUR], size=size, channels=channels)
    found = image_batch([SAME[kind]], size=size, channels=channels)
    np.testing.assert_allclose(found, wanted, atol=1.6 / 255)


@pytest.mark.parametrize(
    "item",
    [GREY, GREY[:, :, None], GREY[None], Image.fromarray(GREY), GREY / 255, torch.from_numpy(GREY)],
    ids=["array", "last", "first", "PIL", "float", "tensor"],
)
def test_grey_images(item):
    found = image_batch([item], size=(6, 9), channels=1)
    np.testing.assert_allclose(found[0, 0], GREY / 255, atol=1e-6)
    three = image_batch([item], size=(6, 9), channels=3)
    assert (three == found).all()


@pytest.mark.parametrize(
    "items",
    [
        rng.integers(0, 256, (5, 6, 9)).astype(np.uint8),
        rng.integers(0, 256, (5, 6, 9, 3)).astype(np.uint8),
        torch.rand(5, 3, 6, 9),
        torch.rand(5, 1, 6, 9),
    ],
    ids=["grey array", "colour array", "colour tensor", "grey tensor"],
)
@pytest.mark.parametrize("size", [(6, 9), (3, 3)])
def test_one_array_of_images_is_as_good_as_a_list(items, size):
    for channels in (1, 3):
        together = image_batch(items, size=size, channels=channels)
        alone = np.concatenate([image_batch([i], size=size, channels=channels) for i in items])
        np.testing.assert_allclose(together, alone, atol=1e-7)


def test_floats_are_not_rounded_to_eight_bits():
    image = rng.random((6, 9)).astype(np.float32)
    assert (image_batch([image], size=(6, 9), channels=1)[0, 0] == image).all()


def test_transparency_lies_on_white():
    clear = np.zeros((4, 4, 4), np.uint8)
    for item in (Image.fromarray(clear), clear, clear / 255.0):
        assert image_batch([item], size=4, channels=3).min() == 1.0
    palette = Image.new("P", (4, 4))
    palette.info["transparency"] = 0
    assert image_batch([palette], size=4, channels=1).min() == 1.0


def test_pillow_modes():
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"):
        image = Image.fromarray(COLOUR).convert("L" if mode in ("LA", "PA", "1") else "RGB")
        if mode in ("HSV", "LAB", "YCbCr", "CMYK", "RGBX", "P", "RGBA", "RGB"):
            image = image.convert(mode) if mode != "LAB" else Image.new("LAB", (9, 6), (200, 0, 0))
        else:
            image = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)
        assert image_batch([image], size=5, channels=3).shape == (1, 3, 5, 5)


def test_wide_pixels_are_scaled_to_eight_bits():
    deep = Image.fromarray(np.array([[0, 32768, 65535]], np.uint16))
    assert np.asarray(to_image(deep)).tolist() == [[0, 128, 255]]
    whole = Image.fromarray(np.array([[0, 30000, 65535]], np.int32))
    assert np.asarray(to_image(whole)).tolist() == [[0, 117, 255]]
    for top in (1.0, 255.0):
        floats = Image.fromarray(np.array([[0, top / 2, top]], np.float32))
        assert np.asarray(to_image(floats)).tolist() == [[0, 128, 255]]


def test_a_photo_taken_sideways_stands_upright():
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    found = image_batch([Image.open(buffer)], size=(9, 6), channels=3)
    np.testing.assert_allclose(found[0].transpose(1, 2, 0), np.rot90(COLOUR, -1) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (np.zeros(3), r"got shape \(3,\)"),
        (np.zeros((5, 5, 2), np.uint8), r"got shape \(5, 5, 2\)"),
        (np.zeros((0, 4)), r"got shape \(0, 4\)"),
        (np.full((4, 4), 200.0), "divide by 255"),
        (np.full((4, 4), np.nan), "values in"),
        (np.zeros((4, 4), np.int64), "got dtype int64"),
    ],
)
def test_what_is_no_image_says_what_is(item, message):
    with pytest.raises(ValueError, match=message):
        image_batch([item], size=4, channels=3)


def test_wrong_sizes_and_channels_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        image_batch([GREY], size=(0, 4), channels=1)
    with pytest.raises(ValueError, match=r"1 \(grey\) or 3 \(RGB\)"):
        image_batch([GREY], size=4, channels=2)
