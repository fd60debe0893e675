"""``fr.train``: it learns, and says what it did."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastretrieve.data import open_dataset
from fastretrieve.encoders.blocks.recipe import Recipe
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.models.autoencoder import AutoencoderEncoder
from fastretrieve.encoders.models.gan import GanEncoder
from fastretrieve.encoders.models.pixels import PixelsEncoder
from fastretrieve.encoders.models.rnn import RnnEncoder
from fastretrieve.encoders.models.vae import VaeEncoder
from fastretrieve.encoders.registry import create_encoder, load_encoder
from fastretrieve.evaluation import evaluate
from fastretrieve.training import DivergedError, train
from fastretrieve.training.options import Plan, TrainingOptions
from fastretrieve.training.stepping import Stepper, uses_bfloat16
from fastretrieve.training.validation import Items, Validator
from training_helpers import SIDE, fit, log_of, small, stripes


def test_training_improves_retrieval_and_marks_the_encoder() -> None:
    encoder = small()
    result = fit(encoder, n=600, epochs=5)
    assert encoder.is_trained
    assert not encoder.training
    assert encoder.classes == ("0", "1")
    assert (result.n_items, result.n_held_out) == (540, 60)
    assert result.figures["recall@1"] >= 0.9
    assert result.epochs[-1]["loss"] < result.epochs[0]["loss"]
    images, labels = stripes(60, seed=9)
    found = encoder.probabilities(encoder.preprocess(images)).argmax(1).numpy()
    assert (found == labels).mean() >= 0.9


def test_out_receives_the_encoder_a_log_curves_and_sheets(tmp_path: Path) -> None:
    encoder = small(VaeEncoder)
    result = fit(encoder, out=tmp_path)
    images, _ = stripes(5)
    copy = load_encoder(tmp_path)
    assert copy.is_trained
    batch = encoder.preprocess(images)
    assert torch.equal(copy.encode(batch), encoder.encode(batch))
    lines = log_of(tmp_path)
    assert [line["event"] for line in lines] == ["start", "epoch", "epoch", "end"]
    assert lines[0]["config"] == encoder.config
    assert [{"event": "epoch", **epoch} for epoch in result.epochs] == lines[1:3]
    for name in ("curves.png", "samples-0001.png", "samples-0002.png", "rebuilt-0002.png"):
        with Image.open(tmp_path / "training" / name) as picture:
            assert min(picture.size) > 50
            assert len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 3


def test_the_best_epoch_is_kept_and_patience_ends_the_run() -> None:
    encoder = small()
    encoder.recipe = Recipe(lr=0.02, decay=False)  # too large, so that some epochs are worse
    held_out = stripes(100, seed=3)
    result = fit(encoder, n=40, epochs=60, patience=3, validation=held_out)
    values = [epoch["precision@10"] for epoch in result.epochs]
    best = max(values)
    assert len(values) < 60
    assert max(values[-3:]) <= max(values[:-3])
    assert result.best_epoch == len(values) - values[::-1].index(best)  # of equals the last
    assert result.figures is result.epochs[result.best_epoch - 1]
    found = evaluate(encoder, held_out, gallery=stripes(40), k=10, depth=10)
    assert found["precision@10"] == pytest.approx(best)


def test_items_pass_once_for_the_choice_the_fit_and_the_figures_of_an_epoch() -> None:
    encoder, seen = small(), []
    gallery, held_out = (open_dataset(stripes(n)[0], labels=stripes(n)[1]) for n in (90, 40))
    encoder.set_classes(gallery.classes)
    encoder.body.register_forward_hook(lambda *_: seen.append("loss"))
    encoder.body.first.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    validator = Validator(
        encoder, held_out=Items(encoder, held_out, 0), gallery=Items(encoder, gallery, 0)
    )
    figures = validator.measure(device=torch.device("cpu"))
    assert seen == [90, 40, 40, "loss"]  # the held-out items once more, for their losses
    assert int(encoder.choice) > 0
    assert figures["recall@1"] > 0.5


def test_few_items_are_all_trained_on_and_validation_may_be_given_or_refused() -> None:
    assert fit(small(), n=30).n_held_out == 0
    assert fit(small(), n=520, epochs=1, validation=False).n_held_out == 0
    asked = stripes(20, seed=3)
    result = fit(small(), n=30, epochs=1, validation=asked)
    assert (result.n_items, result.n_held_out) == (30, 20)
    assert "recall@1" in result.figures


def test_without_labels_a_cnn_learns_from_views_and_finds_them_again() -> None:
    encoder = small()
    result = fit(encoder, n=520, labels=None, epochs=2)
    assert encoder.classes == ()
    assert 0 <= result.figures["view recall@1"] <= 1
    assert "accuracy" not in result.figures


@pytest.mark.parametrize("objective", ["metric", "contrastive", "softmax"])
def test_every_objective_of_the_cnn_trains(objective: str) -> None:
    assert fit(small(objective=objective)).epochs


def test_pairs_are_learned_from_pairs_and_judged_by_held_out_ones() -> None:
    """An image compared with itself has a loss of nothing and teaches nothing."""
    images = np.random.default_rng(0).integers(0, 256, (300, SIDE, SIDE)).astype(np.uint8)
    twins = np.repeat(images, 2, axis=0) // np.array([1, 2] * 300, np.uint8)[:, None, None]
    encoder = small(objective="metric")
    result = train(
        encoder, twins, labels=np.repeat(np.arange(300), 2), epochs=2, workers=0, progress=False
    )
    assert result.n_held_out == 60
    assert result.epochs[0]["loss"] > 1
    assert 0.02 < result.figures["recall@1"] <= 1  # by chance 0.003


def test_sequences_train_by_labels_and_by_prediction() -> None:
    rng = np.random.default_rng(0)
    items = [
        np.linspace(0, 1 - 2 * (i % 2), t)[:, None] + rng.normal(0, 0.1, (t, 2))
        for i, t in enumerate(rng.integers(4, 9, 40))
    ]
    encoder = RnnEncoder(dim=4, n_features=2, hidden=8)
    result = train(encoder, items, labels=[i % 2 for i in range(40)], epochs=20, progress=False)
    assert result.epochs[-1]["accuracy"] > 0.9
    assert float(encoder.spread[0]) != 1  # standardised by before_training
    assert train(RnnEncoder(dim=4, n_features=2, hidden=8), items, epochs=1, progress=False).epochs


def test_an_rnn_weighs_its_parts_by_copies_though_items_are_broken() -> None:
    rng = np.random.default_rng(0)
    items: list[Any] = [np.cumsum(rng.normal(i % 2, 1, (9, 1)), axis=0) for i in range(24)]
    items[3] = np.zeros((2, 5))
    encoder = RnnEncoder(dim=6, n_features=1, hidden=4)
    before = float(encoder.network_share)
    result = train(encoder, items, labels=[i % 2 for i in range(24)], epochs=1, progress=False)
    assert [bad.key for bad in result.skipped] == ["#3"]
    assert float(encoder.network_share) != before
    assert all(torch.isfinite(encoder.encode(encoder.preprocess(items[:3]))).flatten())


@pytest.mark.parametrize("form", ["fused", "last"])
def test_an_rnn_of_either_form_trains_with_items_held_out(form: str) -> None:
    rng = np.random.default_rng(0)
    items = [np.cumsum(rng.normal(i % 2, 1, (9, 1)), axis=0) for i in range(24)]
    labels = [i % 2 for i in range(24)]
    encoder = RnnEncoder(dim=6, n_features=1, hidden=4, form=form)
    held_out = open_dataset(items[:8], labels=labels[:8], modality="sequence")
    options = {"labels": labels, "validation": held_out, "epochs": 1, "progress": False}
    assert "recall@1" in train(encoder, items, **options).figures


def test_a_game_keeps_its_last_epoch() -> None:
    gan = small(GanEncoder, latent=4)
    result = fit(gan, n=520, epochs=2)
    assert result.best_epoch is None
    assert result.figures is result.epochs[-1]
    assert {"discriminator", "generator", "inverter", "recall@1"} <= set(result.figures)


def test_pixels_are_fitted_in_one_pass() -> None:
    images, _ = stripes(40)
    result = train(PixelsEncoder(image_size=SIDE, channels=1, dim=5), images)
    assert result.encoder.is_trained
    assert result.epochs == []


def test_an_encoder_with_nothing_to_learn_is_refused() -> None:
    class Fixed:
        name, dim, modality, api_version = "fixed", 1, "image", 1
        capabilities: frozenset[str] = frozenset()

        def preprocess(self, items: Any) -> Any:
            return items

        def encode(self, batch: Any) -> Any:
            return np.zeros((len(batch), 1), np.float32)

        def save(self, directory: Any) -> None: ...

        @classmethod
        def load(cls, directory: Any, *, device: str = "cpu") -> Any: ...

        def to(self, device: Any) -> Any:
            return self

    with pytest.raises(EncoderError, match="has nothing to learn"):
        fit(Fixed())


def test_the_bar_shows_loss_and_recall(capsys: pytest.CaptureFixture[str]) -> None:
    fit(small(), n=40, epochs=2, batch_size=2, validation=stripes(20), progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    for wanted in ("epoch 2/2", "loss", "accuracy", "recall@1"):
        assert wanted in captured.err


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_precision_is_as_asked_and_in_the_log(precision: Any, tmp_path: Path) -> None:
    result = fit(small(), precision=precision, out=tmp_path)
    assert np.isfinite(result.epochs[-1]["loss"])
    assert log_of(tmp_path)[0]["bfloat16"] == (precision == "bfloat16")


def test_bfloat16_is_chosen_only_where_it_is_native_and_the_recipe_agrees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")
    for name in ("avx512_bf16", "amx_bf16"):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda name=name: {name: True}, raising=False
        )
        assert uses_bfloat16(cpu, "auto", wanted=True)
        assert not uses_bfloat16(cpu, "auto", wanted=False)
        assert not uses_bfloat16(cpu, "float32", wanted=True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True}, raising=False)
    assert not uses_bfloat16(cpu, "auto", wanted=True)
    assert uses_bfloat16(cpu, "bfloat16", wanted=False)
    monkeypatch.delattr(
        torch.cpu, "get_capabilities", raising=False
    )  # as in older versions of torch
    assert not uses_bfloat16(cpu, "auto", wanted=True)


def test_a_diverging_run_stops_with_advice() -> None:
    with pytest.raises(DivergedError, match="train with a smaller lr"):
        fit(small(AutoencoderEncoder, reconstruction="mse"), lr=1e30, epochs=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"lr": -1.0}, "lr is a positive learning rate"),
        ({"precision": "half"}, "precision must be"),
        ({"augment": "much"}, "augment must be"),
        ({"synthetic": "anything", "share": 1.5}, "share is the generated part"),
    ],
)
def test_a_wrong_option_says_what_is_right(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(small(), **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_named() -> None:
    with pytest.raises(ValueError, match="torch finds no CUDA device"):
        fit(small(), device="cuda")


def test_one_item_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least 2 items"):
        fit(small(), n=1)


def test_the_number_of_epochs_follows_from_the_recipe() -> None:
    images, labels = stripes(16)
    encoder = small()
    encoder.recipe = Recipe(steps=10, batch_size=8)
    result = train(encoder, images, labels=labels, progress=False)
    assert len(result.epochs) == 5


def test_the_schedule_warms_up_and_falls_to_zero() -> None:
    plan = Plan(epochs=10, batch_size=4, n_items=400, recipe=Recipe(lr=0.5))
    rates = [plan.lr_at(step) for step in range(plan.total_steps)]
    assert rates[0] < 0.05
    assert max(rates) == pytest.approx(0.5, rel=0.02)
    assert rates.index(max(rates)) < 100
    assert rates[-1] < 1e-5
    assert Plan(1, 4, 400, Recipe(lr=0.5, decay=False)).lr_at(99) == 0.5


def test_the_keywords_of_train_are_the_options_with_their_defaults() -> None:
    keywords = inspect.signature(train).parameters.values()
    asked = {p.name: p.default for p in keywords if p.kind is p.KEYWORD_ONLY}
    assert [asked.pop(name) for name in ("from_", "to")] == [None, None]  # data, as the first two
    assert asked == {field.name: field.default for field in dataclasses.fields(TrainingOptions)}


def test_a_step_of_training_is_that_of_check_encoder_but_for_the_recipe() -> None:
    """With one optimizer and nothing to clip, both change the weights by the same bits."""
    from fastretrieve.encoders.blocks.steps import make_optimizers, training_step

    made = [create_encoder("vae", dim=4, image_size=8, channels=1, width=4) for _ in range(2)]
    batch = torch.rand(6, 1, 8, 8)
    plan = Plan(epochs=1, batch_size=6, n_items=6, recipe=Recipe(lr=1e-3, decay=False))
    stepper = Stepper(made[0], plan, device=torch.device("cpu"), half=False)
    stepper.optimizers = make_optimizers(made[0])
    optimizers = make_optimizers(made[1])
    for number in range(3):
        torch.manual_seed(number)
        ours = stepper.step(batch, None, number=number)
        torch.manual_seed(number)
        theirs = training_step(made[1], batch, None, optimizers)
        assert {name: float(value) for name, value in ours.items()} == theirs
    pairs = zip(made[0].parameters(), made[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
