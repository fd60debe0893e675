"""The parts of a sequence's vector that need no gradient, and aeon's files."""

from __future__ import annotations

import importlib
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastretrieve.data import open_dataset
from fastretrieve.encoders.blocks.convolutions import QUANTILES, TAPS, RandomConvolutions
from fastretrieve.encoders.blocks.curves import Curves, Look
from fastretrieve.encoders.blocks.reduction import spectrum_of
from fastretrieve.encoders.blocks.sequences import Sequences, joined, resampled, shortened
from fastretrieve.encoders.blocks.shares import Seen, among_themselves, neighbour_score
from fastretrieve.encoders.blocks.static import StaticParts
from fastretrieve.training.options import TrainingOptions
from fastretrieve.training.rehearsal import N_FOLDS, fold_numbers, rehearse

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def batch_of(*lengths: int, n_features: int = 2, seed: int = 0) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    items = [torch.randn(length, n_features, generator=generator) for length in lengths]
    return joined(Sequences(item[None], torch.tensor([len(item)])) for item in items)


@pytest.mark.parametrize("steps", [1, 5, 9, 40])
def test_resampling_interpolates_each_item_to_its_own_end(steps: int) -> None:
    batch = batch_of(9, 3, 1)
    poisoned = batch.values.clone()
    for row, length in zip(poisoned, batch.lengths.tolist(), strict=True):
        row[length:] = torch.nan
    found = resampled(poisoned, batch.lengths, steps)
    for row, values, length in zip(found, batch.values, batch.lengths.tolist(), strict=True):
        expected = F.interpolate(values[:length].T[None], size=steps, mode="linear")[0].T
        assert torch.allclose(row, expected, atol=1e-5)


def test_only_longer_items_are_averaged() -> None:
    batch = batch_of(8, 3)
    values, lengths = shortened(batch, 4)
    assert lengths.tolist() == [4, 3]
    assert torch.allclose(values[0], (batch.values[0, 0::2] + batch.values[0, 1::2]) / 2)
    assert torch.equal(values[1, :3], batch.values[1, :3])


def test_convolutions_count_the_steps_above_their_thresholds() -> None:
    torch.manual_seed(0)
    convolutions, batch = RandomConvolutions(2, 12), batch_of(40, 23, 40)
    convolutions.fit(batch)
    assert convolutions.dilations.max() == 4  # the largest power of two that fits 40 steps
    found = convolutions(batch).view(3, 12, len(QUANTILES))
    for i, length in enumerate(batch.lengths.tolist()):
        for k, (weights, dilation) in enumerate(
            zip(convolutions.weights, convolutions.dilations.tolist(), strict=True)
        ):
            padded = F.pad(batch.values[i, :length].T, (4 * dilation, 4 * dilation))
            response = sum(
                weights[:, tap] @ padded[:, tap * dilation : tap * dilation + length]
                for tap in range(TAPS)
            )
            above = (response[:, None] > convolutions.thresholds[k]).float().mean(0)
            assert torch.allclose(found[i, k], above, atol=0.08)  # a ramp, not a jump


def test_convolutions_see_neither_padding_nor_other_items() -> None:
    torch.manual_seed(0)
    convolutions, batch = RandomConvolutions(2, 12), batch_of(40, 23, 7)
    convolutions.fit(batch)
    together = convolutions(batch)
    poisoned = torch.cat([batch.values, torch.ones(3, 5, 2)], 1)
    poisoned[1, 23:] = 1e6
    assert torch.allclose(convolutions(Sequences(poisoned, batch.lengths)), together, atol=1e-5)
    alone = Sequences(batch.values[2:, :7], batch.lengths[2:])
    assert torch.allclose(convolutions(alone), together[2:], atol=1e-5)


def test_a_curve_searches_as_its_resampled_values_do() -> None:
    """No component is lost: as many dimensions as there are items."""
    batch, curves = batch_of(*[20] * 9), Curves(2, 12)
    curves.fit(batch, Look("plain", 32, 0.0))
    rows = resampled(*batch, 32).flatten(1)
    assert torch.allclose(
        torch.cdist(curves(batch), curves(batch)), torch.cdist(rows, rows), atol=0.01
    )
    curves.fit(batch, Look("standardised", 32, 0.0))
    louder = Sequences(3 * batch.values + 5, batch.lengths)
    assert torch.allclose(curves(louder), curves(batch), atol=0.5)
    curves.fit(batch, Look("differences", 32, 0.0))
    higher = Sequences(batch.values + 5, batch.lengths)
    assert torch.allclose(curves(higher), curves(batch), atol=1e-4)


