"""``fr.train``: it learns, it can be killed, and it says what it did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastretrieve.encoders.autoencoder import AutoencoderEncoder
from fastretrieve.encoders.cnn import CnnEncoder
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.gan import GanEncoder
from fastretrieve.encoders.pixels import PixelsEncoder
from fastretrieve.encoders.recipe import Recipe
from fastretrieve.encoders.registry import load_encoder
from fastretrieve.encoders.rnn import RnnEncoder
from fastretrieve.encoders.vae import VaeEncoder
from fastretrieve.evaluation import evaluate
from fastretrieve.training import CheckpointError, DivergedError, TrainingResult, Views, train
from fastretrieve.training.augmentation import mirrors_are_at_home
from fastretrieve.training.checkpoint import weights_of
from fastretrieve.training.options import Plan
from fastretrieve.training.run import Run
from fastretrieve.training.stepping import Stepper

SIDE = 10


def stripes(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images of stripes across (0) or along (1), of any phase: hard for pixels, easy for a cnn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    waves = np.sin(np.arange(SIDE) * 1.4 + rng.uniform(0, 6.3, (n, 1)))
    planes = np.repeat(waves[:, None, :], SIDE, axis=1)
    planes = np.where(labels[:, None, None] == 1, planes.transpose(0, 2, 1), planes)
    noisy = planes * 80 + 128 + rng.normal(0, 20, planes.shape)
    return noisy.clip(0, 255).astype(np.uint8), labels


def small(cls: type = CnnEncoder, **options: Any) -> Any:
    defaults = {"dim": 8, "image_size": SIDE, "channels": 1, "width": 4}
    return cls(**{**defaults, **options})


def fit(encoder: Any, *, n: int = 64, **options: Any) -> TrainingResult:
    images, labels = stripes(n)
    return train(
        encoder,
        images,
        **{"labels": labels, "epochs": 2, "workers": 0, "progress": False, **options},
    )


def same_weights(a: Any, b: Any) -> bool:
    ours, theirs = weights_of(a), weights_of(b)
    return set(ours) == set(theirs) and all(torch.equal(ours[k], theirs[k]) for k in ours)


def log_of(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "training" / "log.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def without_times(epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    timed = ("seconds", "cpu_seconds", "wait_share")
    return [{k: v for k, v in epoch.items() if k not in timed} for epoch in epochs]


def stopped_at(monkeypatch: pytest.MonkeyPatch, number: int, *, inside: bool = False) -> None:
    """From here on, a run is interrupted before its step ``number``, or in the middle of it."""
    step, owner = (Stepper.step, Stepper) if inside else (Run._step, Run)

    def interrupted(self: Any, *args: Any, **options: Any) -> Any:
        at = options["number"] if inside else self.progress.step
        if at == number and inside:
            next(iter(self.encoder.parameters())).data.add_(1.0)  # half of an update
        if at == number:
            raise KeyboardInterrupt
        return step(self, *args, **options)

    monkeypatch.setattr(owner, step.__name__, interrupted)


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


def test_equal_seeds_give_equal_weights_and_leave_the_callers_randomness_alone() -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    one, again, other = small(), small(), small()
    fit(one, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(5)
    fit(again, seed=4)
    fit(other, seed=6)
    assert same_weights(one, again)
    assert not same_weights(one, other)


@pytest.mark.parametrize("step", [1, 6, 8, 15], ids=["first", "middle", "epoch end", "last"])
@pytest.mark.parametrize("cls", [CnnEncoder, GanEncoder])
def test_an_interrupted_run_goes_on_to_the_same_result(
    cls: type, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"batch_size": 8, "out": tmp_path / "broken"}
    config = {"latent": 4} if cls is GanEncoder else {}
    whole = small(cls, **config)
    expected = fit(whole, batch_size=8, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stopped_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            fit(small(cls, **config), **options)
    assert (tmp_path / "broken" / "training" / "checkpoint.safetensors").is_file()
    resumed = small(cls, **config)
    found = fit(resumed, **options)
    assert same_weights(whole, resumed)
    assert without_times(found.epochs) == without_times(expected.epochs)
    assert [line["event"] for line in log_of(tmp_path / "broken")] == [
        "start",
        "epoch",
        "epoch",
        "end",
    ]
    assert not (tmp_path / "broken" / "training" / "checkpoint.safetensors").exists()


def test_an_interruption_amid_a_step_goes_back_to_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, resumed = small(), small()
    fit(whole, batch_size=8)
    with monkeypatch.context() as patch:
        stopped_at(patch, 11, inside=True)
        with pytest.raises(KeyboardInterrupt):
            fit(small(), batch_size=8, out=tmp_path)
    fit(resumed, batch_size=8, out=tmp_path)
    assert same_weights(whole, resumed)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from test_training import fit, small
fit(small(), n=256, epochs=4, batch_size=8, out={out!r}, checkpoint_seconds=0.0)
"""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums of torch depend on how many threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_killed_process_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), out=str(tmp_path))
    checkpoint = tmp_path / "training" / "checkpoint.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 60
    while not checkpoint.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.is_file()
    resumed = fit(small(), n=256, epochs=4, batch_size=8, out=tmp_path, checkpoint_seconds=9.0)
    whole = small()
    expected = fit(whole, n=256, epochs=4, batch_size=8)
    assert same_weights(whole, resumed.encoder)
    assert without_times(resumed.epochs) == without_times(expected.epochs)


