"""``gan``: a generator against a discriminator, whose layers make the vector.

The game is stable by known means: spectral norms and the hinge loss (SN-GAN), the same random
changes of real and drawn images (DiffAugment), and two more tasks for the discriminator, to tell
which two views show one image (as in ContraD) and to rebuild it from its last layer (FastGAN).
Those tasks are also what makes its layers worth searching.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve.encoders.base import (
    UNSAVED_BYTES,
    TorchEncoder,
    arguments,
    batch_length,
    normal_noise,
    seeded,
)
from fastretrieve.encoders.blocks.averaging import move_average
from fastretrieve.encoders.blocks.contrast import two_views_loss
from fastretrieve.encoders.blocks.critic import Discriminator, matching_error, spread_of
from fastretrieve.encoders.blocks.decoding import OF_OLD_FILES, DecoderForm, make_decoder
from fastretrieve.encoders.blocks.located import grid_of, joined, located, no_parts
from fastretrieve.encoders.blocks.networks import (
    checked_size,
    grid_pool,
    initialise,
    plan_stages,
)
from fastretrieve.encoders.blocks.perception import Perception, find_perception, map_distance
from fastretrieve.encoders.blocks.prior import PARTS, Prior
from fastretrieve.encoders.blocks.recipe import Recipe
from fastretrieve.encoders.blocks.reduction import Reduction
from fastretrieve.encoders.blocks.views import Views, whole_shifts
from fastretrieve.encoders.protocol import Batch, Figure

GRID = 4  # cells a side over which a layer is averaged, as in the DCGAN paper
# The layers that are fused, counted from the last: its share of the dimensions and its weight.
# Deep layers know more of what an image shows, early ones more of how it looks.
FUSED = {-3: (0.25, 0.5), -2: (0.25, 0.7), -1: (0.5, 1.0)}
GAME = Views(shift=0.125, colour=0.2)  # changes of what the game is played with
_REDRAWING = 20.0  # weight of the error of a redrawn pixel
_BLUR = 0.3  # standard deviation of the noise on its latents, which stay of variance 1
_KEPT = math.sqrt(1 - _BLUR**2)
_DESCENT = 20  # steps from the inverter's answer to a latent that redraws the image better


class GanEncoder(TorchEncoder):
    """Generator against discriminator; an inverter maps an image back to its latent.

    The vector fuses the last three layers of the discriminator, the deep ones with more weight:
    each averaged over a 4 x 4 grid and reduced by whitened principal components, which
    ``after_training`` fits.

    >>> gan = GanEncoder(dim=24, image_size=16, channels=1, width=8)
    >>> images = gan.generate(3, seed=1)
    >>> gan.invert(images).shape, gan.reconstruct(images).shape
    (torch.Size([3, 64]), torch.Size([3, 1, 16, 16]))
    """

    name = "gan"
    capabilities = frozenset({"trainable", "reconstruct", "generate", "invert", "layers", "parts"})
    unsaved_bytes = UNSAVED_BYTES
    unnamed_options: ClassVar[Mapping[str, Any]] = {**OF_OLD_FILES, "perceptual": 0.0, "parts": 0}
    progress_figure = Figure("views", "lower")  # the game's own losses need not fall
    recipe = Recipe(lr=1e-3, weight_decay=0.0, betas=(0.5, 0.999), batch_size=64, steps=8000)
    augmentable = False  # it makes its own views, alike for real and drawn images

    averaged_steps: torch.Tensor
    latent_mean: torch.Tensor
    latent_spread: torch.Tensor

    def __init__(
        self,
        *,
        dim: int = 512,
        image_size: int | Sequence[int] = 64,
        channels: int = 3,
        latent: int = 64,
        width: int = 32,
        seed: int = 0,
        decoder: DecoderForm = "smoothed",
        perceptual: float = 1.0,
        parts: int = PARTS,
    ) -> None:
        super().__init__(dim=dim, config=arguments(locals()))
        if latent < 1:
            raise ValueError(f"latent must be at least 1, got {latent}")
        if not perceptual >= 0:
            raise ValueError(f"perceptual is the weight of a loss, at least 0, got {perceptual}")
        self.latent, self.perceptual = latent, perceptual
        self.views = Views(crop=0.6, colour=0.4, hue=0.4, grey=0.2)
        size = checked_size(self.image_size)
        stages = plan_stages(size, width=width, max_width=4 * width)
        with seeded(seed):
            self.discriminator = Discriminator(
                self.channels, size, width=width, rebuilds=decoder != "transposed"
            )
            self.generator = make_decoder(decoder, latent, self.channels, size, stages)
            initialise(self.generator)
            self.averaged = make_decoder(decoder, latent, self.channels, size, stages)
            self.averaged.requires_grad_(False)
            n_features = self.discriminator.n_features
            self.inverter = nn.Sequential(
                nn.Linear(n_features, 256), nn.ReLU(), nn.Linear(256, latent)
            )
            initialise(self.inverter)
            self.reductions = self._make_reductions()
        self.averaged.load_state_dict(self.generator.state_dict())
        self.register_buffer("averaged_steps", torch.zeros((), dtype=torch.int64))
        self.prior = Prior(latent, parts=parts) if parts else None
        if self.prior is not None:
            self.register_buffer("latent_mean", torch.zeros(latent))
            self.register_buffer("latent_spread", torch.ones(latent))
        self._perception: Perception | None = None

    def embed(self, batch: Batch) -> torch.Tensor:
        from fastretrieve import fuse

        pairs = self._fused_maps(self.discriminator.maps(batch))
        weights = [weight for _, weight in list(FUSED.values())[-len(pairs) :]]
        parts = [reduction(features) for reduction, features in pairs]
        return cast(torch.Tensor, fuse(parts, weights=weights))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The players, each named as its loss."""
        return {
            "discriminator": list(self.discriminator.parameters()),
            "generator": list(self.generator.parameters()),
            "inverter": list(self.inverter.parameters()),
        }

    def loss(self, batch: Batch, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Each player's loss, and "views": how far the discriminator confuses two images."""
        real = self.on_device(batch)
        latents = torch.randn(len(real), self.latent, device=self.device)
        drawn = self.generator(latents).float().sigmoid()
        critic, n = self.discriminator, len(real)
        changes = GAME._replace(flip=self.views.flip)
        shown = whole_shifts(real, changes)
        maps = critic.maps(torch.cat([shown, self.views(real)]))
        seen, seen_drawn = maps[-1].flatten(1), critic.features(whole_shifts(drawn, changes))
        views = two_views_loss(critic.compare(seen))
        real_score, drawn_score = critic.judge(seen[:n]), critic.judge(seen_drawn)
        game = F.relu(1 - real_score).mean() + F.relu(1 + drawn_score).mean()
        found = self.inverter(seen_drawn.detach()).float()
        likeness = matching_error(seen_drawn, seen[:n]) + self._likeness(drawn, shown, seen[:n])
        if self.training:
            move_average(self.averaged, self.generator, self.averaged_steps)
        return {
            "discriminator": game + views + critic.rebuilding_error(maps[-1][:n], shown),
            "generator": likeness - drawn_score.mean(),
            "inverter": F.mse_loss(found, latents),
            "views": views.detach(),
        }

    def invert(self, batch: Batch, *, steps: int = _DESCENT) -> torch.Tensor:
        """The latents [n, latent] from which the generator draws these images.

        ``steps`` of gradient descent on the latents follow the inverter's answer.
        """
        images = self.on_device(batch)
        with self.evaluating():
            latents: torch.Tensor = self.inverter(self.discriminator.features(images)).float()
            if self.prior is not None:
                latents = (latents - self.latent_mean) / self.latent_spread
            if steps == 0:
                return latents
            with torch.enable_grad():
                latents.requires_grad_(True)
                optimizer = torch.optim.Adam([latents], lr=0.05)
                for _ in range(steps):
                    # A sum, so that an image's latent does not depend on the batch it is in.
                    errors = F.mse_loss(self._decode(latents), images, reduction="sum")
                    (latents.grad,) = torch.autograd.grad(errors, [latents])
                    optimizer.step()
            return latents.detach()

    def draw(self, codes: torch.Tensor) -> torch.Tensor:
        """The images of these latents [n, latent], in [0, 1]."""
        with self.evaluating():
            return self._decode(codes.to(self.device))

    def reconstruct(self, batch: Batch) -> torch.Tensor:
        """What the generator draws from the latents that the inverter finds."""
        with self.evaluating():
            return self._decode(self.invert(batch, steps=0))

    def generate(self, n: int, seed: int = 0) -> torch.Tensor:
        """Draw ``n`` images, from latents like those of the training data."""
        noise = normal_noise((n, self.latent), seed=seed)
        latents = noise if self.prior is None else self.prior.draw(noise, seed=seed)
        return self.draw(latents)

    def layers(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Each layer of the discriminator, averaged over the grid."""
        with self.evaluating():
            maps = self.discriminator.maps(self.on_device(batch))
            return {f"layer{i}": grid_pool(m, GRID).float() for i, m in enumerate(maps, 1)}

    def parts(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """What each position adds to a vector, and the rest: see ``protocol.Parted``."""
        if batch_length(batch) == 0:
            return no_parts(self.dim)
        with self.evaluating():
            maps = self.discriminator.maps(self.on_device(batch))[-len(self.reductions) :]
            weights = [weight for _, weight in list(FUSED.values())[-len(maps) :]]
            grid = grid_of(self.image_size)
            layers = [
                located(m, cells=GRID, grid=grid, edges=self.discriminator.edges(m)).reduced(
                    cast(Reduction, reduction)
                )
                for reduction, m in zip(self.reductions, maps, strict=True)
            ]
            rows = joined(row.unit().times(w) for row, w in zip(layers, weights, strict=True))
            return rows.unit().as_float32()

    def before_training(self, batches: Iterable[Batch]) -> None:
        """Read ``pretrained``, which compares images in the loss, where its extra is installed."""
        self._perception = find_perception() if self.perceptual else None

    def after_training(self, batches: Iterable[Batch]) -> None:
        """Fit the reductions to the layers of a sample of the training data, and the latents that
        ``generate`` draws to those that redraw it.
        """
        layers: list[list[torch.Tensor]] = []
        latents: list[torch.Tensor] = []
        with self.evaluating():
            for batch in batches:
                maps = self.discriminator.maps(self.on_device(batch))
                layers.append([features.cpu() for _, features in self._fused_maps(maps)])
                latents.append(self.inverter(maps[-1].flatten(1)).float())
            for reduction, parts in zip(self.reductions, zip(*layers, strict=True), strict=True):
                cast(Reduction, reduction).fit(torch.cat(parts))
            if self.prior is not None:
                found = torch.cat(latents)
                self.latent_mean.copy_(found.mean(0))
                self.latent_spread.copy_(spread_of(found))
                rows = _KEPT * (found - self.latent_mean) / self.latent_spread
                self.prior.fit(rows, torch.full_like(rows, 2 * math.log(_BLUR)))

    def _likeness(
        self, drawn: torch.Tensor, shown: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        """How far the generator is from real images where no game is played: from those that it
        redraws, and, as ``pretrained`` sees them, with all drawings from all real images.
        """
        some = max(len(shown) // 2, 1)  # of the batch, to save time
        redrawn = self.generator(self._latents_of(features[:some])).float().sigmoid()
        error = _REDRAWING * F.mse_loss(redrawn, shown[:some])
        if self._perception is None:
            return error
        mine = self._perception.maps(torch.cat([redrawn, drawn]))
        with torch.no_grad():
            theirs = self._perception.maps(shown)
        seen = map_distance([m[:some] for m in mine], [m[:some] for m in theirs])
        for a, b in zip(mine, theirs, strict=True):
            seen = seen + matching_error(grid_pool(a[some:], GRID), grid_pool(b, GRID))
        return error + self.perceptual * seen

    @torch.no_grad()
    def _latents_of(self, features: torch.Tensor) -> torch.Tensor:
        """The latents of real images, standardised and blurred by noise, to be like noise.

        The generator redraws the images from them. So it learns their shapes long before the game
        would teach them.
        """
        found: torch.Tensor = self.inverter(features).float()
        standard = (found - found.mean(0)) / spread_of(found)
        return _KEPT * standard + _BLUR * torch.randn_like(standard)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.averaged(latents).float().sigmoid()  # type: ignore[no-any-return]

    def _make_reductions(self) -> nn.ModuleList:
        widths = self.discriminator.widths
        used = [place for place in FUSED if -place <= len(widths)]
        shares = [max(round(FUSED[place][0] * self.dim), 1) for place in used[:-1]]
        dims = [*shares, self.dim - sum(shares)]
        if dims[-1] < 1:
            raise ValueError(f"dim must be at least {len(used)}, one a fused layer, got {self.dim}")
        return nn.ModuleList(
            Reduction(widths[place] * GRID**2, dim, whiten=1.0)
            for place, dim in zip(used, dims, strict=True)
        )

    def _fused_maps(self, maps: list[torch.Tensor]) -> list[tuple[Reduction, torch.Tensor]]:
        """Each reduction with the features that it reduces."""
        chosen = maps[-len(self.reductions) :]
        return [
            (cast(Reduction, reduction), grid_pool(m, GRID))
            for reduction, m in zip(self.reductions, chosen, strict=True)
        ]
