"""Layers fused into one vector, against a direct computation with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastretrieve.encoders.blocks.layer_fusion import (
    PROBE_EVERY,
    Layer,
    LayerFusion,
    Probe,
    fit_to,
)
from fastretrieve.encoders.blocks.reduction import spectrum_of
from fastretrieve.encoders.errors import EncoderError

rng = np.random.default_rng(5)
LAYERS = {"deep": Layer(24, most=10), "shallow": Layer(6, weight=0.5)}


def features(n: int, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Correlated features far from their origin."""
    chance = np.random.default_rng(seed)
    found = {}
    for name, layer in LAYERS.items():
        mixing = np.random.default_rng(layer.width).standard_normal((layer.width, layer.width))
        found[name] = torch.from_numpy(
            chance.standard_normal((n, layer.width)) @ mixing + 5
        ).float()
    return found


def directly(
    fitted: dict[str, torch.Tensor], asked: dict[str, torch.Tensor], power: float, dim: int
) -> np.ndarray:
    """The cosines between the vectors of ``asked``, by singular values."""

    def joined(rows: dict[str, torch.Tensor]) -> np.ndarray:
        parts = []
        for name, layer in LAYERS.items():
            known = fitted[name].double().numpy()
            mean = known.mean(0)
            _, values, axes = np.linalg.svd(known - mean, full_matrices=False)
            n = min(layer.most, layer.width)
            scale = (values[:n] / np.sqrt(len(known) - 1)) ** -power
            part = (rows[name].double().numpy() - mean) @ axes[:n].T * scale
            parts.append(layer.weight * part / np.linalg.norm(part, axis=1, keepdims=True))
        return np.hstack(parts)

    known, found = joined(fitted), joined(asked)
    mean = known.mean(0)
    axes = np.linalg.svd(known - mean, full_matrices=False)[2][:dim]
    vectors = (found - mean) @ axes.T
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def cosines(vectors: torch.Tensor) -> np.ndarray:
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    return (unit @ unit.T).numpy()


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dim", [4, 16])
def test_a_vector_is_what_numpy_makes_of_the_layers(power: float, dim: int) -> None:
    fusion = LayerFusion(LAYERS, dim)
    known, asked = features(200), features(9, seed=1)
    fusion.fit(known, power=power)
    assert fusion(asked).shape == (9, dim)
    np.testing.assert_allclose(
        cosines(fusion(asked)), directly(known, asked, power, dim), atol=1e-4
    )


@pytest.mark.parametrize("n", [2, 5, 12])
def test_few_rows_lose_no_axis_of_the_joined_layers(n: int) -> None:
    fusion = LayerFusion(LAYERS, 16)
    known = features(n)
    fusion.fit(known)
    vectors = fusion(features(40, seed=2))
    assert torch.isfinite(vectors).all()
    assert torch.allclose(
        fusion.join.components @ fusion.join.components.T, torch.eye(16), atol=1e-5
    )


def test_rows_that_are_equal_and_features_that_are_dead_stay_finite() -> None:
    fusion = LayerFusion(LAYERS, 8)
    known = {name: torch.ones(30, layer.width) for name, layer in LAYERS.items()}
    fusion.fit(known)
    assert torch.isfinite(fusion(known)).all()
    known["deep"][:, :3] = torch.randn(30, 3)
    fusion.fit(known)
    assert torch.isfinite(fusion(known)).all()


def test_axes_do_not_depend_on_which_matrix_is_smaller() -> None:
    rows = torch.from_numpy(rng.standard_normal((30, 31)) * np.linspace(3, 0.5, 31))
    wide, tall = spectrum_of(rows, most=12), spectrum_of(torch.cat([rows, rows]), most=12)
    np.testing.assert_allclose(wide.axes.numpy(), tall.axes.numpy(), atol=1e-8)
    np.testing.assert_allclose(wide.variances.numpy(), tall.variances.numpy() * 59 / 58, rtol=1e-8)


def test_the_power_is_the_one_by_which_views_find_their_originals() -> None:
    """Strong axes that change from view to view, weak ones that stay: weakening finds more."""
    chance = torch.Generator().manual_seed(0)
    stays = torch.randn(300, 6, generator=chance)

    def seen() -> dict[str, torch.Tensor]:
        loud = 8 * torch.randn(300, 6, generator=chance)
        return {"a": torch.cat([loud, stays], 1)}

    known, views = seen(), seen()
    rows = torch.arange(0, 300, 4)
    fusion = LayerFusion({"a": Layer(12)}, 12)
    fusion.fit(known, Probe(rows, {"a": views["a"][rows]}))
    assert fusion.parts["a"].whiten == 1.0
    quiet = {"a": torch.cat([stays, 0.05 * torch.randn(300, 6, generator=chance)], 1)}
    noisy = {"a": quiet["a"] + 0.2 * torch.randn(300, 12, generator=chance)}
    fusion.fit(quiet, Probe(rows, {"a": noisy["a"][rows]}))
    assert fusion.parts["a"].whiten == 0.0


def test_batches_of_any_size_fit_equally() -> None:
    images = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def layers(some: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": some.flatten(2).mean(2), "b": some[:, :, ::3, ::3].flatten(1)}

    made = []
    for sizes in ([50], [1] * 50, [7, 30, 13]):
        fusion = LayerFusion({"a": Layer(3), "b": Layer(27)}, 10)
        assert fit_to(fusion, images.split(sizes), layers) == 50
        made.append(cosines(fusion(layers(images))))
    np.testing.assert_allclose(made[1], made[0], atol=1e-5)
    np.testing.assert_allclose(made[2], made[0], atol=1e-5)
    assert len(images[::PROBE_EVERY]) == 13


def test_what_cannot_be_fused_or_fitted_is_named() -> None:
    with pytest.raises(
        ValueError, match="dim must be from 1 to 16, the axes of deep, shallow, got 17"
    ):
        LayerFusion(LAYERS, 17)
    with pytest.raises(EncoderError, match="at least 2 pictures, got 1"):
        fit_to(LayerFusion({"a": Layer(3)}, 2), [torch.rand(1, 3)], lambda some: {"a": some})
