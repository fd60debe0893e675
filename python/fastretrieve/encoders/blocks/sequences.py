"""A batch of sequences of different lengths: padding, masks, and one length for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

_KEPT_SHARE = 0.95  # of the variance that shorter sequences must keep


class Sequences(NamedTuple):
    """A batch: values padded with zeros behind each item's end."""

    values: torch.Tensor  # float32 [n, steps, n_features]
    lengths: torch.Tensor  # int64 [n], at least 1


def sequence_array(item: Any, number: int, n_features: int, most: int) -> torch.Tensor:
    """One item as float32 [t, n_features], averaged down to at most ``most`` steps."""
    raw = item.detach().cpu() if isinstance(item, torch.Tensor) else item
    array = np.asarray(raw, np.float32)
    array = array[:, None] if array.ndim == 1 and n_features == 1 else array
    if array.ndim != 2 or len(array) == 0 or array.shape[1] != n_features:
        raise ValueError(
            f"sequence {number} has shape {array.shape}, wanted [t, {n_features}] with t "
            "at least 1; make the encoder with the n_features of your data, for lists of "
            "images with frame_size, or transpose them"
        )
    if np.isinf(array).any():
        raise ValueError(
            f"sequence {number} holds infinity; clip the values, or use NaN where one is missing"
        )
    steps = torch.from_numpy(array)
    return F.adaptive_avg_pool1d(steps.T, most).T if len(steps) > most else steps


def real_steps(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """True where a step belongs to its item: [n, steps]."""
    steps = torch.arange(values.shape[1], device=values.device)
    return steps[None, :] < lengths.to(values.device)[:, None]


def resampled(values: torch.Tensor, lengths: torch.Tensor, steps: int) -> torch.Tensor:
    """Each item interpolated linearly at ``steps`` even places: [n, steps, n_features].

    >>> ramp = torch.tensor([[[0.0], [1.0], [2.0], [9.0]]])
    >>> resampled(ramp, torch.tensor([3]), 6).flatten().tolist()
    [0.0, 0.25, 0.75, 1.25, 1.75, 2.0]
    """
    ends = lengths.to(values.device)[:, None] - 1
    middles = torch.arange(steps, device=values.device)[None, :] + 0.5
    places = (middles * (ends + 1) / steps - 0.5).clamp(min=0)
    left = places.floor().long().minimum(ends)
    share = (places - left)[:, :, None].clamp(max=1)

    def at(rows: torch.Tensor) -> torch.Tensor:
        return values.gather(1, rows[:, :, None].expand(-1, -1, values.shape[2]))

    return at(left).lerp(at((left + 1).minimum(ends)), share)


def shortened(batch: Sequences, steps: int) -> Sequences:
    """Items longer than ``steps`` averaged down to it; the others as they are."""
    values, lengths = batch
    if values.shape[1] <= steps:
        return batch
    rows = [
        F.adaptive_avg_pool1d(item[:length].T, steps).T if length > steps else item[:steps]
        for item, length in zip(values, lengths.tolist(), strict=True)
    ]
    return Sequences(torch.stack(rows), lengths.clamp(max=steps))


def picked(batch: Sequences, rows: torch.Tensor) -> Sequences:
    """The items at ``rows``."""
    return Sequences(batch.values[rows], batch.lengths[rows])


def joined(batches: Iterable[Sequences]) -> Sequences:
    """Several batches as one."""
    listed = list(batches)
    longest = max(batch.values.shape[1] for batch in listed)
    values = [F.pad(batch.values, (0, 0, 0, longest - batch.values.shape[1])) for batch in listed]
    return Sequences(torch.cat(values), torch.cat([batch.lengths for batch in listed]))


def spread_evenly(n: int, most: int) -> torch.Tensor:
    """At most ``most`` of ``n`` positions, evenly apart.

    >>> spread_evenly(10, 4).tolist(), spread_evenly(3, 4).tolist()
    ([0, 2, 5, 7], [0, 1, 2])
    """
    kept = min(n, most)
    return torch.arange(kept) * n // max(kept, 1)


def mean_and_spread(batch: Sequences) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every feature, over the steps that are there; of a constant one the spread counts as 1."""
    rows = batch.values[real_steps(*batch)].double()
    mean = rows.nanmean(0)
    spread = (rows - mean).square().nanmean(0).sqrt()
    is_moving = spread > 1e-6 * spread.max()
    # A feature that is always missing has no mean.
    return mean.nan_to_num(0.0), torch.where(is_moving, spread, torch.ones_like(spread))


def steps_that_keep(batch: Sequences, choices: Sequence[int]) -> int:
    """The first of ``choices`` to which items can be averaged and keep most of their variance."""
    before = _variance(batch)
    for steps in choices[:-1]:
        if _variance(shortened(batch, steps)) >= _KEPT_SHARE * before:
            return steps
    return choices[-1]


def _variance(batch: Sequences) -> float:
    """Of the steps within each item, averaged over items and features."""
    inside = real_steps(*batch)[:, :, None]
    counts = batch.lengths[:, None].to(inside.device)
    mean = (batch.values * inside).sum(1) / counts
    deviations = (batch.values - mean[:, None]) * inside
    return float((deviations.square().sum(1) / counts).mean())
