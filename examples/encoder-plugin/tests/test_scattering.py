"""The encoder keeps the protocol, and its features mean what the README says."""

from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import pytest
from fastretrieve_scattering import ScatteringEncoder
from fastretrieve_scattering.colour import hue_saturation_value
from fastretrieve_scattering.wavelets import Scattering, morlet

from fastretrieve.encoders import create_encoder, load_encoder
from fastretrieve.testing import parametrize_checks


@parametrize_checks(ScatteringEncoder)
def test_protocol(check):
    check()


def stripes(angle, *, size=64, shift=0.0):
    y, x = np.mgrid[:size, :size]
    wave = np.sin(0.75 * np.pi * (x * np.cos(angle) + y * np.sin(angle) + shift))
    return (0.5 + 0.5 * wave).astype(np.float32)


@pytest.mark.parametrize("direction", [0, 2, 5])
def test_the_strongest_orientation_is_that_of_the_stripes(direction):
    scattering = Scattering(64, n_scales=1, n_angles=8, grid=1)
    found = scattering(stripes(direction * np.pi / 8)[None])[0]
    assert found[1:].argmax() == direction


def test_a_wavelet_ignores_constant_pictures():
    for scale in range(3):
        assert morlet(96, scale=scale, angle=0.3)[0, 0] == pytest.approx(0, abs=1e-6)


def test_a_small_shift_changes_little_and_another_texture_much():
    encoder = ScatteringEncoder(channels=1)
    pictures = [stripes(0.4), stripes(0.4, shift=0.8), stripes(1.6)]
    here, shifted, other = encoder.encode(encoder.preprocess(pictures))
    raw = [picture.ravel() - 0.5 for picture in pictures]
    assert here @ shifted > 0.99
    assert here @ other < here @ shifted - 0.02
    assert raw[0] @ raw[1] < 0  # where raw pixels call the shifted copy an opposite


def test_hues_are_those_of_the_standard_library():
    colorsys = pytest.importorskip("colorsys")
    pixels = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    found = np.stack(hue_saturation_value(pixels[:, :, None, None])).reshape(3, -1).T
    expected = [colorsys.rgb_to_hsv(*(float(v) for v in pixel)) for pixel in pixels]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_colour_tells_equal_shapes_apart():
    red, blue = (np.zeros((32, 32, 3), np.uint8) for _ in range(2))
    red[8:24, 8:24, 0] = 200
    blue[8:24, 8:24, 2] = 200
    dark_red = (red * 0.8).astype(np.uint8)
    encoder = ScatteringEncoder()
    a, b, c = encoder.encode(encoder.preprocess([red, blue, dark_red]))
    assert a @ c > a @ b + 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 8, "grid": 4}, "4 pixels a side"),
        ({"n_scales": 9}, "n_scales"),
        ({"n_angles": 0}, "n_angles"),
        ({"colour_weight": 2}, "between 0 and 1"),
    ],
)
def test_wrong_options_say_what_is_right(options, message):
    with pytest.raises(ValueError, match=message):
        ScatteringEncoder(**options)


def test_fastretrieve_finds_it(tmp_path):
    try:
        distribution("fastretrieve-scattering")
    except PackageNotFoundError:
        pytest.skip("not installed yet: pip install -e .")
    encoder = create_encoder("scattering", n_angles=4)
    encoder.save(tmp_path)
    assert load_encoder(tmp_path).dim == encoder.dim
