"""A mixture of discretised logistics: the likelihood of 8-bit pixels given a network's outputs.

A logistic distribution is cut at the half-levels, so that each of the 256 levels has a mass and
the masses sum to one; the first and last level take the tails. In colour, green depends on red,
and blue on both, linearly (Salimans et al., PixelCNN++).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

LEVELS = 256
_HALF_LEVEL = 1 / (LEVELS - 1)  # in units where black is -1 and white is 1
_MIN_LOG_SCALE = -7.0
_LEAST_MASS = 1e-12
_GREEN_OF_RED, _BLUE_OF_RED, _BLUE_OF_GREEN = range(3)


class LogisticMixture:
    """``outputs`` of a network, [n, n_outputs(...), h, w], as a distribution of images."""

    def __init__(self, outputs: torch.Tensor, *, channels: int, components: int) -> None:
        n, n_outputs, height, width = outputs.shape
        self.channels = channels
        self.logits = outputs[:, :components].float()
        parts = (
            outputs[:, components:]
            .float()
            .reshape(n, components, (n_outputs - components) // components, height, width)
        )  # [n, component, parameter, h, w]
        self.means = parts[:, :, :channels]
        self.log_scales = parts[:, :, channels : 2 * channels].clamp(min=_MIN_LOG_SCALE)
        self.slopes = torch.tanh(parts[:, :, 2 * channels :])

    @staticmethod
    def n_outputs(*, channels: int, components: int) -> int:
        """How many channels a network must put out."""
        return components * (1 + 2 * channels + (3 if channels == 3 else 0))

    def log_likelihood(self, images: torch.Tensor) -> torch.Tensor:
        """Nats [n, h, w] of images [n, channels, h, w] in [-1, 1], multiples of a level."""
        values = images[:, None]
        distance = values - self._conditional_means(values)
        inverse_scale = torch.exp(-self.log_scales)
        upper = torch.sigmoid(inverse_scale * (distance + _HALF_LEVEL))
        lower = torch.sigmoid(inverse_scale * (distance - _HALF_LEVEL))
        upper = torch.where(values > 1 - _HALF_LEVEL, torch.ones_like(upper), upper)
        lower = torch.where(values < -1 + _HALF_LEVEL, torch.zeros_like(lower), lower)
        log_mass = (upper - lower).clamp(min=_LEAST_MASS).log().sum(2)  # over the channels
        return torch.logsumexp(log_mass + F.log_softmax(self.logits, 1), 1)

    def sample(self, generator: torch.Generator) -> torch.Tensor:
        """Draw images [n, channels, h, w], rounded to the levels, in [-1, 1]."""

        def uniform(shape: torch.Size) -> torch.Tensor:
            drawn = torch.rand(shape, generator=generator).to(self.logits.device)
            return drawn.clamp(1e-5, 1 - 1e-5)

        gumbel = -torch.log(-torch.log(uniform(self.logits.shape)))
        chosen = (self.logits + gumbel).argmax(1)[:, None, None]

        def of_chosen(parameters: torch.Tensor) -> torch.Tensor:
            index = chosen.expand(-1, 1, parameters.shape[2], -1, -1)
            return parameters.gather(1, index)[:, 0]

        means, slopes = of_chosen(self.means), of_chosen(self.slopes)
        u = uniform(means.shape)
        noise = torch.exp(of_chosen(self.log_scales)) * (u.log() - (1 - u).log())
        planes: list[torch.Tensor] = []
        for channel in range(self.channels):
            value = means[:, channel] + _dependence(channel, planes, slopes)
            planes.append(_to_level(value + noise[:, channel]))
        return torch.stack(planes, 1)

    def _conditional_means(self, values: torch.Tensor) -> torch.Tensor:
        """Means given the channels before, [n, component, channels, h, w]."""
        if self.channels == 1:
            return self.means
        earlier = [values[:, :, 0], values[:, :, 1]]
        slopes = self.slopes.transpose(1, 2)  # the parameter first, as _dependence wants it
        return torch.stack(
            [
                self.means[:, :, channel] + _dependence(channel, earlier[:channel], slopes)
                for channel in range(self.channels)
            ],
            2,
        )


def to_levels(images: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1] to [-1, 1], rounded to the 256 levels."""
    return torch.round(images * (LEVELS - 1)) * (2 / (LEVELS - 1)) - 1


def _to_level(values: torch.Tensor) -> torch.Tensor:
    return to_levels(((values + 1) / 2).clamp(0, 1))


def _dependence(
    channel: int, earlier: list[torch.Tensor], slopes: torch.Tensor
) -> torch.Tensor | float:
    """What the channels before add to a mean; ``slopes`` has its three along dimension 1."""
    if channel == 0:
        return 0.0
    if channel == 1:
        return slopes[:, _GREEN_OF_RED] * earlier[0]
    return slopes[:, _BLUE_OF_RED] * earlier[0] + slopes[:, _BLUE_OF_GREEN] * earlier[1]
