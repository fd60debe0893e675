"""``rnn``: a GRU or LSTM over sequences of any length; the vector is its last hidden state.

Sequences of one batch are padded and masked: the recurrence stops where an item ends, so other
items of the batch do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from fastretrieve.data.images import as_size, image_batch
from fastretrieve.encoders.base import UNSAVED_BYTES, arguments, seeded
from fastretrieve.encoders.blocks.classifier import PrototypeClassifier
from fastretrieve.encoders.blocks.contrast import same_label_loss
from fastretrieve.encoders.blocks.networks import (
    ConvPyramid,
    checked_size,
    grid_pool,
    initialise,
    unit_rows,
)
from fastretrieve.encoders.blocks.recipe import Recipe
from fastretrieve.encoders.protocol import Batch, Figure, Items, Modality

Objective = Literal["auto", "softmax", "metric", "next"]
_OBJECTIVES = ("auto", "softmax", "metric", "next")


class Sequences(NamedTuple):
    """A batch: values padded with zeros behind each item's end."""

    values: torch.Tensor  # float32 [n, steps, n_features]
    lengths: torch.Tensor  # int64 [n], at least 1


class Recurrence(NamedTuple):
    """The options of the recurrent layers."""

    cell: Literal["gru", "lstm"]
    hidden: int
    layers: int
    bidirectional: bool
    dropout: float  # between layers

    @property
    def n_directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def n_states(self) -> int:
        return self.hidden * self.n_directions

    def network(self, n_inputs: int) -> nn.GRU | nn.LSTM:
        make = nn.GRU if self.cell == "gru" else nn.LSTM
        return make(
            n_inputs,
            self.hidden,
            self.layers,
            batch_first=True,
            bidirectional=self.bidirectional,
            dropout=self.dropout if self.layers > 1 else 0.0,
        )


