"""``translator``: pictures of one style to pictures of another, learned from two unpaired folders.

Two networks repaint pictures, one there and one back. Each plays against a critic of patches that
knows pictures of its side (the hinge loss, spectral norms, the same random changes of real and
repainted pictures). A picture that goes there and back should come back as it was, and one that is
of the other style already should stay: so what a picture shows survives. Where the extra
``pretrained`` is installed, what its first blocks see in repainted pictures is drawn towards what
they see in real ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from fastretrieve.encoders.base import UNSAVED_BYTES, TorchEncoder, arguments, seeded
from fastretrieve.encoders.blocks.averaging import move_average
from fastretrieve.encoders.blocks.critic import matching_error
from fastretrieve.encoders.blocks.networks import checked_size, grid_pool
from fastretrieve.encoders.blocks.perception import Perception, find_perception
from fastretrieve.encoders.blocks.recipe import Recipe
from fastretrieve.encoders.blocks.reduction import Reduction
from fastretrieve.encoders.blocks.repainting import PatchCritic, Repainter
from fastretrieve.encoders.blocks.views import Views, whole_shifts
from fastretrieve.encoders.protocol import Batch, Figure

FROM, TO = 0, 1  # the labels of the two styles
GAME = Views(shift=0.125, colour=0.2)  # changes of what the critics see
SEEN = 4  # cells a side over which what pretrained sees is averaged
GRID = 2  # cells a side over which the innermost maps are averaged, for the vector
_RETURN = 10.0  # weight of the error of a picture that went there and back
_STAY = 5.0  # weight of the error of a picture that should have stayed as it is


class _Side(NamedTuple):
    """What one critic says of real and of repainted pictures."""

    game: torch.Tensor  # its own loss
    likeness: torch.Tensor  # the loss of the network that repainted


class TranslatorEncoder(TorchEncoder):
    """Repaints pictures of one style as pictures of another.

    Train it with ``fr.train("translator", from_=..., to=...)``, or on items of two labels. It
    searches nothing by itself: ``gallery.search(query, translate=...)`` repaints the query. The
    vector is for likeness among its own pictures: the innermost maps, averaged over a 2 x 2 grid
    and reduced by principal components.

    >>> translator = TranslatorEncoder(dim=8, image_size=16, channels=1, width=4)
    >>> translator.translate(translator.preprocess([torch.zeros(1, 20, 20)])).shape
    torch.Size([1, 1, 16, 16])
    """

    name = "translator"
    capabilities = frozenset({"trainable", "translate"})
    unsaved_bytes = UNSAVED_BYTES
    progress_figure = Figure("return", "lower")  # the losses of the game need not fall
    recipe = Recipe(lr=1e-3, weight_decay=0.0, betas=(0.5, 0.99), batch_size=16, steps=1000)
    augmentable = False  # it changes real and repainted pictures alike
    needs_labels = True
    needs_class_mates = True  # half of a batch is of each style

    averaged_steps: torch.Tensor

    def __init__(
        self,
        *,
        dim: int = 64,
        image_size: int | Sequence[int] = 64,
        channels: int = 3,
        width: int = 16,
        perceptual: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(dim=dim, config=arguments(locals()))
        if not perceptual >= 0:
            raise ValueError(f"perceptual is the weight of a loss, at least 0, got {perceptual}")
        self.perceptual = perceptual
        self._perception: Perception | None = None
        size = checked_size(self.image_size)
        with seeded(seed):
            self.there = Repainter(self.channels, size, width=width)
            self.back = Repainter(self.channels, size, width=width)
            self.averaged = Repainter(self.channels, size, width=width)
            self.averaged.requires_grad_(False)
            self.critics = nn.ModuleList(
                PatchCritic(self.channels, width=2 * width) for _ in (FROM, TO)
            )
            self.reduction = Reduction(4 * width * GRID**2, dim)
        self.averaged.load_state_dict(self.there.state_dict())
        self.register_buffer("averaged_steps", torch.zeros((), dtype=torch.int64))

    def embed(self, batch: Batch) -> torch.Tensor:
        return self.reduction(self._features(batch))  # type: ignore[no-any-return]

    def translate(self, batch: Batch) -> torch.Tensor:
        """The pictures in the other style: the same shape and range."""
        images = self.on_device(batch)
        if len(images) == 0:
            return images  # type: ignore[no-any-return]
        with self.evaluating():
            return self.averaged(images).float()  # type: ignore[no-any-return]

    def translate_whole(self, batch: Batch, whole: Batch) -> torch.Tensor:
        """The pictures at a larger size; ``whole`` holds those of ``batch`` at that size."""
        with self.evaluating():
            painted = self.averaged.paint_whole(self.on_device(batch), self.on_device(whole))
            return painted.float()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The players, each named as its loss."""
        return {
            "critics": list(self.critics.parameters()),
            "painters": [*self.there.parameters(), *self.back.parameters()],
        }

    def loss(self, batch: Batch, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Each player's loss; "return" and "stay" are mean errors of a pixel."""
        a, b = self._sides(self.on_device(batch), labels)
        if not len(a) or not len(b):  # whatever is left of a last batch
            nothing = torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum() * 0
            return dict.fromkeys(("critics", "painters", "return", "stay"), nothing)
        as_b, same_b = self.there(torch.cat([a, b])).split([len(a), len(b)])
        as_a, same_a = self.back(torch.cat([b, a])).split([len(b), len(a)])
        returned = F.l1_loss(self.back(as_b), a) + F.l1_loss(self.there(as_a), b)
        stayed = F.l1_loss(same_b, b) + F.l1_loss(same_a, a)
        sides = [self._judged(FROM, a, as_a), self._judged(TO, b, as_b)]
        if self.training:
            move_average(self.averaged, self.there, self.averaged_steps)
        likeness = sides[FROM].likeness + sides[TO].likeness + self._unlike(as_b, b)
        return {
            "critics": sides[FROM].game + sides[TO].game,
            "painters": likeness + _RETURN * returned + _STAY * stayed,
            "return": returned.detach(),
            "stay": stayed.detach(),
        }

    def before_training(self, batches: Iterable[Batch]) -> None:
        """Read ``pretrained``, which compares pictures in the loss, where its extra is there."""
        self._perception = find_perception() if self.perceptual else None

    def after_training(self, batches: Iterable[Batch]) -> None:
        """Fit the vector's axes to a sample of the training data."""
        with self.evaluating():
            found = [self._features(self.on_device(batch)).cpu() for batch in batches]
        if found:
            self.reduction.fit(torch.cat(found))

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        return grid_pool(self.averaged.paint(images).middle, GRID).float()

    def _sides(
        self, images: torch.Tensor, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The pictures of either style."""
        if labels is None or bool((labels > TO).any()):
            raise ValueError(
                "a translator learns from two folders, from_= and to= (in the shell --from and "
                "--to), or from items of two labels, 0 (from) and 1 (to)"
            )
        marks = labels.to(images.device)
        return images[marks == FROM], images[marks == TO]

    def _unlike(self, painted: torch.Tensor, real: torch.Tensor) -> torch.Tensor | float:
        """How far repainted pictures in general are from real ones, as ``pretrained`` sees them."""
        if self._perception is None:
            return 0.0
        with torch.no_grad():
            theirs = self._perception.maps(real)
        mine = self._perception.maps(painted)
        errors = [
            matching_error(grid_pool(a, SEEN), grid_pool(b, SEEN))
            for a, b in zip(mine, theirs, strict=True)
        ]
        return self.perceptual * torch.stack(errors).sum()

    def _judged(self, side: int, real: torch.Tensor, painted: torch.Tensor) -> _Side:
        """The game of one critic; it sees all pictures under the same kinds of changes."""
        critic, n = self.critics[side], len(real)
        scores, maps = critic(whole_shifts(torch.cat([real, painted]), GAME))
        game = F.relu(1 - scores[:n]).mean() + F.relu(1 + scores[n:]).mean()
        likeness = matching_error(maps[n:].mean((2, 3)), maps[:n].mean((2, 3)))
        return _Side(game, likeness - scores[n:].mean())
