"""``rnn``: sequences of any length as vectors: resampled, convolved, and read by a GRU or LSTM.

The first two parts of the vector need no training (``blocks/static.py``), so that few sequences are
enough; the recurrent part adds what it has learned, as far as held-out items are found better.

Sequences of one batch are padded and masked: the recurrence stops where an item ends, so other
items of the batch do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
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
from fastretrieve.encoders.blocks.recurrence import (
    POOLINGS,
    Pooling,
    Recurrence,
    prediction_error,
)
from fastretrieve.encoders.blocks.sequences import (
    Sequences,
    joined,
    mean_and_spread,
    picked,
    real_steps,
    sequence_array,
    shortened,
    spread_evenly,
    steps_that_keep,
)
from fastretrieve.encoders.blocks.shares import (
    SHARES,
    Labelled,
    Seen,
    joined_parts,
    share_grid,
)
from fastretrieve.encoders.blocks.static import FIT_ITEMS, Kept, StaticParts, part_dims
from fastretrieve.encoders.protocol import Batch, Figure, Items, Modality

Objective = Literal["auto", "softmax", "metric", "next"]
_OBJECTIVES = ("auto", "softmax", "metric", "next")
STEPS = (32, 64, 128)  # that a recurrence may take
GRID = 4  # to which frames are averaged for the parts without gradients
MANY_FEATURES = 16  # from which on noise and dropout spare the recurrence some of them
STATIC = "static"  # the part of the vector without gradients
UNKNOWN_SHARE = 0.2  # of the network, where no labels say how good it is


class RnnEncoder(PrototypeClassifier):
    """A vector of three parts: the resampled sequence, random convolutions, a recurrent network.

    An item is an array [t, n_features], or, with ``frame_size``, a list of t images, each of which
    passes a small convolutional network first. Items longer than ``max_length`` are averaged down
    to it as they are read; the recurrence takes fewer steps, chosen from the data. ``objective``:
    "softmax" or "metric" learn from labels, "next" predicts each step from those before it (and, if
    ``bidirectional``, from those behind it) and needs none; "auto" takes labels where there are
    any. ``form`` "last" is the network of version 0.1: the last hidden state alone.

    >>> encoder = RnnEncoder(dim=6, n_features=2, hidden=8)
    >>> batch = encoder.preprocess([np.ones((5, 2)), np.zeros((9, 2))])
    >>> encoder.encode(batch).shape
    torch.Size([2, 6])
    """

    name = "rnn"
    modality: Modality = "sequence"
    capabilities = frozenset({"trainable", "classify", "layers"})
    unsaved_bytes = UNSAVED_BYTES
    progress_figure = Figure("loss", "lower")
    # A recurrence of small steps spends more on converting to bfloat16 than it gains.
    recipe = Recipe(lr=3e-3, weight_decay=1e-2, batch_size=32, steps=300, clip=1.0, half=False)
    unnamed_options: ClassVar[Mapping[str, Any]] = {"form": "last"}
    augmentable = False  # it adds noise and drops features itself, in units of their own spread

    mean: torch.Tensor
    spread: torch.Tensor
    steps: torch.Tensor
    pooling: torch.Tensor
    network_share: torch.Tensor

    def __init__(
        self,
        *,
        dim: int = 192,
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
        max_length: int = 4096,
        form: Literal["fused", "last"] = "fused",
        seed: int = 0,
    ) -> None:
        super().__init__(dim=dim, config=arguments(locals()))
        _check_options(self.config)
        recurrence = Recurrence(cell, hidden, layers, bidirectional, dropout)
        self.objective, self.noise, self.max_length = objective, noise, max_length
        self.frame_size = None if frame_size is None else checked_size(as_size(frame_size))
        self.n_features = n_features
        self.is_fused = self.weighs_parts = self.rehearses = form == "fused"
        with seeded(seed):
            if self.frame_size is not None:
                self.n_features = self.channels * self.frame_size[0] * self.frame_size[1]
                self.look = ConvPyramid(self.channels, self.frame_size, width=8, max_width=32)
            n_inputs = self.n_features if self.frame_size is None else 4 * self.look.last.width
            self.recurrent = recurrence.network(n_inputs)
            self.drop = nn.Dropout(dropout)
            n_plain = n_inputs if self.frame_size is None else self.channels * GRID**2
            dims = part_dims(dim, n_plain) if self.is_fused else (0, 0, dim)
            self.project = nn.Linear(recurrence.n_states, dims[2])
            self.predict = nn.ModuleList(
                nn.Linear(hidden, n_inputs) for _ in range(recurrence.n_directions)
            )
            initialise(self.project)
            if self.is_fused:
                self.pool = Pooling(recurrence.n_states, dims[2])
                self.static = StaticParts(n_plain, *dims[:2])
        self.prototypes, self._kept = None, Kept()
        n_standard = n_plain if self.is_fused else n_inputs
        self.register_buffer("mean", torch.zeros(n_standard))
        self.register_buffer("spread", torch.ones(n_standard))
        if self.is_fused:
            self.register_buffer("steps", torch.tensor(STEPS[-1]))
            self.register_buffer("pooling", torch.zeros((), dtype=torch.int64))
            self.register_buffer("network_share", torch.tensor(UNKNOWN_SHARE))

    def preprocess(self, items: Items) -> Sequences:
        """Check, shorten and pad; NaN stands for a missing value."""
        arrays = [
            sequence_array(self._as_steps(item), number, self.n_features, self.max_length)
            for number, item in enumerate(items)
        ]
        lengths = torch.tensor([len(array) for array in arrays], dtype=torch.int64)
        longest = int(lengths.max()) if arrays else 0
        values = torch.zeros(len(arrays), longest, self.n_features)
        for row, array in zip(values, arrays, strict=True):
            row[: len(array)] = array
        return Sequences(values, lengths)

    def _as_steps(self, item: Any) -> Any:
        if self.frame_size is None:
            return item
        frames = image_batch(item, size=self.frame_size, channels=self.channels)
        return frames.reshape(len(frames), -1)

    def embed(self, batch: Batch) -> torch.Tensor:
        vectors = self._pooled(batch)
        if not self.is_fused:
            return vectors[0]
        return self._vector(self._static_vector(batch), vectors[self._chosen])

    def layers(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The parts of the vector, before they are weighed."""
        with self.evaluating():
            moved = self.on_device(batch)
            vectors = [vector.float() for vector in self._pooled(moved)]
            if not self.is_fused:
                return {"network": vectors[0]}
            curve, shape = self.static(self._plain(moved))
            return {"curve": curve, "convolutions": shape, "network": vectors[self._chosen]}

    def loss(self, batch: Batch, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """The loss of the objective; unlabelled items teach nothing where labels are used."""
        known = None if labels is None else labels.to(self.device)
        moved = self.on_device(batch)
        objective = self.labelled_objective(known)
        if objective is None or known is None:
            return {"loss": self._prediction_error(moved)}
        vectors = self._pooled(moved)
        if objective == "metric":
            return {"loss": torch.stack([same_label_loss(v, known) for v in vectors]).mean()}
        losses = [self.softmax_loss(vector, known) for vector in vectors]
        if not self.is_fused:
            return losses[0]
        # The prototypes learn the whole vector, the network its own part alone: beside parts that
        # know the answer already it would learn nothing.
        with torch.no_grad():
            made_by = (self.mean, self.spread, *self.static.buffers())
            static = self._kept(Sequences(*moved), self._static_vector, made_by)
            fused = self._vector(static, vectors[self._chosen])
        whole = self.softmax_loss(fused, known)
        network = torch.stack([found["loss"] for found in losses]).mean()
        return {"loss": network + whole["loss"], "accuracy": whole["accuracy"]}

    @torch.no_grad()
    def before_training(self, batches: Iterable[Batch]) -> None:
        """Learn the mean and the spread of every feature, so that none outshouts the others; then
        the parts that need no gradient.
        """
        if self.frame_size is not None and not self.is_fused:
            return  # the convolutions have norms of their own
        raw = joined(self._seen(self.on_device(batch)) for batch in batches)
        mean, spread = mean_and_spread(raw)
        self.mean.copy_(mean)
        self.spread.copy_(spread)
        if self.is_fused:
            plain = self._standard(picked(raw, spread_evenly(len(raw.lengths), FIT_ITEMS)))
            self.steps.fill_(steps_that_keep(plain, STEPS))
            self.static.fit(plain)

    def choose(self, items: Iterable[Labelled]) -> None:
        """Choose the parts that need no gradient by training items, left out one by one."""
        listed = list(items)
        labels = torch.cat([known for _, known in listed])
        known = (labels >= 0).nonzero()[:, 0]
        rows = known[spread_evenly(len(known), FIT_ITEMS)]
        if len(rows) > 1:
            plain = joined(self._plain(self.on_device(batch)) for batch, _ in listed)
            self.static.choose(picked(plain, rows.to(self.device)), labels[rows].to(self.device))

    def parts_of(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The static part and the network's by each pooling, of unit rows."""
        with self.evaluating():
            moved = self.on_device(batch)
            networks = [unit_rows(vector.float()).cpu() for vector in self._pooled(moved)]
            static = self._static_vector(moved).cpu()
        return {STATIC: static, **dict(zip(POOLINGS, networks, strict=True))}

    def join(self, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The vectors of items of which these are the parts."""
        return self._vector(parts[STATIC], parts[POOLINGS[self._chosen]])

    def share_scores(self, gallery: Seen, held_out: Seen) -> torch.Tensor:
        """How well held-out items find their neighbours, by pooling and share of the network."""
        (rows, row_labels), (asked, labels) = gallery.labelled, held_out.labelled
        static, *networks = (asked[name] @ rows[name].T for name in (STATIC, *POOLINGS))
        return share_grid(static, networks, labels, row_labels)  # [pooling, share]

    def adopt(self, scores: torch.Tensor) -> None:
        """Take the pooling and the share of the best of ``share_scores``; of equals the smaller
        share.
        """
        share, pooling = divmod(int(scores.T.flatten().argmax()), len(POOLINGS))
        self.pooling.fill_(pooling)
        self.network_share.fill_(SHARES[share])

    def _static_vector(self, batch: Batch) -> torch.Tensor:
        curve, shape = self.static(self._plain(batch))
        return joined_parts([curve, shape], self.static.shares)

    def _vector(self, static: torch.Tensor, network: torch.Tensor) -> torch.Tensor:
        share = self.network_share.clamp(0, 1).to(static.device)
        return joined_parts([static, unit_rows(network.float())], torch.stack([1 - share, share]))

    @property
    def _most_steps(self) -> int:
        return min(max(int(self.steps), 1), STEPS[-1])  # it may come from a file

    @property
    def _chosen(self) -> int:
        return int(self.pooling) % len(POOLINGS)  # it may come from a file

    def _pooled(self, batch: Batch) -> list[torch.Tensor]:
        """The network's part by each of ``POOLINGS``; the form "last" has but the first."""
        inputs = self._inputs(batch)
        outputs, state = self.recurrent(self._packed(inputs))
        last = state[0] if isinstance(state, tuple) else state  # an LSTM keeps a cell state too
        states = torch.cat(list(last[-len(self.predict) :]), 1)
        vectors = [self.project(unit_rows(self.drop(states).float()))]
        if self.is_fused:
            every, _ = pad_packed_sequence(
                outputs, batch_first=True, total_length=inputs.values.shape[1]
            )
            vectors += self.pool(every, real_steps(*inputs), self.drop)
        return vectors

    def _packed(self, inputs: Sequences) -> PackedSequence:
        seen, lengths = inputs
        if self.recurrent.input_size >= MANY_FEATURES:  # few features have nothing to spare
            noise = self.noise if self.training else 0.0
            seen = self.drop(seen + noise * torch.randn_like(seen) if noise else seen)
        return pack_padded_sequence(seen, lengths.cpu(), batch_first=True, enforce_sorted=False)

    def _inputs(self, batch: Batch) -> Sequences:
        """What the recurrence reads: standard features, or a small network's of each frame."""
        if self.frame_size is None:
            plain = self._plain(batch)
            return shortened(plain, self._most_steps) if self.is_fused else plain
        films = shortened(Sequences(*batch), self._most_steps) if self.is_fused else batch
        inside = real_steps(*films)
        frames = films[0][inside].view(-1, self.channels, *self.frame_size)
        inputs = frames.new_zeros(*inside.shape, self.recurrent.input_size)
        inputs[inside] = grid_pool(self.look(frames), 2).to(inputs.dtype)
        return Sequences(inputs, films[1])

    def _plain(self, batch: Batch) -> Sequences:
        """What the parts without gradients see: standard features, zero behind an item's end."""
        return self._standard(self._seen(batch))

    def _standard(self, seen: Sequences) -> Sequences:
        standard = ((seen.values - self.mean) / self.spread).nan_to_num(0.0)  # missing: the mean
        return Sequences(standard * real_steps(*seen)[:, :, None], seen.lengths)

    def _seen(self, batch: Batch) -> Sequences:
        """The values of a batch; of frames, the means of a small grid."""
        values, lengths = batch
        if self.frame_size is None:
            return Sequences(values, lengths)
        frames = values.reshape(-1, self.channels, *self.frame_size)
        return Sequences(grid_pool(frames, GRID).view(*values.shape[:2], -1), lengths)

    def _prediction_error(self, batch: Batch) -> torch.Tensor:
        """The mean squared error of the next step, and of the step before for the way back."""
        inputs = self._inputs(batch)
        outputs, _ = pad_packed_sequence(self.recurrent(self._packed(inputs))[0], batch_first=True)
        return prediction_error(outputs, inputs, self.predict)


def _check_options(config: dict[str, Any]) -> None:
    if config["cell"] not in ("gru", "lstm"):
        raise ValueError(f'cell must be "gru" or "lstm", got {config["cell"]!r}')
    if config["form"] not in ("fused", "last"):
        raise ValueError(f'form must be "fused" or "last", got {config["form"]!r}')
    if config["objective"] not in _OBJECTIVES:
        raise ValueError(
            f"objective must be one of {', '.join(_OBJECTIVES)}, got {config['objective']!r}"
        )
    for name in ("n_features", "hidden", "layers", "max_length"):
        if config[name] < 1:
            raise ValueError(f"{name} must be at least 1, got {config[name]}")
