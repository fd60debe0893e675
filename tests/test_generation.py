"""The figures of drawn images equal their definitions; the parts that draw equal theirs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastretrieve.encoders.base import TorchEncoder
from fastretrieve.encoders.blocks.decoding import UpConv, UpsampledDecoder
from fastretrieve.encoders.blocks.networks import plan_stages
from fastretrieve.encoders.blocks.perception import Perception
from fastretrieve.encoders.blocks.prior import PARTS, Prior
from fastretrieve.encoders.blocks.steps import make_optimizers, training_step
from fastretrieve.encoders.blocks.views import Views, whole_shifts
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.models.autoencoder import AutoencoderEncoder
from fastretrieve.encoders.models.cnn import CnnEncoder
from fastretrieve.encoders.models.gan import GanEncoder
from fastretrieve.encoders.models.pretrained import PretrainedEncoder
from fastretrieve.encoders.models.vae import VaeEncoder
from fastretrieve.evaluation.generation import (
    evaluate_generator,
    kernel_distance,
    nearest_distances,
    nyquist_energy,
    share_inside,
)
from fastretrieve.training.synthetic import Synthesis, _room, _seats
from training_helpers import fit, small

rng = np.random.default_rng(14)
OLD: dict[str, tuple[type[TorchEncoder], dict[str, Any]]] = {
    "gan": (GanEncoder, {"dim": 24, "latent": 8}),
    "vae": (VaeEncoder, {"dim": 8}),
    "autoencoder": (AutoencoderEncoder, {"dim": 8}),
}


def rows(n: int, dim: int = 5) -> np.ndarray:
    return rng.standard_normal((n, dim)).astype(np.float32)


def test_kernel_distance_equals_its_definition() -> None:
    a, b = rows(6), rows(7) + 0.5

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (float(x.astype(np.float64) @ y.astype(np.float64)) / 5 + 1) ** 3

    own = sum(kernel(a[i], a[j]) for i in range(6) for j in range(6) if i != j) / 30
    other = sum(kernel(b[i], b[j]) for i in range(7) for j in range(7) if i != j) / 42
    cross = sum(kernel(x, y) for x in a for y in b) / 42
    assert kernel_distance(a, b) == pytest.approx(own + other - 2 * cross, rel=1e-9)


def test_kernel_distance_of_one_distribution_has_no_bias() -> None:
    found = [kernel_distance(rows(20), rows(20)) for _ in range(200)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 200**0.5


def test_share_inside_equals_its_definition() -> None:
    points, manifold = rows(60) + 1, rows(40)
    gaps = np.linalg.norm(manifold[:, None].astype(np.float64) - manifold[None], axis=2)
    radii = np.sort(gaps, axis=1)[:, 3]
    inside = np.linalg.norm(points[:, None].astype(np.float64) - manifold[None], axis=2) <= radii
    share = inside.any(axis=1).mean()
    assert 0 < share < 1
    assert share_inside(points, manifold) == share


@pytest.mark.parametrize("size", [(6, 8), (7, 5)], ids=["even", "odd"])
def test_nyquist_energy_equals_its_definition(size: tuple[int, int]) -> None:
    images = torch.from_numpy(rng.random((2, 3, *size)))
    height, width = size
    y, x = np.arange(height)[:, None], np.arange(width)[None]
    total = 0.0
    for v in range(height):
        for u in range(width):
            # A frequency is the highest one of its side if no other bin is farther from 0.
            if min(v, height - v) != height // 2 and min(u, width - u) != width // 2:
                continue
            wave = np.exp(-2j * np.pi * (v * y / height + u * x / width))
            sums = (images.numpy() * wave).sum((2, 3)) / (height * width)
            total += float((np.abs(sums) ** 2).mean())
    assert nyquist_energy(images) == pytest.approx(total, rel=1e-9)


def test_nearest_distance_is_of_pixels_and_may_skip_the_image_itself() -> None:
    images = torch.from_numpy(rows(6, 16)).view(6, 1, 4, 4)
    gaps = (images[:, None] - images[None]).square().mean((2, 3, 4)).sqrt()
    assert np.allclose(nearest_distances(images, images), 0, atol=1e-6)
    second = gaps.sort(dim=1).values[:, 1].numpy()
    assert np.allclose(nearest_distances(images, images, skip=1), second, rtol=1e-5)


def test_a_generator_that_copies_is_found_out_and_others_are_refused() -> None:
    images = rng.integers(0, 255, (24, 8, 8), np.uint8)

    class Copier(VaeEncoder):
        def generate(self, n: int, seed: int = 0) -> torch.Tensor:
            return torch.from_numpy(images[:n, None] / np.float32(255))

    copier = Copier(dim=4, image_size=8, channels=1, width=4)
    with pytest.raises(EncoderError, match="not trained"):
        evaluate_generator(copier, images, features="pixels")
    copier.is_trained = True
    found = evaluate_generator(copier, images, features="pixels")
    assert (found.n, found.n_copies, found.precision, found.recall) == (24, 24, 1.0, 1.0)
    assert found.nearest == pytest.approx(0, abs=1e-4)
    assert found.nyquist == pytest.approx(1, rel=1e-4)
    assert "24 copies" in str(found)
    with pytest.raises(ValueError, match="are too few: take at least 5"):
        evaluate_generator(copier, images[:4], features="pixels")
    with pytest.raises(EncoderError, match="cannot"):
        evaluate_generator(CnnEncoder(dim=4, image_size=8, channels=1, width=4), images)
    gan = GanEncoder(dim=24, image_size=8, channels=1, width=4)
    with pytest.raises(ValueError, match=r"layer must be one of \['layer1'\]"):
        evaluate_generator(copier, images, features=trained(gan), layer="none")


def trained(encoder: Any) -> Any:
    encoder.is_trained = True
    return encoder.eval()


def test_upconv_is_repeating_pixels_and_a_convolution() -> None:
    step, maps = UpConv(3, 5, (9, 13)), torch.randn(2, 3, 5, 7)
    doubled = F.interpolate(maps, scale_factor=2)
    expected = F.conv2d(doubled, step.weight, padding=1)[:, :, :9, :13]
    assert torch.allclose(step(maps), expected, atol=1e-5)


def test_smooth_upconv_is_interpolation_and_a_convolution() -> None:
    step, maps = UpConv(3, 5, (10, 14), smooths=True), torch.randn(2, 3, 5, 7)
    doubled = F.interpolate(maps, scale_factor=2, mode="bilinear")
    expected = F.conv2d(doubled, step.weight, padding=1)
    inside = (..., slice(2, -2), slice(2, -2))  # the borders are padded differently
    assert torch.allclose(step(maps)[inside], expected[inside], atol=1e-5)
    assert step(maps).shape == expected.shape


def test_a_new_decoder_draws_no_checkerboards_even_before_it_learned() -> None:
    stages = plan_stages((32, 32), width=8, max_width=32)
    energies = []
    for seed in range(3):
        torch.manual_seed(seed)
        decoder = UpsampledDecoder(8, 1, (32, 32), stages)
        image = decoder(torch.randn(16, 8)).detach()
        energies.append(nyquist_energy(image) / float(image.var()))
    assert max(energies) < 0.02  # white noise has 0.06


@pytest.mark.parametrize("name", ["gan", "vae"])
def test_files_without_the_parts_of_a_mixture_draw_as_before(name: str, tmp_path: Path) -> None:
    cls, options = OLD[name]
    parts = 0 if name == "gan" else 8
    older = {"decoder": "upsampled", "parts": parts, "perceptual": 0.0, **options}
    encoder = cls(image_size=12, channels=1, width=4, **older).eval()
    encoder.save(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text("utf-8"))
    del config["config"]["parts"], config["config"]["perceptual"]
    path.write_text(json.dumps(config), "utf-8")
    again, batch = cls.load(tmp_path), torch.rand(3, 1, 12, 12)
    assert again.config["parts"] == parts
    assert torch.equal(again.encode(batch), encoder.encode(batch))
    assert torch.equal(again.reconstruct(batch), encoder.reconstruct(batch))
    assert torch.equal(again.generate(3, seed=1), encoder.generate(3, seed=1))


@pytest.mark.parametrize("name", OLD)
def test_files_without_the_decoders_form_have_the_old_one(name: str, tmp_path: Path) -> None:
    cls, options = OLD[name]
    older = {"image_size": 12, "channels": 1, "width": 4, **options, "decoder": "transposed"}
    if name != "autoencoder":
        older |= {"perceptual": 0.0, "parts": 0 if name == "gan" else 8}
    encoder = cls(**older).eval()
    encoder.save(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text("utf-8"))
    for option in ("decoder", "perceptual", "parts"):
        config["config"].pop(option, None)
    path.write_text(json.dumps(config), "utf-8")
    again, batch = cls.load(tmp_path), torch.rand(3, 1, 12, 12)
    assert again.config["decoder"] == "transposed"
    assert not any(key.startswith(("prior", "discriminator.rebuild")) for key in again.state_dict())
    assert torch.equal(again.encode(batch), encoder.encode(batch))
    assert torch.equal(again.reconstruct(batch), encoder.reconstruct(batch))
    if "generate" in cls.capabilities:
        assert torch.equal(again.generate(3, seed=1), encoder.generate(3, seed=1))
    figures = training_step(again.train(), batch, None, make_optimizers(again))
    assert np.isfinite(list(figures.values())).all()


def test_a_decoder_of_no_known_form_is_refused() -> None:
    with pytest.raises(ValueError, match='decoder must be "smoothed", "upsampled" or "transposed"'):
        VaeEncoder(dim=4, image_size=8, decoder="magic")
    with pytest.raises(ValueError, match="perceptual is the weight of a loss"):
        VaeEncoder(dim=4, image_size=8, perceptual=-1.0)


def test_whole_shifts_interpolate_nothing_and_hand_the_gradient_on() -> None:
    torch.manual_seed(0)
    images = torch.rand(64, 3, 9, 12).requires_grad_(True)
    moved = whole_shifts(images, Views(shift=0.25, flip=True))
    for before, after in zip(images.detach(), moved.detach(), strict=True):
        assert torch.isin(after, before).all()
    assert not torch.equal(moved, images)
    (gradient,) = torch.autograd.grad(moved.sum(), images)
    assert float(gradient.sum()) == pytest.approx(images.numel())
    assert torch.equal(whole_shifts(images, Views()), images)


def test_prior_has_the_moments_of_the_latents_that_it_saw() -> None:
    prior = Prior(3)
    noise = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(prior.draw(noise, seed=0), noise)
    centres = torch.tensor([[4.0, 0, 0], [-4.0, 2, 0]])
    which = torch.arange(800) % 2
    means = centres[which] + 0.3 * torch.from_numpy(rows(800, 3))
    prior.fit(means, torch.full((800, 3), -2.0))
    drawn = prior.draw(noise, seed=3)
    wanted = means.T.cov() + np.exp(-2) * torch.eye(3)
    assert torch.allclose(drawn.mean(0), means.mean(0), atol=0.3)
    assert torch.allclose(drawn.T.cov(), wanted, rtol=0.15, atol=0.15)
    near = torch.cdist(drawn, centres).min(dim=1).values
    assert float((near > 2.5).float().mean()) < 0.02  # the gap between them stays empty
    assert float(prior.shares.sum()) == pytest.approx(1)
    prior.fit(means[:20], torch.full((20, 3), -2.0))  # too few for several parts
    assert prior.shares.tolist() == [1.0] + [0.0] * (PARTS - 1)


def test_vae_learns_what_pretrained_sees_and_saves_none_of_it(tmp_path: Path) -> None:
    vae, batch = small(VaeEncoder), torch.rand(4, 1, 10, 10)
    assert "perceptual" not in vae.loss(batch)
    vae._perception = Perception(PretrainedEncoder(imagenet=False))
    figures = vae.loss(batch)
    expected = figures["reconstruction"] + figures["divergence"] + figures["perceptual"]
    assert torch.allclose(figures["loss"], expected)
    assert float(figures["perceptual"].detach()) > 0
    assert torch.autograd.grad(figures["perceptual"], list(vae.decoder.parameters())[-1])[0].any()
    vae.eval().save(tmp_path)
    assert VaeEncoder.load(tmp_path)._perception is None
    assert not any("perception" in key for key in vae.state_dict())
    assert len(pickle.dumps(vae)) < 1 << 20


def test_gan_learns_what_pretrained_sees_and_saves_none_of_it(tmp_path: Path) -> None:
    gan, batch = small(GanEncoder, latent=8), torch.rand(4, 1, 10, 10)
    features = gan.discriminator.features(batch)

    def likeness(drawn: torch.Tensor) -> float:
        torch.manual_seed(0)
        return float(gan._likeness(drawn, batch, features).detach())

    one = batch[:1].expand(4, -1, -1, -1)  # drawings that are all alike
    assert likeness(one) == likeness(batch)
    blind = likeness(batch)
    gan._perception = Perception(PretrainedEncoder(imagenet=False))
    assert likeness(batch.flip(0)) > blind + 0.1  # redrawn images are not the same yet
    assert likeness(one) > likeness(batch.flip(0)) + 0.1
    figures = gan.loss(batch)
    gradients = torch.autograd.grad(figures["generator"], list(gan.generator.parameters()))
    assert all(bool(g.isfinite().all()) for g in gradients)
    gan.eval().save(tmp_path)
    assert GanEncoder.load(tmp_path)._perception is None
    assert len(pickle.dumps(gan)) < 1 << 20


def test_gan_draws_and_rebuilds_from_latents_as_it_has_found_them() -> None:
    gan = trained(small(GanEncoder, latent=6))
    images = torch.rand(120, 1, 10, 10)
    with gan.evaluating():
        found = gan.inverter(gan.discriminator.features(images))
    assert torch.equal(gan.invert(images, steps=0), found)
    gan.after_training([images[:70], images[70:]])
    latents = gan.invert(images, steps=0)
    assert torch.allclose(latents.mean(0), torch.zeros(6), atol=1e-4)
    assert torch.allclose(latents.std(0, correction=0), torch.ones(6), atol=0.05)
    noise = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    drawn = gan.prior.draw(noise, seed=0)
    wanted = (1 - 0.3**2) * latents.T.cov(correction=0) + 0.3**2 * torch.eye(6)
    assert torch.allclose(drawn.T.cov(), wanted, atol=0.12)


def test_long_latents_have_fewer_parts() -> None:
    assert [len(Prior(dim, parts=64).shares) for dim in (64, 96, 512)] == [64, 28, 8]
    assert len(Prior(64, parts=5).shares) == 5
    with pytest.raises(ValueError, match="parts is the number"):
        Prior(4, parts=0)
    with pytest.raises(ValueError, match="perceptual is the weight of a loss"):
        GanEncoder(dim=24, image_size=8, perceptual=-1.0)


def test_perception_is_zero_for_equal_images_and_grows_with_the_difference() -> None:
    torch.manual_seed(0)
    look = Perception(PretrainedEncoder(imagenet=False))
    images = torch.rand(3, 3, 40, 30)
    assert float(look(images, images)) == 0
    a_little, much = (look((images + by).clamp(0, 1), images).detach() for by in (0.05, 0.5))
    assert 0 < float(a_little) < float(much)


def test_vae_trains_without_the_package_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    vae = small(VaeEncoder)
    result = fit(vae, epochs=1)
    assert "perceptual" not in result.epochs[-1]


def test_drawings_are_dealt_out_equally_over_the_classes() -> None:
    from fastretrieve.data import open_dataset

    data = open_dataset(np.zeros((6, 4, 4), np.uint8), labels=["a", "a", "a", "a", "b", None])
    room = _room(data, 7)
    assert room.tolist() == [4, 4]
    votes = np.array([0] * 9 + [1, -1, 1])
    assert _seats(votes, room).tolist() == [0, 1, 2, 3, 9, 11]
    assert _seats(votes, room).tolist() == [9, 11]
    assert _seats(votes, room).tolist() == []


@pytest.mark.parametrize(
    ("without", "with_them", "verdict"),
    [(0.5, 0.6, "they help"), (0.6, 0.5, "they do harm"), (0.5, 0.51, "no clear difference")],
)
def test_the_result_says_whether_drawings_help(
    without: float, with_them: float, verdict: str
) -> None:
    made = Synthesis(9, 5, {}, {"recall@1": without}, {"recall@1": with_them}, n_held_out=400)
    assert verdict in str(made)
    made.n_held_out = 0
    assert verdict not in str(made)


def test_gan_loss_is_finite_for_one_image_and_for_equal_ones() -> None:
    gan = small(GanEncoder).eval()
    for batch in (torch.rand(1, 1, 10, 10), torch.zeros(4, 1, 10, 10)):
        losses = gan.loss(batch)
        assert all(bool(torch.isfinite(value)) for value in losses.values())
        for name, group in gan.parameter_groups().items():
            found = torch.autograd.grad(losses[name], group, allow_unused=True, retain_graph=True)
            assert all(bool(g.isfinite().all()) for g in found if g is not None)


def test_gan_generator_learns_to_draw_the_images_that_it_is_shown() -> None:
    torch.manual_seed(0)
    gan = small(GanEncoder)
    features = gan.discriminator.features(torch.rand(6, 1, 10, 10))
    bright, dark = torch.ones(6, 1, 10, 10), torch.zeros(6, 1, 10, 10)

    def error(shown: torch.Tensor) -> torch.Tensor:
        return gan._likeness(shown, shown, features)

    first = float(error(bright).detach())
    optimizer = torch.optim.Adam(gan.generator.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        error(bright).backward()
        optimizer.step()
    assert float(error(bright).detach()) < 0.5 * first
    assert float(error(dark).detach()) > first
    assert all(p.grad is None for p in gan.inverter.parameters())


def test_both_encoders_take_equally_many_steps() -> None:
    gan = small(GanEncoder, latent=4)
    fit(gan, n=64, epochs=1)
    counts = []

    class Counting(CnnEncoder):
        def loss(self, batch: Any, labels: Any = None) -> Any:
            counts[-1] += self.training
            return super().loss(batch, labels)

        def before_training(self, batches: Any) -> None:
            counts.append(0)

    fit(small(Counting), n=64, epochs=2, synthetic=gan, share=0.5)
    assert len(counts) == 2
    assert counts[0] == counts[1] > 0