class RnnEncoder(PrototypeClassifier):
    """A recurrent network; the last hidden state, L2-normalised, through a fully connected layer.

    An item is an array [t, n_features], or, with ``frame_size``, a list of t images, each of which
    passes a small convolutional network first. Items longer than ``max_length`` are averaged down
    to it. ``objective``: "softmax" or "metric" learn from labels, "next" predicts each step from
    those before it (and, if ``bidirectional``, from those behind it) and needs none; "auto" takes
    labels where there are any.

    >>> encoder = RnnEncoder(dim=4, n_features=2, hidden=8)
    >>> batch = encoder.preprocess([np.ones((5, 2)), np.zeros((9, 2))])
    >>> encoder.encode(batch).shape
    torch.Size([2, 4])
    """

    name = "rnn"
    modality: Modality = "sequence"
    capabilities = frozenset({"trainable", "classify"})
    unsaved_bytes = UNSAVED_BYTES
    progress_figure = Figure("loss", "lower")
    # A recurrence of small steps spends more on converting to bfloat16 than it gains.
    recipe = Recipe(lr=3e-3, weight_decay=1e-2, batch_size=32, steps=600, clip=1.0, half=False)
    augmentable = False  # it adds noise and drops features itself, in units of their own spread

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(
        self,
        *,
        dim: int = 64,
        n_features: int = 6,
        cell: Literal["gru", "lstm"] = "gru",
        hidden: int = 96,
        layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.2,
        noise: float = 0.1,
        objective: Objective = "auto",
        frame_size: int | Sequence[int] | None = None,
        channels: int = 1,
        max_length: int = 512,
        seed: int = 0,
    ) -> None:
        super().__init__(dim=dim, config=arguments(locals()))
        _check_options(self.config)
        recurrence = Recurrence(cell, hidden, layers, bidirectional, dropout)
        self.objective, self.noise, self.max_length = objective, noise, max_length
        self.frame_size = None if frame_size is None else checked_size(as_size(frame_size))
        self.n_features = n_features
        with seeded(seed):
            if self.frame_size is not None:
                self.n_features = self.channels * self.frame_size[0] * self.frame_size[1]
                self.look = ConvPyramid(self.channels, self.frame_size, width=8, max_width=32)
            n_inputs = self.n_features if self.frame_size is None else 4 * self.look.last.width
            self.recurrent = recurrence.network(n_inputs)
            self.drop = nn.Dropout(dropout)
            self.project = nn.Linear(recurrence.n_states, dim)
            self.predict = nn.ModuleList(
                nn.Linear(hidden, n_inputs) for _ in range(recurrence.n_directions)
            )
            initialise(self.project)
        self.prototypes = None
        self.register_buffer("mean", torch.zeros(n_inputs))
        self.register_buffer("spread", torch.ones(n_inputs))

    def preprocess(self, items: Items) -> Sequences:
        """Check, shorten and pad; NaN stands for a missing value."""
        arrays = [self._steps(item, number) for number, item in enumerate(items)]
        lengths = torch.tensor([len(array) for array in arrays], dtype=torch.int64)
        longest = int(lengths.max()) if arrays else 0
        values = torch.zeros(len(arrays), longest, self.n_features)
        for row, array in zip(values, arrays, strict=True):
            row[: len(array)] = torch.from_numpy(array)
        return Sequences(values, lengths)

    def embed(self, batch: Batch) -> torch.Tensor:
        return self._vectors(self._run(batch)[1])

    def loss(self, batch: Batch, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """The loss of the objective; unlabelled items teach nothing where labels are used."""
        known = None if labels is None else labels.to(self.device)
        moved = self.on_device(batch)
        objective = self.labelled_objective(known)
        if objective is None or known is None:
            return {"loss": self._prediction_error(moved)}
        vectors = self._vectors(self._run(moved)[1])
        if objective == "metric":
            return {"loss": same_label_loss(vectors, known)}
        return self.softmax_loss(vectors, known)

    @torch.no_grad()
    def before_training(self, batches: Iterable[Batch]) -> None:
        """Learn the mean and the spread of every feature, so that none outshouts the others."""
        if self.frame_size is not None:
            return  # the convolutions have norms of their own
        rows = torch.cat([values[_mask(values, lengths)] for values, lengths in batches]).double()
        mean = rows.nanmean(0)
        spread = (rows - mean).square().nanmean(0).sqrt()
        self.mean.copy_(mean.nan_to_num(0.0))  # of a feature that is always missing
        self.spread.copy_(torch.where(spread > 1e-6 * spread.max(), spread, torch.ones(())))

    def _run(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The inputs of the recurrence [n, steps, n_inputs], and its final states [n, n_states]."""
        inputs, packed = self._packed(batch)
        _, state = self.recurrent(packed)
        last = state[0] if isinstance(state, tuple) else state  # an LSTM keeps a cell state too
        n_directions = len(self.predict)
        return inputs, torch.cat(list(last[-n_directions:]), 1)

    def _packed(self, batch: Batch) -> tuple[torch.Tensor, PackedSequence]:
        values, lengths = batch
        inputs = self._inputs(values, _mask(values, lengths))
        seen = inputs
        if self.training and self.noise:
            seen = inputs + self.noise * torch.randn_like(inputs)
        packed = pack_padded_sequence(
            self.drop(seen), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        return inputs, packed

    def _inputs(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Standardised features, or the small network's features of each frame."""
        if self.frame_size is None:
            standard: torch.Tensor = (values - self.mean) / self.spread
            return standard.nan_to_num(0.0)  # a missing value counts as the mean
        frames = values[mask].view(-1, self.channels, *self.frame_size)
        inputs = values.new_zeros(*mask.shape, len(self.mean))
        inputs[mask] = grid_pool(self.look(frames), 2).to(inputs.dtype)
        return inputs

    def _vectors(self, states: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.project(unit_rows(self.drop(states).float()))
        return projected

    def _prediction_error(self, batch: Batch) -> torch.Tensor:
        """The mean squared error of the next step, and of the step before for the way back."""
        inputs, packed = self._packed(batch)
        outputs, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        forward, *backward = outputs.chunk(len(self.predict), dim=2)
        both = _mask(inputs, batch.lengths)[:, 1:]  # a step and its predecessor are inside
        target = inputs.detach()
        errors = (self.predict[0](forward[:, :-1]) - target[:, 1:]).square().mean(2)
        if backward:
            back = self.predict[1](backward[0][:, 1:])
            errors = errors + (back - target[:, :-1]).square().mean(2)
        total: torch.Tensor = (errors * both).sum()
        return total / (both.sum() * len(self.predict)).clamp(min=1)

    def _steps(self, item: Any, number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """One item as float32 [t, n_features], 1 <= t <= max_length."""
        if self.frame_size is not None:
            frames = image_batch(item, size=self.frame_size, channels=self.channels)
            array = frames.reshape(len(frames), -1)
        else:
            raw = item.detach().cpu() if isinstance(item, torch.Tensor) else item
            array = np.asarray(raw, np.float32)
            array = array[:, None] if array.ndim == 1 and self.n_features == 1 else array
        if array.ndim != 2 or len(array) == 0 or array.shape[1] != self.n_features:
            raise ValueError(
                f"sequence {number} has shape {array.shape}, wanted [t, {self.n_features}] with t "
                "at least 1; make the encoder with the n_features of your data, for lists of "
                "images with frame_size, or transpose them"
            )
        if np.isinf(array).any():
            raise ValueError(
                f"sequence {number} holds infinity; clip the values, or use NaN where "
                "one is missing"
            )
        if len(array) > self.max_length:
            shorter = F.adaptive_avg_pool1d(torch.from_numpy(array.T), self.max_length)
            array = shorter.T.numpy()
        return array


def _check_options(config: dict[str, Any]) -> None:
    if config["cell"] not in ("gru", "lstm"):
        raise ValueError(f'cell must be "gru" or "lstm", got {config["cell"]!r}')
    if config["objective"] not in _OBJECTIVES:
        raise ValueError(
            f"objective must be one of {', '.join(_OBJECTIVES)}, got {config['objective']!r}"
        )
    for name in ("n_features", "hidden", "layers", "max_length"):
        if config[name] < 1:
            raise ValueError(f"{name} must be at least 1, got {config[name]}")


def _mask(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """True where a step belongs to its item: [n, steps]."""
    steps = torch.arange(values.shape[1], device=values.device)
    return steps[None, :] < lengths.to(values.device)[:, None]
