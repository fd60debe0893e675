"""The built-in image encoders: any size, grey and colour, and what each one promises."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fastretrieve as fr
from fastretrieve.encoders import load_encoder
from fastretrieve.encoders.blocks.shares import see
from fastretrieve.encoders.blocks.steps import make_optimizers, training_step
from fastretrieve.encoders.models.autoencoder import AutoencoderEncoder
from fastretrieve.encoders.models.autoregressive import AutoregressiveEncoder
from fastretrieve.encoders.models.cnn import CnnEncoder
from fastretrieve.encoders.models.fused import ALONE, CHOICES
from fastretrieve.encoders.models.gan import GanEncoder
from fastretrieve.encoders.models.rnn import RnnEncoder
from fastretrieve.encoders.models.translator import TranslatorEncoder
from fastretrieve.encoders.models.vae import VaeEncoder
from fastretrieve.testing import parametrize_checks

SMALL: dict[str, Any] = {
    "cnn": (CnnEncoder, {"dim": 16, "width": 8}),
    "autoencoder": (AutoencoderEncoder, {"dim": 8, "width": 8}),
    "vae": (VaeEncoder, {"dim": 8, "width": 8}),
    "gan": (GanEncoder, {"dim": 24, "width": 8, "latent": 8}),
    "autoregressive": (AutoregressiveEncoder, {"dim": 8, "width": 8, "blocks": 2, "mixture": 2}),
}
SIZES = {
    "smallest": (8, 8),
    "odd": (9, 15),
    "fashion": (28, 28),
    "one side at the end of halving early": (8, 100),
    "wide": (48, 64),
}


def small(name: str, **options: Any) -> Any:
    cls, config = SMALL[name]
    return cls(**{"image_size": 16, "channels": 1, **config, **options})


def images(n: int, size: tuple[int, int] = (16, 16), channels: int = 1) -> torch.Tensor:
    return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(3))


@parametrize_checks(
    lambda: CnnEncoder(dim=16, width=8, image_size=20),
    lambda: AutoencoderEncoder(dim=8, width=8, image_size=20),
    lambda: VaeEncoder(dim=8, width=8, image_size=20),
    lambda: GanEncoder(dim=24, width=8, latent=8, image_size=20),
    lambda: TranslatorEncoder(dim=8, width=8, image_size=20),
    lambda: AutoregressiveEncoder(dim=8, width=8, blocks=2, mixture=2, image_size=10),
    lambda: RnnEncoder(dim=8, hidden=16),
    load=None,
)
def test_encoder_keeps_the_promises_of_the_protocol(check: Any) -> None:
    check()


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", SMALL)
def test_any_size_encodes_trains_rebuilds_and_draws(
    name: str, size: tuple[int, int], channels: int
) -> None:
    encoder = small(name, image_size=size, channels=channels)
    batch = images(3, size, channels)
    figures = training_step(encoder, batch, None, make_optimizers(encoder))
    assert all(np.isfinite(value) for value in figures.values())
    assert encoder.encode(batch).shape == (3, encoder.dim)
    if "reconstruct" in encoder.capabilities:
        assert encoder.reconstruct(batch).shape == batch.shape
    if "generate" in encoder.capabilities and max(size) < 64:
        drawn = encoder.generate(2, seed=1)
        assert drawn.shape == (2, channels, *size)
        assert float(drawn.min()) >= 0
        assert float(drawn.max()) <= 1


@pytest.mark.parametrize("name", SMALL)
def test_the_largest_images_encode(name: str) -> None:
    encoder = small(name, image_size=512, channels=3)
    assert encoder.encode(torch.rand(1, 3, 512, 512)).shape == (1, encoder.dim)


@pytest.mark.parametrize("size", [7, 513, (64, 4)])
@pytest.mark.parametrize("name", SMALL)
def test_a_size_out_of_range_says_the_range(name: str, size: Any) -> None:
    with pytest.raises(ValueError, match="between 8 and 512 pixels a side"):
        small(name, image_size=size)


@pytest.mark.parametrize("name", SMALL)
def test_seed_decides_the_first_weights_and_nothing_else_changes(name: str) -> None:
    before = torch.get_rng_state()
    one, again, other = small(name, seed=1), small(name, seed=1), small(name, seed=2)
    assert torch.equal(before, torch.get_rng_state())
    batch = images(2)
    assert torch.equal(one.encode(batch), again.encode(batch))
    assert not torch.equal(one.encode(batch), other.encode(batch))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cnn", {"objective": "magic"}, "objective must be one of auto, softmax"),
        ("autoencoder", {"reconstruction": "l1"}, 'reconstruction must be "mse" or "bce"'),
        ("autoencoder", {"noise": -1.0}, "noise is a standard deviation"),
        ("vae", {"beta": 0.0}, "beta must be positive"),
        ("gan", {"latent": 0}, "latent must be at least 1"),
        ("gan", {"dim": 1}, "dim must be at least"),
        ("autoregressive", {"blocks": 1}, "blocks and width must be at least 2"),
        ("autoregressive", {"dim": 500}, "cannot keep 500 dimensions of 256 features"),
        ("vae", {"channels": 2}, "channels must be 1"),
    ],
)
def test_a_wrong_option_says_what_is_right(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small(name, **options)


def test_cnn_chooses_its_objective_by_what_it_is_given() -> None:
    labels, batch = torch.tensor([0, 1, 0, 1]), images(4)
    encoder = small("cnn")
    with torch.random.fork_rng():
        views = encoder.loss(batch)
    assert set(views) == {"loss"}
    assert set(encoder.loss(batch, labels)) == {"loss"}  # metric: no classes are known
    encoder.set_classes(["a", "b"])
    assert set(encoder.loss(batch, labels)) == {"loss", "accuracy"}
    with pytest.raises(ValueError, match="learns from labels, but no item here has one"):
        small("cnn", objective="metric").loss(batch)
    with pytest.raises(ValueError, match="set_classes"):
        small("cnn", objective="softmax").loss(batch, labels)


def test_cnn_unlabelled_items_teach_the_softmax_nothing() -> None:
    encoder = small("cnn").eval()
    encoder.set_classes(["a", "b"])
    batch, labels = images(5), torch.tensor([0, -1, 1, -1, 0])
    some = encoder.loss(batch, labels)
    only = encoder.loss(batch[labels >= 0], labels[labels >= 0])
    assert torch.allclose(some["loss"], only["loss"], rtol=1e-5)
    assert torch.allclose(some["accuracy"], only["accuracy"])


def test_cnn_without_classes_has_no_probabilities() -> None:
    with pytest.raises(ValueError, match=r"use fr\.classify"):
        small("cnn").probabilities(images(1))


def test_cnn_code_is_a_projection_of_unit_features() -> None:
    encoder = small("cnn").eval()
    maps = encoder.body(images(2))
    features = maps.mean((2, 3))
    unit = features / features.norm(dim=1, keepdim=True)
    expected = unit @ encoder.project.weight.T + encoder.project.bias
    assert torch.allclose(encoder.code(images(2)), expected, atol=1e-5)
    assert torch.allclose(small("cnn", form="code").encode(images(2)), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["cnn", "autoencoder", "vae"])
def test_a_directory_without_a_form_is_the_encoder_of_before(name: str, tmp_path: Path) -> None:
    before = small(name, form="code")
    before.after_training([images(30)])
    before.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["config"].pop("form") == "code"
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = load_encoder(tmp_path)
    assert found.fusion is None
    assert torch.equal(found.encode(images(3)), before.encode(images(3)))
    with pytest.raises(ValueError, match='form must be "fused" or "code"'):
        small(name, form="both")


def test_a_fitted_vector_finds_what_an_untrained_code_does_not() -> None:
    encoder = small("cnn", dim=16).eval()
    pictures = images(120)
    encoder.after_training([pictures[:70], pictures[70:]])
    assert int(encoder.fusion.n_fitted) == 120
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    changed = pictures + 0.1 * noise

    def found(vectors: Any) -> float:
        ids = fr.topk(vectors(changed).detach(), vectors(pictures).detach(), k=1).ids[:, 0]
        return float((ids == torch.arange(120)).float().mean())

    assert found(encoder.encode) > found(encoder.code)


def test_vae_elbo_is_reconstruction_minus_divergence() -> None:
    vae, batch = small("vae", beta=3.0).eval(), images(4)
    mean, log_var = vae._posterior(batch)
    posterior = torch.distributions.Normal(mean, (0.5 * log_var).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    divergence = torch.distributions.kl_divergence(posterior, prior).sum(1)
    noise = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(5))
    nats = torch.zeros(4)
    for draw in noise:
        logits = vae.decoder(mean + (0.5 * log_var).exp() * draw)
        errors = F.binary_cross_entropy_with_logits(logits, batch, reduction="none")
        nats += errors.sum((1, 2, 3)) / 2
    expected = (-nats - divergence).detach()
    assert torch.allclose(vae.elbo(batch, samples=2, seed=5), expected, rtol=1e-5)


def test_vae_loss_weighs_the_divergence_by_beta() -> None:
    torch.manual_seed(0)
    figures = small("vae", beta=3.0).loss(images(4))
    expected = figures["reconstruction"] + 3 * figures["divergence"]
    assert torch.allclose(figures["loss"], expected)


def test_gan_players_descend_on_their_own_losses_only() -> None:
    gan, batch = small("gan"), images(8)
    groups = gan.parameter_groups()
    players = {id(p) for group in groups.values() for p in group}
    assert len(players) == sum(len(group) for group in groups.values())
    torch.manual_seed(0)
    losses = gan.loss(batch)
    for loss, owner in (("inverter", "inverter"), ("generator", "generator")):
        for name, group in groups.items():
            gradients = torch.autograd.grad(
                losses[loss], group, allow_unused=True, retain_graph=True
            )
            touched = any(g is not None and bool((g != 0).any()) for g in gradients)
            if name == owner:
                assert touched
            elif loss == "inverter":
                assert not touched, f"the inverter's loss reaches the {name}"


def test_gan_draws_from_a_running_mean_of_the_generator() -> None:
    gan = small("gan")
    first = gan.generate(2, seed=0)
    optimizers = make_optimizers(gan)
    torch.manual_seed(0)
    for _ in range(3):
        training_step(gan, images(8), None, optimizers)
    assert int(gan.averaged_steps) == 3
    assert not torch.equal(first, gan.generate(2, seed=0))
    own = dict(gan.generator.named_parameters())
    mean = dict(gan.averaged.named_parameters())
    assert any(not torch.equal(own[name], mean[name]) for name in own)
    assert not any(p.requires_grad for p in mean.values())


def test_gan_descent_brings_the_inverted_image_closer() -> None:
    gan = small("gan").eval()
    target = gan.generate(3, seed=7)
    at_once = F.mse_loss(gan.draw(gan.invert(target, steps=0)), target)
    after = F.mse_loss(gan.draw(gan.invert(target, steps=30)), target)
    assert float(after) < 0.7 * float(at_once)


def test_gan_fused_vector_has_unit_length_and_survives_pickling() -> None:
    gan = small("gan").eval()
    vectors = gan.encode(images(3))
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.equal(pickle.loads(pickle.dumps(gan)).encode(images(3)), vectors)


@pytest.mark.parametrize("name", ["autoencoder", "gan", "autoregressive"])
def test_after_training_centres_what_it_saw(name: str) -> None:
    encoder = small(name).eval()
    batch = images(40)
    before = encoder.encode(batch)
    encoder.after_training([batch[:20], batch[20:]])
    after = encoder.encode(batch)
    assert not torch.allclose(before, after)
    if name != "gan":  # whose vectors are normalised after the reduction
        assert torch.allclose(after.mean(0), torch.zeros(encoder.dim), atol=1e-3)


def test_autoencoder_learns_to_rebuild_the_clean_image() -> None:
    encoder, batch = small("autoencoder", noise=0.2, reconstruction="mse"), images(6)
    optimizers = make_optimizers(encoder)
    torch.manual_seed(0)
    before = F.mse_loss(encoder.eval().reconstruct(batch), batch)
    encoder.train()
    for _ in range(40):
        training_step(encoder, batch, None, optimizers)
    assert float(F.mse_loss(encoder.eval().reconstruct(batch), batch)) < 0.8 * float(before)


def test_labels_choose_how_much_of_the_vector_is_code() -> None:
    """What was scored is what is fitted: no choice by labels leaves the power to views."""
    encoder, pictures = small("cnn", dim=16).eval(), images(60)
    labels = torch.arange(60) % 30
    shown = see(encoder, [(pictures, labels)])
    scores = encoder.share_scores(shown, see(encoder, [(pictures[:20] + 0.01, labels[:20])]))
    assert scores.shape == (ALONE + 1,)
    assert scores[0] == float("-inf")
    assert torch.isfinite(scores[1:]).all()
    for number, (power, weight) in enumerate(CHOICES[1:], start=1):
        encoder.adopt(torch.eye(ALONE + 1)[number])
        encoder.fit_parts(shown.parts)
        assert torch.allclose(encoder.join(shown.parts), encoder.encode(pictures), atol=1e-5)
        assert (encoder.fusion.parts["code"].whiten, float(encoder.fusion.weights[-1])) == (
            power,
            weight,
        )
    encoder.adopt(torch.eye(ALONE + 1)[ALONE])
    assert torch.equal(encoder.encode(pictures), encoder.code(pictures))
    assert torch.equal(encoder.join(shown.parts), shown.parts["code"])
