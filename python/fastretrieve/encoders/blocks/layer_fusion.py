"""Layers of a network as one vector: each reduced and brought to unit length, then joined.

Deep layers know what a picture shows, shallow ones how it is drawn, pixels where things are.
Neither has to be trained for the pictures at hand: the axes of a thousand of them are enough, and
how far the strong axes are weakened is chosen by whether changed views of held-out pictures find
their originals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, cast

import torch
from torch import nn

from fastretrieve.encoders.base import seeded
from fastretrieve.encoders.blocks.located import Located, joined
from fastretrieve.encoders.blocks.networks import unit_rows
from fastretrieve.encoders.blocks.reduction import Reduction, Spectrum, spectrum_of
from fastretrieve.encoders.blocks.shares import together
from fastretrieve.encoders.blocks.views import STRONG, Views
from fastretrieve.encoders.errors import EncoderError

POWERS = (0.5, 0.25, 0.75, 0.0, 1.0)  # of a standard deviation; of equals the first is taken
PROBE_EVERY, N_VIEWS = 4, 2  # pictures held out to choose the power, and views of each
FEWEST_ROWS, FEWEST_PROBED, MOST_PROBED = 2, 16, 256
PROBED = STRONG._replace(crop=0.3)  # so strong that a quarter is not found at first
_VIEWS_AT_ONCE = 64
Features = Mapping[str, torch.Tensor]  # layer -> [n, width]


class Layer(NamedTuple):
    """One part of the vector."""

    width: int  # of its features
    most: int = 256  # axes that are kept
    weight: float = 1.0  # its length in the joined vector


@torch.no_grad()
def fit_to(
    fusion: LayerFusion,
    batches: Iterable[torch.Tensor],
    layers: Callable[[torch.Tensor], Features],
    views: Views = PROBED,
    *,
    power: float | None = None,
) -> int:
    """Fit to the layers of pictures, as many as the batches hold; returns how many.

    Without a power, every fourth picture, or fewer of many, is held out to choose one by changed
    views of it.
    """
    found: list[Features] = []
    pictures, n = [], 0
    for images in batches:
        found.append({name: rows.float().cpu() for name, rows in layers(images).items()})
        if power is None:
            pictures.append(images[-n % PROBE_EVERY :: PROBE_EVERY])
        n += len(images)
    if n < FEWEST_ROWS:
        raise EncoderError(f"layers are fitted to at least {FEWEST_ROWS} pictures, got {n}")
    if power is not None or n < FEWEST_PROBED:
        fusion.fit(together(found), power=power)
        return n
    every = -(-sum(map(len, pictures)) // MOST_PROBED)
    held = torch.cat(pictures)[::every]
    seen = []
    with seeded(0):
        for _ in range(N_VIEWS):
            for some in torch.split(held, _VIEWS_AT_ONCE):
                seen.append({name: f.float().cpu() for name, f in layers(views(some)).items()})
    probe = Probe(PROBE_EVERY * every * torch.arange(len(held)), together(seen))
    fusion.fit(together(found), probe)
    return n


class Probe(NamedTuple):
    """Held-out pictures and changed views of them, by which the power is chosen."""

    rows: torch.Tensor  # positions of the pictures in the features that are fitted
    views: Features  # of these pictures, in that order, again and again


class LayerFusion(nn.Module):
    """Features of several layers to one vector of ``dim`` numbers.

    Until ``fit``, the axes are random and orthogonal, so that a vector is a sketch of the layers.

    >>> fusion = LayerFusion({"deep": Layer(16), "shallow": Layer(8, weight=0.5)}, 10)
    >>> features = {"deep": torch.randn(40, 16), "shallow": torch.randn(40, 8)}
    >>> fusion.fit(features)
    >>> fusion(features).shape, int(fusion.n_fitted)
    (torch.Size([40, 10]), 40)
    """

    n_fitted: torch.Tensor
    weights: torch.Tensor

    def __init__(self, layers: Mapping[str, Layer], dim: int) -> None:
        super().__init__()
        widths = {name: min(layer.width, layer.most) for name, layer in layers.items()}
        if not 1 <= dim <= sum(widths.values()):
            raise ValueError(
                f"dim must be from 1 to {sum(widths.values())}, the axes of "
                f"{', '.join(layers)}, got {dim}"
            )
        weights = torch.tensor([layer.weight for layer in layers.values()])
        self.register_buffer("weights", weights)
        self.parts = nn.ModuleDict(
            {name: Reduction(layers[name].width, width) for name, width in widths.items()}
        )
        self.join = Reduction(sum(widths.values()), dim, whiten=0.0)
        self.register_buffer("n_fitted", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Features) -> torch.Tensor:
        vectors: torch.Tensor = self.join(self._joined(features))
        return vectors

    def located(self, features: Mapping[str, Located]) -> Located:
        """As ``forward``, by positions."""
        parts = [
            features[name].reduced(cast(Reduction, reduction)).unit().times(weight.double())
            for weight, (name, reduction) in zip(self.weights, self.parts.items(), strict=True)
        ]
        return joined(parts).reduced(self.join)

    @torch.no_grad()
    def fit(
        self, features: Features, probe: Probe | None = None, *, power: float | None = None
    ) -> None:
        """Learn the axes from features [n, width] of each layer; ``probe`` chooses the power."""
        n = len(next(iter(features.values())))
        power = POWERS[0] if power is None else power
        if probe is not None:
            others = torch.ones(n, dtype=torch.bool)
            others[probe.rows] = False
            spectra = self._spectra({name: rows[others] for name, rows in features.items()})
            originals = {name: rows[probe.rows] for name, rows in features.items()}
            power = max(
                POWERS, key=lambda power: self._found_again(spectra, power, originals, probe)
            )
        self._take(self._spectra(features), power)
        self.join.take(_all_axes(self._joined(features).cpu(), len(self.join.components)))
        self.n_fitted.fill_(n)

    def weigh(self, name: str, weight: float) -> None:
        """Give a layer another weight; a fit has to follow."""
        self.weights[list(self.parts).index(name)] = weight

    def _joined(self, features: Features) -> torch.Tensor:
        device = self.weights.device  # features that are fitted to lie in the computer's memory
        parts = [
            weight * unit_rows(reduction(features[name].to(device)))
            for weight, (name, reduction) in zip(self.weights, self.parts.items(), strict=True)
        ]
        return torch.cat(parts, 1)

    def _spectra(self, features: Features) -> dict[str, Spectrum]:
        return {
            name: spectrum_of(features[name], most=len(cast(Reduction, part).components))
            for name, part in self.parts.items()
        }

    def _take(self, spectra: Mapping[str, Spectrum], power: float) -> None:
        for name, part in self.parts.items():
            cast(Reduction, part).take(spectra[name], whiten=power)

    def _found_again(
        self, spectra: Mapping[str, Spectrum], power: float, originals: Features, probe: Probe
    ) -> float:
        """The mean reciprocal rank of a picture among all, asked for by a view of it."""
        self._take(spectra, power)
        rows, asked = (self._joined(each).double().cpu() for each in (originals, probe.views))
        scores = unit_rows(asked) @ unit_rows(rows).T
        own = scores.gather(1, (torch.arange(len(asked)) % len(rows))[:, None])
        return float((1.0 / (scores >= own).sum(1)).mean())


def _all_axes(joined: torch.Tensor, n: int) -> Spectrum:
    """The ``n`` strongest axes of the joined layers, none of them lost where the rows are few:
    those that the rows do not determine are the layers' own axes, the strongest first.
    """
    found = spectrum_of(joined, most=n)
    missing = n - len(found.axes)
    if missing <= 0:
        return found
    rest = torch.eye(joined.shape[1], dtype=torch.float64) - found.axes.T @ found.axes
    order = joined.double().var(0).argsort(descending=True, stable=True)
    basis = torch.linalg.qr(torch.cat([found.axes.T, rest[:, order]], 1))[0].T[len(found.axes) :]
    variances = torch.full((missing,), float(found.variances.min()), dtype=torch.float64)
    return Spectrum(
        found.mean,
        torch.cat([found.axes, basis[:missing]]),
        torch.cat([found.variances, variances]),
    )
