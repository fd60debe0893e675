"""The recurrent encoder: masks, missing values, frames, and its two ways of learning."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastretrieve as fr
from fastretrieve.encoders import load_encoder
from fastretrieve.encoders.blocks.sequences import Sequences, picked
from fastretrieve.encoders.blocks.shares import see
from fastretrieve.encoders.blocks.static import Kept
from fastretrieve.encoders.blocks.steps import make_optimizers, training_step
from fastretrieve.encoders.models.rnn import POOLINGS, SHARES, RnnEncoder

rng = np.random.default_rng(5)
HALVES = (slice(0, 10), slice(10, 20))


def small(**options: Any) -> RnnEncoder:
    return RnnEncoder(**{"dim": 6, "n_features": 3, "hidden": 12, **options})


def sequences(*lengths: int, n_features: int = 3) -> list[np.ndarray]:
    return [rng.standard_normal((length, n_features)).astype(np.float32) for length in lengths]


@pytest.mark.parametrize("options", [{}, {"cell": "lstm", "layers": 2}, {"bidirectional": False}])
def test_padding_is_never_seen(options: dict[str, Any]) -> None:
    encoder = small(**options).eval()
    batch = encoder.preprocess(sequences(3, 9, 1))
    clean = encoder.encode(batch)
    poisoned = batch.values.clone()
    for row, length in zip(poisoned, batch.lengths.tolist(), strict=True):
        row[length:] = float("nan")
    assert torch.equal(encoder.encode(Sequences(poisoned, batch.lengths)), clean)
    longer = torch.cat([batch.values, torch.full((3, 4, 3), 1e6)], 1)
    assert torch.allclose(encoder.encode(Sequences(longer, batch.lengths)), clean, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_padding_does_not_enter_the_prediction_error(bidirectional: bool) -> None:
    encoder = small(bidirectional=bidirectional).eval()
    batch = encoder.preprocess(sequences(4, 7))
    poisoned = batch.values.clone()
    poisoned[0, 4:] = 1e3
    with torch.no_grad():
        clean = encoder.loss(batch)["loss"]
        assert torch.allclose(encoder.loss(Sequences(poisoned, batch.lengths))["loss"], clean)


def test_the_vector_of_the_older_form_is_a_projection_of_the_unit_last_state() -> None:
    encoder = small(bidirectional=False, form="last").eval()
    item = torch.from_numpy(sequences(5)[0])[None]
    with torch.no_grad():
        last = encoder.recurrent(item)[0][:, -1]
        expected = encoder.project(last / last.norm())
    assert torch.allclose(encoder.encode((item, torch.tensor([5]))), expected, atol=1e-6)


OLDER_TENSORS = """mean spread project.bias project.weight predict.0.bias predict.0.weight
recurrent.bias_hh_l0 recurrent.bias_ih_l0 recurrent.weight_hh_l0 recurrent.weight_ih_l0"""


def test_a_saved_encoder_that_names_no_form_is_of_the_older_one(tmp_path: Path) -> None:
    encoder = small(bidirectional=False, form="last").eval()
    encoder.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    del config["config"]["form"]
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    again, items = load_encoder(tmp_path), sequences(5, 2)
    assert set(again.state_dict()) == set(OLDER_TENSORS.split())  # type: ignore[attr-defined]
    expected = encoder.encode(encoder.preprocess(items))
    assert torch.equal(again.encode(again.preprocess(items)), expected)


def fitted(items: list[np.ndarray], labels: list[int], **options: Any) -> RnnEncoder:
    encoder = small(dim=12, **options)
    batch = encoder.preprocess(items)
    encoder.before_training([batch])
    encoder.choose([(batch, torch.tensor(labels))])
    return encoder.eval()


def test_what_was_chosen_survives_saving(tmp_path: Path) -> None:
    items = sequences(*[9] * 12)
    encoder = fitted(items, [0, 1] * 6)
    encoder.adopt(torch.eye(len(POOLINGS), len(SHARES)).flip(0))
    assert (int(encoder.pooling), float(encoder.network_share)) == (2, 0.0)
    encoder.save(tmp_path)
    again = RnnEncoder.load(tmp_path)
    batch = encoder.preprocess(items)
    assert torch.equal(again.encode(batch), encoder.encode(batch))


def test_a_network_that_does_not_help_gets_no_share() -> None:
    encoder = small()
    encoder.adopt(torch.ones(len(POOLINGS), len(SHARES)))
    assert float(encoder.network_share) == 0
    scores = torch.ones(len(POOLINGS), len(SHARES))
    scores[1, 3] = 2
    encoder.adopt(scores)
    assert int(encoder.pooling) == 1
    assert float(encoder.network_share) == pytest.approx(0.3)


def test_the_vector_is_its_layers_weighed_by_their_shares() -> None:
    encoder = fitted(sequences(*[9] * 12), [0, 1] * 6)
    encoder.network_share.fill_(0.3)
    encoder.static.curve_share.fill_(0.25)
    batch = encoder.preprocess(sequences(5, 12))
    parts = encoder.layers(batch)
    weights = {"curve": 0.7 * 0.25, "convolutions": 0.7 * 0.75, "network": 0.3}
    expected = fr.fuse(list(parts.values()), weights=[weights[name] ** 0.5 for name in parts])
    assert torch.allclose(encoder.encode(batch), expected, atol=1e-6)


def test_held_out_items_are_scored_as_the_vector_finds_them() -> None:
    """The score counts hits; the likelihood beside them is below one of them."""
    encoder = fitted(items := sequences(*[9] * 20), labels := [0, 1] * 10)
    batches = [(encoder.preprocess(items[s]), torch.tensor(labels[s])) for s in HALVES]
    parts = [see(encoder, [each]) for each in batches]
    scores = encoder.share_scores(*parts)
    for i in range(len(POOLINGS)):
        encoder.pooling.fill_(i)
        encoder.network_share.fill_(SHARES[4])
        rows, queries = (encoder.encode(batch) for batch, _ in batches)
        assert torch.allclose(encoder.join(parts[0].parts), rows, atol=1e-5)
        nearest = (queries @ rows.T).argmax(1)
        hits = int((batches[0][1][nearest] == batches[1][1]).sum())
        assert hits - 5 <= float(scores[i, 4]) <= hits
        assert abs(float(scores[i, 4]) - hits) < 1


def test_what_training_keeps_of_an_item_is_what_its_vector_holds() -> None:
    """Also of items of other lengths in one batch, and after the parts have changed."""
    encoder, kept, made = fitted(sequences(*[9] * 12), [0, 1] * 6), Kept(), []
    batch = encoder.preprocess(sequences(5, 9, 7))

    def make(part: Sequences) -> torch.Tensor:
        made.append(len(part.lengths))
        return encoder._static_vector(part)

    for rows, n_made in (([0, 1], [2]), ([1, 2, 0], [2, 1]), ([2, 1], [2, 1])):
        found = kept(picked(batch, torch.tensor(rows)), make, encoder.static.buffers())
        assert torch.allclose(found, encoder._static_vector(batch)[rows], atol=1e-6)
        assert made == n_made
    encoder.static.curve_share.fill_(0.9)
    assert torch.allclose(
        kept(batch, make, encoder.static.buffers()), encoder._static_vector(batch), atol=1e-6
    )
    assert made == [2, 1, 3]
    assert pickle.loads(pickle.dumps(kept))._rows == {}


def test_few_features_are_neither_dropped_nor_noisy() -> None:
    for n_features, is_spared in ((3, True), (40, False)):
        encoder = RnnEncoder(dim=6, n_features=n_features, hidden=8, noise=1.0, dropout=0.5).train()
        inputs = encoder.preprocess(sequences(6, 6, n_features=n_features))
        same = torch.equal(encoder._packed(inputs).data, encoder.eval()._packed(inputs).data)
        assert same == is_spared


def test_the_recurrence_takes_as_few_steps_as_keep_the_variance() -> None:
    slow, fast = np.sin(np.arange(500) / 40), (-1.0) ** np.arange(500)
    steps = []
    for wave in (slow, fast):
        encoder = RnnEncoder(dim=6, n_features=1, hidden=8)
        encoder.before_training([encoder.preprocess([wave, -wave])])
        steps.append(int(encoder.steps))
    assert steps == [32, 128]


def test_before_training_learns_the_mean_and_spread_of_real_steps_only() -> None:
    encoder = small()
    items = [10 * item + 5 for item in sequences(4, 9, 2)]
    items[0][0, 1] = np.nan
    items.append(np.full((2, 3), np.nan, np.float32))
    encoder.before_training([encoder.preprocess(items[:2]), encoder.preprocess(items[2:])])
    rows = np.concatenate(items)
    np.testing.assert_allclose(encoder.mean.numpy(), np.nanmean(rows, 0), rtol=1e-5)
    np.testing.assert_allclose(encoder.spread.numpy(), np.nanstd(rows, 0), rtol=1e-5)


def test_a_missing_value_counts_as_the_mean() -> None:
    encoder = small().eval()
    encoder.mean.fill_(2.0)
    with_gap, with_mean = sequences(5)[0], np.empty((5, 3), np.float32)
    with_gap[2, 1] = np.nan
    with_mean[:] = np.where(np.isnan(with_gap), 2.0, with_gap)
    found = encoder.encode(encoder.preprocess([with_gap]))
    assert torch.equal(found, encoder.encode(encoder.preprocess([with_mean])))


def test_long_sequences_are_averaged_down() -> None:
    encoder = small(max_length=4)
    item = np.arange(24, dtype=np.float32).reshape(8, 3)
    values, lengths = encoder.preprocess([item])
    assert lengths.tolist() == [4]
    np.testing.assert_allclose(values[0].numpy(), (item[0::2] + item[1::2]) / 2)


def test_frames_pass_a_convolutional_network() -> None:
    encoder = RnnEncoder(dim=6, hidden=8, frame_size=12, channels=3)
    films = [[rng.integers(0, 255, (20, 30, 3), np.uint8) for _ in range(t)] for t in (2, 4)]
    batch = encoder.preprocess(films)
    assert batch.values.shape == (2, 4, 3 * 12 * 12)
    encoder.before_training([batch])
    training_step(encoder, batch, None, make_optimizers(encoder))
    together = encoder.encode(batch)
    alone = encoder.encode(encoder.preprocess(films[:1]))
    assert torch.allclose(together[:1], alone, atol=1e-5)


def test_predicting_the_next_step_is_learned() -> None:
    encoder = small(noise=0.0, dropout=0.0)
    waves = [np.sin(np.arange(12)[:, None] / 2 + phase + np.arange(3)) for phase in range(6)]
    batch, optimizers = encoder.preprocess(waves), make_optimizers(encoder)
    history = [training_step(encoder, batch, None, optimizers)["loss"] for _ in range(90)]
    assert history[-1] < 0.6 * history[0]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([np.zeros((4, 2))], r"sequence 0 has shape \(4, 2\), wanted \[t, 3\]"),
        ([np.zeros((2, 3)), np.zeros((0, 3))], "sequence 1 has shape"),
        ([np.full((2, 3), np.inf)], "holds infinity"),
    ],
)
def test_a_wrong_sequence_is_named(items: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().preprocess(items)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "elman"}, 'cell must be "gru" or "lstm"'),
        ({"objective": "guess"}, "objective must be one of"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"dim": 2}, "dim must be at least 3, one for each part of the vector, got 2"),
        ({"form": "first"}, 'form must be "fused" or "last"'),
    ],
)
def test_a_wrong_option_says_what_is_right(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
