"""What ``fr.train`` shows an encoder: skipped, balanced, changed and generated items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastretrieve.encoders.blocks.views import STRONG
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.models.autoencoder import AutoencoderEncoder
from fastretrieve.encoders.models.gan import GanEncoder
from fastretrieve.encoders.models.rnn import RnnEncoder
from fastretrieve.encoders.models.vae import VaeEncoder
from fastretrieve.training import Views, train
from fastretrieve.training.augmentation import bearable, mirrors_are_at_home
from fastretrieve.training.stepping import Stepper
from fastretrieve.training.validation import _ranks
from training_helpers import SIDE, fit, log_of, small, stripes


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


def test_items_of_the_wrong_shape_say_what_the_encoder_wants() -> None:
    film = [Image.new("L", (12, 12))] * 4
    encoder = RnnEncoder(dim=4, n_features=2, hidden=8)
    with pytest.raises(ValueError, match=r"none of the 8 items could be read.*frame_size"):
        train(encoder, [film] * 8, labels=[0, 1] * 4, epochs=1, progress=False)


def test_unlabelled_items_among_labelled_ones_are_welcome() -> None:
    labels = [None if i % 3 == 0 else i % 2 for i in range(64)]
    assert fit(small(), labels=labels).epochs[-1]["loss"] > 0


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


def test_views_are_as_strong_as_the_data_bear() -> None:
    rng = np.random.default_rng(0)
    blobs = torch.from_numpy(rng.random((100, 1, 4, 4)).astype(np.float32))
    coarse = torch.nn.functional.interpolate(blobs, size=16)
    # A bar each, which a crop moves to where another's is.
    place = torch.linspace(2, 14, 100)[:, None]
    bars = torch.exp(-((torch.arange(16.0) - place) ** 2) / 6)
    fine = bars[:, None, None, :].expand(100, 1, 16, 16)
    before = torch.get_rng_state()
    assert bearable(STRONG, coarse).crop == STRONG.crop
    assert bearable(STRONG, fine).crop > STRONG.crop
    assert torch.equal(torch.get_rng_state(), before)
    tints = torch.zeros(60, 3, 8, 8)
    tints[:, 0] = 1.0
    tints[:, 1] = torch.linspace(0, 1, 60).view(60, 1, 1)  # differ by hue alone
    assert bearable(STRONG, tints).hue < STRONG.hue


def test_the_rank_of_an_original_counts_all_that_are_as_near() -> None:
    rows = np.array([[1, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    assert _ranks(np.array([[1, 0.1], [-1, 1.0]], np.float32), rows).tolist() == [2, 1]


def test_views_that_all_find_their_originals_come_with_a_warning(tmp_path: Path) -> None:
    result = fit(small(), n=520, labels=None, epochs=1, out=tmp_path)
    assert 0 < result.figures["view mrr"] <= 1
    result.epochs[0]["view recall@1"] = 0.9
    assert "compare encoders on labelled items" in result.notes[0]
    result.epochs[0]["view recall@1"] = 0.5
    assert result.notes == []
    assert "notes" in log_of(tmp_path)[-1]
