"""The parts of which the encoders are built, each against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastretrieve.encoders.blocks.contrast import same_label_loss, two_views_loss
from fastretrieve.encoders.blocks.networks import plan_stages, unit_rows
from fastretrieve.encoders.blocks.reduction import Reduction
from fastretrieve.encoders.blocks.spectral import SpectralConv2d, SpectralLinear
from fastretrieve.encoders.blocks.views import Views

rng = np.random.default_rng(11)


def cosines(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def test_two_views_loss_equals_its_definition() -> None:
    vectors = rng.standard_normal((8, 5))
    similar = np.exp(cosines(vectors) / 0.2)
    total = 0.0
    for i in range(8):
        others = sum(similar[i, j] for j in range(8) if j != i)
        total -= math.log(similar[i, (i + 4) % 8] / others)
    found = two_views_loss(torch.from_numpy(vectors))
    assert float(found) == pytest.approx(total / 8, rel=1e-5)


def test_same_label_loss_equals_its_definition_and_leaves_the_lonely_out() -> None:
    vectors, labels = rng.standard_normal((7, 5)), [0, 1, 0, 1, 0, 2, -1]
    similar = np.exp(cosines(vectors) / 0.2)
    terms = []
    for i, label in enumerate(labels):
        mates = [j for j, other in enumerate(labels) if other == label and j != i and label >= 0]
        others = sum(similar[i, j] for j in range(7) if j != i)
        if mates:
            terms.append(-np.mean([math.log(similar[i, j] / others) for j in mates]))
    found = same_label_loss(torch.from_numpy(vectors), torch.tensor(labels))
    assert len(terms) == 5
    assert float(found) == pytest.approx(float(np.mean(terms)), rel=1e-5)


def test_same_label_loss_of_strangers_is_zero_not_nan() -> None:
    assert float(same_label_loss(torch.rand(3, 4), torch.tensor([0, 1, -1]))) == 0


def test_reduction_keeps_the_strongest_components() -> None:
    rows = torch.from_numpy(rng.standard_normal((200, 6)) * [5, 4, 1, 1, 0.1, 0.1] + 3).float()
    reduction = Reduction(6, 2, whiten=0.0)
    reduction.fit(rows)
    centred = rows.double().numpy() - rows.double().numpy().mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    expected, found = centred @ axes[:2].T, reduction(rows).numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_reduction_whitens_by_a_power_of_the_spread(whiten: float) -> None:
    rows = torch.from_numpy(rng.standard_normal((500, 4)) * [8, 4, 2, 1]).float()
    plain, white = Reduction(4, 4, whiten=0.0), Reduction(4, 4, whiten=whiten)
    plain.fit(rows)
    white.fit(rows)
    spread = plain(rows).std(0)
    assert torch.allclose(white(rows).std(0), spread ** (1 - whiten), rtol=1e-3)


def test_reduction_of_features_without_spread_stays_finite() -> None:
    reduction = Reduction(5, 3, whiten=1.0)
    reduction.fit(torch.ones(10, 5))
    assert torch.isfinite(reduction(torch.rand(4, 5))).all()
    reduction.fit(torch.rand(2, 5))  # fewer rows than dimensions
    assert torch.isfinite(reduction(torch.rand(4, 5))).all()


def test_an_unfitted_reduction_is_orthogonal() -> None:
    components = Reduction(9, 4).components
    assert torch.allclose(components @ components.T, torch.eye(4), atol=1e-5)


def test_spectral_layers_stretch_nothing_by_more_than_one() -> None:
    torch.manual_seed(0)
    linear, conv = SpectralLinear(12, 7, bias=False), SpectralConv2d(3, 5, 4, bias=False)
    for layer in (linear, conv):
        layer.weight.data.mul_(20)
        layer.start()
        weight = layer.norm(layer.weight).detach().flatten(1)
        assert float(torch.linalg.matrix_norm(weight, 2)) == pytest.approx(1, abs=0.05)
    vectors = torch.randn(50, 12)
    assert bool((linear(vectors).norm(dim=1) <= 1.05 * vectors.norm(dim=1)).all())


def test_spectral_norm_changes_in_training_only() -> None:
    layer = SpectralLinear(6, 6)
    layer.start()
    layer.weight.data.copy_(torch.randn(6, 6))
    state = layer.norm.direction.clone()
    layer.eval()(torch.rand(1, 6))
    assert torch.equal(state, layer.norm.direction)
    first = layer.train()(torch.rand(2, 6))
    second = layer(torch.rand(2, 6))
    (first.sum() + second.sum()).backward()  # two passes before one backward, as a gan has them
    assert not torch.equal(state, layer.norm.direction)


def test_views_without_changes_change_nothing() -> None:
    images = torch.rand(4, 3, 8, 8)
    assert Views()(images) is images


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = torch.rand(400, 1, 6, 7)
    torch.manual_seed(0)
    changed = Views(flip=True)(images)
    same = torch.isclose(changed, images, atol=1e-4).flatten(1).all(1)
    mirrored = torch.isclose(changed, images.flip(3), atol=1e-4).flatten(1).all(1)
    assert bool((same | mirrored).all())
    assert 150 < int(mirrored.sum()) < 250


@pytest.mark.parametrize("channels", [1, 3])
def test_views_stay_in_range_and_leave_their_input_alone(channels: int) -> None:
    images = torch.rand(20, channels, 9, 12)
    before = images.clone()
    torch.manual_seed(0)
    changed = Views(crop=0.5, shift=0.1, flip=True, colour=0.8, hue=0.5, grey=0.2)(images)
    assert changed.shape == images.shape
    assert torch.equal(images, before)
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    assert not torch.isclose(changed, images).flatten(1).all(1).any()


def test_hues_turn_and_greys_stay() -> None:
    images = 0.4 + 0.2 * torch.rand(300, 3, 4, 5)  # no turn leaves the range, so nothing is cut off
    torch.manual_seed(0)
    changed = Views(hue=1.0)(images)
    middle, shown = images.mean(1, keepdim=True), changed.mean(1, keepdim=True)
    assert torch.allclose(shown, middle, atol=1e-6)
    colour, turned = images - middle, changed - shown
    assert torch.allclose(turned.norm(dim=1), colour.norm(dim=1), atol=1e-5)
    # All pixels of an image by one angle, and the angles of all images around the whole circle.
    cosine = (turned * colour).sum(1) / colour.square().sum(1)
    assert float((cosine.flatten(1).max(1)[0] - cosine.flatten(1).min(1)[0]).max()) < 1e-3
    assert float(cosine.max()) > 0.95
    assert float(cosine.min()) < -0.95
    greys = middle.expand_as(images)
    assert torch.allclose(Views(hue=1.0, grey=0.5)(greys), greys, atol=1e-6)


def test_some_images_lose_their_colours() -> None:
    images = torch.rand(400, 3, 4, 5)
    torch.manual_seed(0)
    changed = Views(grey=0.25)(images)
    grey = torch.isclose(changed, changed.mean(1, keepdim=True), atol=1e-6).flatten(1).all(1)
    assert 60 < int(grey.sum()) < 140
    assert torch.allclose(changed[~grey], images[~grey], atol=1e-6)


def test_images_of_one_channel_have_no_hues() -> None:
    images = torch.rand(4, 1, 8, 8)
    assert Views(hue=1.0, grey=1.0)(images) is images


def test_a_crop_never_shows_what_is_outside() -> None:
    images = torch.full((50, 1, 10, 10), 0.5)
    torch.manual_seed(0)
    assert torch.allclose(Views(crop=0.5, shift=0.2)(images), images)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (31, 200), (512, 8), (512, 512)])
def test_a_plan_halves_to_a_few_pixels_and_widens_late(size: tuple[int, int]) -> None:
    stages = plan_stages(size, width=8, max_width=32)
    current = size
    for stage in stages:
        current = (math.ceil(current[0] / 2), math.ceil(current[1] / 2))
        assert stage.size == current
        assert (stage.width > 8) == (max(stage.size) <= 16)
    assert max(current) <= 4


def test_unit_rows_leave_a_zero_row() -> None:
    assert unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0.0, 0.0],
    ]