def test_axes_of_few_rows_are_those_of_the_covariance() -> None:
    rows = torch.randn(6, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows -= rows.mean(0)
    found = spectrum_of(rows, most=8)
    expected = torch.linalg.eigvalsh(rows.T @ rows / 5).flip(0)[:5]
    assert torch.allclose(found.variances, expected, atol=1e-9)
    assert len(found.axes) == 5  # all that six centred rows span
    assert torch.allclose(found.axes @ found.axes.T, torch.eye(5, dtype=torch.float64), atol=1e-9)


def test_the_choice_finds_what_tells_classes_apart() -> None:
    """The level says nothing, the slope everything; then only how rough the noise is does."""
    rng = np.random.default_rng(0)
    slopes = np.stack([(1 - 2 * (i % 2)) * np.linspace(-1, 1, 30) for i in range(40)])
    levels = rng.normal(0, 20, (40, 1))
    noise = rng.standard_normal((40, 60))
    noise[1::2] = (noise[1::2] + np.roll(noise[1::2], 1, axis=1)) / 2**0.5
    labels = torch.arange(40) % 2
    chosen = []
    for values in (slopes + levels, noise):
        torch.manual_seed(0)
        static = StaticParts(1, 16, 16)
        lengths = torch.full((40,), values.shape[1])
        batch = Sequences(torch.from_numpy(values / values.std()).float()[:, :, None], lengths)
        static.fit(batch)
        static.choose(batch, labels)
        chosen.append((int(static.curves.view), round(float(static.curve_share), 1)))
    assert chosen[0][0] != 0  # not the plain values
    assert chosen[1][1] < 0.5


def test_a_score_is_the_number_of_hits_before_all() -> None:
    vectors = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    )
    cosines = among_themselves(vectors)
    labels = torch.tensor([0, 0, 1, 1])
    assert 3.5 < float(neighbour_score(cosines, labels, labels)) <= 4
    assert float(neighbour_score(cosines, labels, labels.flip(0))) < 0.5


def test_every_item_with_class_mates_is_held_out_once() -> None:
    labels = np.array([0] * 7 + [1] * 2 + [2] + [-1] * 3)
    folds = fold_numbers(labels, 3, seed=1)
    assert (folds[:9] >= 0).all()
    assert (folds[9:] == -1).all()
    assert np.bincount(folds[:9]).tolist() == [3, 3, 3]


class Rehearsed:
    """Notes which items its copies were trained on and asked for, by their values."""

    rehearses = True

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.asked: list[list[float]] = []
        self.adopted: Any = None

    def preprocess(self, items: Any) -> torch.Tensor:
        return torch.tensor([float(item[0, 0]) for item in items])

    def parts_of(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"values": batch}

    def share_scores(self, gallery: Seen, held_out: Seen) -> torch.Tensor:
        rows, queries = (seen.parts["values"].tolist() for seen in (gallery, held_out))
        assert sorted(rows) == sorted(self.seen)
        self.asked.append(queries)
        return torch.tensor([[len(self.asked), 1]])

    def adopt(self, scores: torch.Tensor) -> None:
        self.adopted = scores


def test_copies_rehearse_on_the_items_that_they_are_not_asked_for() -> None:
    encoder, copies = Rehearsed(), []
    values = [np.full((2, 1), float(i)) for i in range(9)]
    data = open_dataset(values, labels=[0, 1, 2] * 3, modality="sequence")

    def train(twin: Rehearsed, rest: Any, held_out: Any, options: TrainingOptions) -> Any:
        assert held_out is None
        assert options.out is None  # the checkpoint and the log are of the training itself
        twin.seen = [float(item[0, 0]) for item in rest]
        copies.append(twin)
        return SimpleNamespace(encoder=twin)

    rehearse(encoder, data, None, TrainingOptions(out="folder"), train)
    asked = [sorted(value for part in twin.asked for value in part) for twin in copies]
    assert sorted(chain.from_iterable(asked)) == list(range(9))
    assert not any(set(twin.seen) & set(part) for twin, part in zip(copies, asked, strict=True))
    assert encoder.adopted.tolist() == [[N_FOLDS, N_FOLDS]]
    copies.clear()
    rehearse(encoder, data, data, TrainingOptions(), train)  # these are held out already
    encoder.rehearses = False
    rehearse(encoder, data, None, TrainingOptions(), train)
    assert not copies


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("sequences_data")
    for name in ("sequences_data", "encoders_data"):
        sys.modules.pop(name, None)


GOOD = """# a comment
@problemName Tiny
@univariate false
@dimensions 2
@equalLength false
@classLabel true up down
@data
1,2,3:4,5,?:up
1,2:3,4:down
"""


def test_a_file_of_sequences_is_read(reader: Any, tmp_path: Path) -> None:
    path = tmp_path / "Tiny_TRAIN.ts"
    path.write_text(GOOD, "utf-8")
    items, labels = reader.read_ts(path)
    assert labels == ["up", "down"]
    np.testing.assert_array_equal(items[0], [[1, 4], [2, 5], [3, np.nan]])
    np.testing.assert_array_equal(items[1], [[1, 3], [2, 4]])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("3,4:down", "3,4,5:down", r"line 9: its features have lengths \[2, 3\]"),
        ("1,2:3,4:down", "1,2:down", "line 9: 1 features and label 'down', wanted 2"),
        (
            "@equalLength false",
            "@equalLength true\n@seriesLength 9",
            "3 steps, @seriesLength says 9",
        ),
        ("@data\n", "", "an item before @data"),
        ("4,5", "4,x", "line 8: could not convert"),
    ],
)
def test_a_wrong_line_is_named(
    reader: Any, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "Tiny_TRAIN.ts"
    path.write_text(GOOD.replace(old, new), "utf-8")
    with pytest.raises(ValueError, match=message):
        reader.read_ts(path)
