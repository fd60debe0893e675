"""What the convolutional encoders share: a vector fused from the stages of a network and its code.

A code learns what its loss asks for. The stages know the rest: fused with them, vectors also find
pictures that the training has not met. The ``form`` "code", the code alone, is that of version 0.1.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import torch

from fastretrieve.data.images import Size
from fastretrieve.encoders.base import TorchEncoder
from fastretrieve.encoders.blocks.layer_fusion import Layer, LayerFusion, fit_to
from fastretrieve.encoders.blocks.located import Located, located
from fastretrieve.encoders.blocks.networks import ConvPyramid, grid_pool, unit_rows
from fastretrieve.encoders.blocks.shares import Seen, neighbour_score
from fastretrieve.encoders.protocol import Batch

Form: TypeAlias = Literal["fused", "code"]
CODE = "code"
FIT_ROWS = 2000  # to which a choice is fitted when it is tried


class Choice(NamedTuple):
    """How the vector is made of stages and code."""

    power: float | None  # None: as views of held-out pictures choose
    weight: float  # of the code beside each stage


# Without labels the first. With labels, the one of the others by which held-out items find their
# neighbours; after the last comes the code alone.
CHOICES = (Choice(None, 1.0), Choice(0.5, 1.0), Choice(0.5, 3.0), Choice(1.0, 1.0))
ALONE = len(CHOICES)


class FusedEncoder(TorchEncoder):
    """A ``TorchEncoder`` with a ``body`` and a code; ``make_fusion`` ends its constructor."""

    unnamed_options: ClassVar[Mapping[str, Any]] = {"form": "code"}
    body: ConvPyramid
    fusion: LayerFusion | None
    choice: torch.Tensor

    def code_of(self, maps: torch.Tensor) -> torch.Tensor:
        """The code [n, code_dim] from the body's last maps, with gradients. The method to write."""
        raise TypeError(f"{type(self).__name__} must define code_of(maps) -> [n, code_dim]")

    def codes_of(self, maps: torch.Tensor) -> dict[str, torch.Tensor]:
        """The code, and whatever else is made of the body's last maps."""
        return {CODE: self.code_of(maps)}

    def make_fusion(self, form: Form, *, code_dim: int) -> None:
        """Make the fusion of a form."""
        if form not in ("fused", "code"):
            raise ValueError(f'form must be "fused" or "code", got {form!r}')
        last = len(self.body.stages)
        layers = {
            f"stage{i}": Layer(stage.width * _grid(i == last) ** 2)
            for i, stage in enumerate(self.body.stages, start=1)
        }
        self.fusion = None
        if form == "fused":
            self.fusion = LayerFusion({**layers, CODE: Layer(code_dim)}, self.dim)
            self.register_buffer("choice", torch.zeros((), dtype=torch.int64))

    @property
    def weighs_parts(self) -> bool:
        """Whether held-out items choose how the vector is made."""
        return self.fusion is not None

    def code(self, images: Batch) -> torch.Tensor:
        """The code of images that are on the device, with gradients."""
        return self.code_of(self.body(images))

    def embed(self, batch: Batch) -> torch.Tensor:
        if self.fusion is None or self._is_code_alone:
            return self.code(batch)
        vectors: torch.Tensor = self.fusion(self._layers(batch))
        return vectors

    def layers(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The maps after each halving, averaged over a 2 x 2 grid, the last one over all; the code
        beside them, where it is fused with them.
        """
        with self.evaluating():
            found = self._layers(self.on_device(batch))
        names = [f"stage{i}" for i in range(1, len(self.body.stages) + 1)]
        if self.fusion is not None:
            names.append(CODE)
        return {name: found[name].float() for name in names}

    def after_training(self, batches: Iterable[Batch]) -> None:
        """Fit the fusion to a sample of the training data."""
        if self.fusion is None or self._is_code_alone:
            return
        power, weight = CHOICES[int(self.choice)]
        self.fusion.weigh(CODE, weight)
        with self.evaluating():
            images = (self.on_device(batch) for batch in batches)
            fit_to(self.fusion, images, self._layers, power=power)

    def parts_of(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The layers and the code, of which ``join`` makes vectors."""
        with self.evaluating():
            found = self._layers(self.on_device(batch))
        return {name: rows.float().cpu() for name, rows in found.items()}

    def join(self, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The vectors of items of which these are the parts."""
        if self.fusion is None or self._is_code_alone:
            return parts[CODE]
        with self.evaluating():
            return self.fusion(parts)  # type: ignore[no-any-return]

    def fit_parts(self, parts: Mapping[str, torch.Tensor]) -> None:
        """``after_training`` for what labels have chosen, from the parts of the items."""
        if self.fusion is None or self._is_code_alone:
            return
        power, weight = CHOICES[int(self.choice)]
        self.fusion.weigh(CODE, weight)
        self.fusion.fit(parts, power=power)

    def share_scores(self, gallery: Seen, held_out: Seen) -> torch.Tensor:
        """How well held-out items find their neighbours by each choice. The first is none of them:
        views, not labels, would choose its power.
        """
        if self.fusion is None:
            return torch.zeros(ALONE + 1)
        (rows, row_labels), (asked, labels) = gallery.labelled, held_out.labelled
        sample = {name: some[:: -(-len(some) // FIT_ROWS)] for name, some in rows.items()}
        scores = [torch.tensor(float("-inf"))]
        for choice in CHOICES[1:]:
            fusion = copy.deepcopy(self.fusion)
            fusion.weigh(CODE, choice.weight)
            fusion.fit(sample, power=choice.power)
            cosines = unit_rows(fusion(asked)) @ unit_rows(fusion(rows)).T
            scores.append(neighbour_score(cosines.cpu(), labels, row_labels))
        alone = unit_rows(asked[CODE]) @ unit_rows(rows[CODE]).T
        return torch.stack([*scores, neighbour_score(alone, labels, row_labels)])

    def adopt(self, scores: torch.Tensor) -> None:
        """Take the best choice of ``share_scores``, of equals the first; a fit has to follow."""
        if self.fusion is not None:
            self.choice.fill_(int(scores.argmax()))

    def located_vector(self, maps: Sequence[torch.Tensor], code: Located, grid: Size) -> Located:
        """The vectors by positions of a grid, from the maps of all stages and the located code."""
        if self.fusion is None or self._is_code_alone:
            return code
        stages = {
            f"stage{i}": located(
                each, cells=_grid(each is maps[-1]), grid=grid, edges=self.body.edges(i)
            )
            for i, each in enumerate(maps, start=1)
        }
        return self.fusion.located({**stages, CODE: code})

    @property
    def _is_code_alone(self) -> bool:
        return not 0 <= int(self.choice) < ALONE  # it may come from a file

    def _layers(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.body.all_maps(images)
        pooled = [grid_pool(each, _grid(each is maps[-1])) for each in maps]
        named: Mapping[str, Any] = {f"stage{i}": each for i, each in enumerate(pooled, start=1)}
        return {**named, **self.codes_of(maps[-1])}


def _grid(is_last: bool) -> int:
    return 1 if is_last else 2
