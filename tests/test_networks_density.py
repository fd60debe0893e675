"""The PixelCNN is a density: causal, and its masses sum to one."""

from __future__ import annotations

import math

import pytest
import torch

from fastretrieve.encoders.blocks.mixture import LEVELS, LogisticMixture, to_levels
from fastretrieve.encoders.models.autoregressive import AutoregressiveEncoder

GREY = torch.linspace(-1, 1, LEVELS)


def parameters(n: int, *, channels: int, components: int, seed: int = 0) -> torch.Tensor:
    n_outputs = LogisticMixture.n_outputs(channels=channels, components=components)
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(n, n_outputs, 1, 1, generator=generator)


def mixture(outputs: torch.Tensor, *, channels: int, components: int, n: int) -> LogisticMixture:
    return LogisticMixture(outputs.expand(n, -1, -1, -1), channels=channels, components=components)


@pytest.mark.parametrize("seed", range(3))
def test_the_masses_of_all_grey_levels_sum_to_one(seed: int) -> None:
    outputs = parameters(1, channels=1, components=4, seed=seed)
    density = mixture(outputs, channels=1, components=4, n=LEVELS)
    nats = density.log_likelihood(GREY.view(-1, 1, 1, 1))
    assert float(nats.exp().sum()) == pytest.approx(1, abs=1e-4)


def test_green_and_blue_sum_out_to_the_mass_of_red() -> None:
    outputs = parameters(1, channels=3, components=1)
    red = GREY[100]
    green, blue = torch.meshgrid(GREY, GREY, indexing="ij")
    colours = torch.stack([red.expand(LEVELS**2), green.flatten(), blue.flatten()], 1)
    density = mixture(outputs, channels=3, components=1, n=LEVELS**2)
    total = density.log_likelihood(colours[:, :, None, None]).exp().sum()
    # The same red alone: component weight, mean and log-scale of the first channel.
    alone = LogisticMixture(outputs[:, [0, 1, 4]], channels=1, components=1)
    expected = alone.log_likelihood(red.view(1, 1, 1, 1)).exp()
    assert float(total) == pytest.approx(float(expected), rel=1e-3)


def test_grey_samples_come_as_often_as_the_likelihood_says() -> None:
    n, outputs = 20_000, parameters(1, channels=1, components=2, seed=1)
    drawn = mixture(outputs, channels=1, components=2, n=n).sample(torch.Generator().manual_seed(0))
    assert torch.equal(drawn, to_levels((drawn + 1) / 2))
    levels = ((drawn.flatten() + 1) / 2 * 255).round().long()
    share = torch.bincount(levels, minlength=LEVELS) / n
    masses = mixture(outputs, channels=1, components=2, n=LEVELS)
    expected = masses.log_likelihood(GREY.view(-1, 1, 1, 1)).exp().flatten()
    assert float((share - expected).abs().sum()) < 0.15


def test_green_samples_depend_on_red_and_blue_on_both() -> None:
    slopes, n = [0.5, -0.3, 0.7], 20_000
    # One component: its weight, three means, three log-scales, three slopes before their tanh.
    outputs = torch.tensor([0.0, 0.1, 0.0, -0.1, -3.0, -3.0, -3.0, *map(math.atanh, slopes)])
    density = mixture(outputs.view(1, -1, 1, 1), channels=3, components=1, n=n)
    red, green, blue = density.sample(torch.Generator().manual_seed(0))[:, :, 0, 0].double().T
    one = torch.ones(n, dtype=torch.float64)
    of_red = torch.linalg.lstsq(torch.stack([red, one], 1), green).solution
    of_both = torch.linalg.lstsq(torch.stack([red, green, one], 1), blue).solution
    assert [float(of_red[0]), *of_both[:2].tolist()] == pytest.approx(slopes, abs=0.03)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_pixel_is_predicted_from_those_before_it_only(channels: int) -> None:
    model = AutoregressiveEncoder(dim=4, image_size=8, channels=channels, width=6, blocks=2).eval()
    levels = torch.rand(1, channels, 8, 8) * 2 - 1
    with torch.no_grad():
        before = model.out(model._maps(levels)[-1])
        for y, x in [(0, 0), (3, 4), (7, 7), (5, 0)]:
            changed = levels.clone()
            changed[:, :, y, x] += 0.5
            moved = (model.out(model._maps(changed)[-1]) - before).abs().sum(1)[0] > 0
            place = torch.arange(64).view(8, 8)
            assert not moved[place <= 8 * y + x].any(), f"pixel {y, x} was seen too early"
            if (y, x) != (7, 7):
                assert moved.any()


def test_drawing_in_a_window_equals_drawing_from_the_whole_image() -> None:
    model = AutoregressiveEncoder(dim=4, image_size=24, channels=1, width=6, blocks=3).eval()
    images = torch.rand(2, 1, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        for y, x in [(0, 0), (0, 23), (11, 12), (23, 23), (20, 0)]:
            whole = model._mixture(model.out(model._maps(images)[-1])[:, :, y : y + 1, x : x + 1])
            expected = whole.sample(torch.Generator().manual_seed(1))[:, :, 0, 0]
            found = model._draw_pixel(images, y, x, torch.Generator().manual_seed(1))
            assert torch.allclose(found, expected, atol=1 / 255)


def test_bits_per_dim_are_nats_over_values_and_the_loss_is_their_mean() -> None:
    model = AutoregressiveEncoder(dim=4, image_size=8, channels=3, width=6, blocks=2).eval()
    batch = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    bits = model.bits_per_dim(batch)
    assert torch.allclose(bits, -model.log_likelihood(batch) / (192 * math.log(2)))
    with torch.no_grad():
        assert torch.allclose(model.loss(batch)["bits_per_dim"], bits.mean())


def test_big_images_have_a_density_at_32_pixels() -> None:
    model = AutoregressiveEncoder(dim=4, image_size=(96, 48), channels=1, width=6, blocks=2)
    assert model.inner_size == (32, 16)
    batch = torch.rand(2, 1, 96, 48)
    small = torch.nn.functional.adaptive_avg_pool2d(batch, (32, 16))
    other = AutoregressiveEncoder(dim=4, image_size=(32, 16), channels=1, width=6, blocks=2)
    assert torch.allclose(model.log_likelihood(batch), other.log_likelihood(small), rtol=1e-5)