def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stopped_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            fit(small(), out=tmp_path, batch_size=8)
    with pytest.raises(CheckpointError, match="of another run"):
        fit(small(), out=tmp_path, batch_size=8, seed=1)
    path = tmp_path / "training" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="cannot be read"):
        fit(small(), out=tmp_path, batch_size=8)
    fit(small(), out=tmp_path, batch_size=8, resume=False)


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


def test_bad_images_are_skipped_and_listed(tmp_path: Path) -> None:
    images, labels = stripes(24)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / str(label)
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    (tmp_path / "1" / "broken.png").write_bytes(b"not a picture")
    result = train(small(), tmp_path, epochs=2, workers=2, progress=False)
    assert [Path(item.key).name for item in result.skipped] == ["broken.png"]


def test_a_folder_of_broken_images_says_so(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="none of the 3 items could be read"):
        train(small(AutoencoderEncoder), tmp_path, epochs=1, progress=False)


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


def test_unlabelled_items_among_labelled_ones_are_welcome() -> None:
    labels = [None if i % 3 == 0 else i % 2 for i in range(64)]
    assert fit(small(), labels=labels).epochs[-1]["loss"] > 0


@pytest.mark.parametrize("objective", ["metric", "contrastive", "softmax"])
def test_every_objective_of_the_cnn_trains(objective: str) -> None:
    assert fit(small(objective=objective)).epochs


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


def test_balanced_sampling_shows_a_rare_class_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    step = Stepper.step

    def spying(self: Stepper, batch: Any, labels: torch.Tensor, **options: Any) -> Any:
        seen.extend(labels.tolist())
        return step(self, batch, labels, **options)

    monkeypatch.setattr(Stepper, "step", spying)
    labels = [0] * 56 + [1] * 8
    fit(small(), labels=labels, epochs=1, batch_size=16)
    assert sum(seen) == 8
    seen.clear()
    fit(small(), labels=labels, epochs=1, batch_size=16, balanced=True)
    assert sum(seen) == 32


def test_mirror_images_are_used_only_where_the_data_are_symmetric() -> None:
    rng = np.random.default_rng(0)
    bars = np.zeros((120, SIDE, SIDE), np.uint8)
    for i, bar in enumerate(bars):
        bar[:, : 1 + i % 4] = rng.integers(100, 255)  # always at the left
    plain = train(small(), bars, labels=[0, 1] * 60, epochs=1, progress=False)
    assert plain.views is not None
    assert not plain.views.flip
    both = np.concatenate([bars, bars[:, :, ::-1]])
    result = train(small(), both, labels=[0, 1] * 120, epochs=1, progress=False)
    assert result.views is not None
    assert result.views.flip
    assert not mirrors_are_at_home(torch.rand(8, 1, 6, 6))  # too few to tell


def test_augmentation_is_off_for_densities_and_as_asked_otherwise() -> None:
    assert fit(small(VaeEncoder), epochs=1).views is None
    assert fit(small(), epochs=1, augment=False).views is None
    asked = Views(shift=0.2, flip=True)
    encoder = small()
    assert fit(encoder, epochs=1, augment=asked).views == asked
    assert encoder.views.flip  # the encoder's own views are told, too


def test_the_bar_shows_loss_and_recall(capsys: pytest.CaptureFixture[str]) -> None:
    fit(small(), n=40, epochs=2, batch_size=2, validation=stripes(20), progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    for wanted in ("epoch 2/2", "loss", "accuracy", "recall@1"):
        assert wanted in captured.err


def test_mixed_precision_trains_on_the_cpu_where_asked_for() -> None:
    result = fit(small(), precision="bfloat16")
    assert np.isfinite(result.epochs[-1]["loss"])


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


def test_synthetic_images_join_and_the_result_says_what_they_did(tmp_path: Path) -> None:
    gan = small(GanEncoder, latent=4)
    fit(gan, n=520, epochs=2)
    result = fit(small(), n=520, epochs=2, synthetic=gan, share=0.2, out=tmp_path)
    made = result.synthetic
    assert made is not None
    assert made.n_kept <= round(468 * 0.25)
    assert result.n_items == 468 + made.n_kept
    assert sum(made.per_class.values()) == made.n_kept
    assert {"recall@1"} <= set(made.without) & set(made.with_them)
    assert str(made).startswith(f"{made.n_kept} of {made.n_drawn} drawings were added: recall@1")
    assert log_of(tmp_path / "training" / "without-synthetic")


def test_synthetic_needs_an_encoder_that_draws_and_is_trained() -> None:
    with pytest.raises(EncoderError, match="cannot"):
        fit(small(), synthetic=small(), share=0.2)
    with pytest.raises(EncoderError, match="not trained"):
        fit(small(), synthetic=small(VaeEncoder), share=0.2)
