"""``adapter``: a map on a frozen encoder, trained on its vectors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastretrieve.encoders.base import TorchEncoder
from fastretrieve.encoders.errors import EncoderError
from fastretrieve.encoders.models.adapter import AdapterEncoder
from fastretrieve.encoders.models.cnn import CnnEncoder
from fastretrieve.encoders.models.pixels import PixelsEncoder
from fastretrieve.evaluation import evaluate
from fastretrieve.testing import parametrize_checks
from fastretrieve.training import train
from training_helpers import log_of, same_weights, small, stripes

SIDE = 6


def pixels(**options: Any) -> PixelsEncoder:
    return PixelsEncoder(**{"image_size": SIDE, "channels": 1, **options})


def adapter(**options: Any) -> AdapterEncoder:
    return AdapterEncoder(**{"frozen": pixels(), **options})


def mates(n: int, *, seed: int = 0, each: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Pictures whose upper third says which of ``n`` classes it is; the rest is loud noise."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (each * n, SIDE, SIDE)).astype(np.uint8)
    for i in range(1, each):
        images[i * n : (i + 1) * n, :2] = images[:n, :2]
    return images, np.tile(np.arange(n), each)


@parametrize_checks(adapter, lambda: adapter(hidden=16), load=AdapterEncoder.load)
def test_adapter_keeps_the_promises_of_the_protocol(check: Any) -> None:
    check()


@pytest.mark.parametrize("hidden", [0, 24])
def test_untrained_it_has_the_neighbours_of_the_frozen_encoder(hidden: int) -> None:
    encoder = adapter(hidden=hidden)
    batch = encoder.preprocess(mates(5)[0])
    plain = torch.as_tensor(pixels().encode(batch))
    assert torch.allclose(encoder.encode(batch), plain / plain.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("hidden", [0, 64])
def test_labels_teach_it_what_counts_of_items_of_other_labels(hidden: int) -> None:
    images, labels = mates(150)
    asked = mates(60, seed=1, each=2)
    encoder = adapter(hidden=hidden)
    before = evaluate(encoder.frozen, asked[0], labels=asked[1])["recall@1"]
    result = train(encoder, images, labels=labels, epochs=40, progress=False)
    after = evaluate(encoder, asked[0], labels=asked[1])["recall@1"]
    assert result.encoder is encoder
    assert encoder.is_trained
    assert result.best_epoch
    assert result.n_held_out
    assert before < 0.4 < 0.8 < after


def test_a_start_that_no_epoch_beats_is_kept_and_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, SIDE, SIDE)).astype(np.uint8)
    labels = rng.integers(0, 2, 200)  # of nothing
    encoder = adapter()
    result = train(
        encoder,
        images,
        labels=labels,
        epochs=12,
        patience=3,
        validation=(images[::2], labels[::-2]),
        out=tmp_path,
        progress=False,
    )
    assert result.best_epoch == 0
    assert len(result.epochs) == 3
    assert result.figures == result.start != {}
    assert same_weights(encoder.head, adapter().head)
    assert log_of(tmp_path)[-1]["start"] == result.start


def test_pictures_are_decoded_and_encoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, picture in enumerate(stripes(40)[0]):
        folder = tmp_path / "data" / str(i % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i}.png")
    (tmp_path / "data" / "1" / "bad.png").write_bytes(b"no picture")
    n_encoded = 0
    encoder = adapter()
    original = encoder.frozen.encode

    def counted(batch: Any) -> Any:
        nonlocal n_encoded
        n_encoded += len(batch)
        return original(batch)

    monkeypatch.setattr(encoder.frozen, "encode", counted)
    result = train(encoder, tmp_path / "data", epochs=5, progress=False)
    assert n_encoded == 40
    assert len(result.epochs) == 5
    assert [Path(bad.key).name for bad in result.skipped] == ["bad.png"]


def test_a_killed_run_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastretrieve.training.run import Run

    images, labels = mates(40)
    options: dict[str, Any] = {"labels": labels, "epochs": 4, "validation": mates(10, seed=3)}
    whole = adapter()
    train(whole, images, progress=False, **options)
    killed, finish = adapter(), Run._finish_epoch

    def stop(self: Run, number: int, wait_share: float) -> None:
        finish(self, number, wait_share)
        if number == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_finish_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        train(killed, images, out=tmp_path, progress=False, **options)
    monkeypatch.undo()
    resumed = adapter()
    result = train(resumed, images, out=tmp_path, progress=False, **options)
    assert same_weights(resumed.head, whole.head)
    assert len(result.epochs) == 4
    assert result.start


def test_labels_are_asked_for_before_anything_is_encoded() -> None:
    encoder = adapter()
    encoder._kept[0] = None  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="learns from labels or pairs, and no item has a label"):
        train(encoder, mates(5)[0], progress=False)


def test_a_frozen_encoder_that_can_still_be_fitted_is_fitted_first() -> None:
    class Mean(TorchEncoder):
        name, capabilities = "mean", frozenset({"fit"})
        fit_items = (2, 16)

        def __init__(self, *, image_size: int = 2, channels: int = 1) -> None:
            super().__init__(dim=4, config={"image_size": image_size, "channels": channels})
            self.seen = 0

        @property
        def is_fitted(self) -> bool:
            return self.seen > 0

        def fit(self, batches: Any) -> Mean:
            self.seen = sum(len(batch) for batch in batches)
            return self

        def embed(self, batch: Any) -> torch.Tensor:
            assert self.seen
            return batch.flatten(1)

    encoder = AdapterEncoder(frozen=Mean())
    train(encoder, stripes(40)[0], labels=stripes(40)[1], epochs=1, progress=False)
    assert encoder.frozen.seen == 16


def test_a_copy_on_disk_holds_the_frozen_encoder(tmp_path: Path) -> None:
    frozen = small()
    frozen.is_trained = True
    encoder = AdapterEncoder(frozen=frozen, hidden=8, seed=3)
    torch.nn.init.normal_(encoder.head.down.weight)
    encoder.save(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")  # it names no place
    copy = AdapterEncoder.load(tmp_path / "b")
    batch = encoder.preprocess(stripes(3)[0])
    assert torch.equal(copy.encode(batch), encoder.encode(batch))
    assert isinstance(copy.frozen, CnnEncoder)
    assert same_weights(copy.frozen, frozen)
    assert not any("frozen." in name for name in copy.state_dict())


def edited(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    header = json.loads(path.read_text())
    path.write_text(json.dumps({**header, **changes}))


def test_a_directory_names_no_code_and_leads_nowhere(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    adapter().save(saved)
    edited(saved / "frozen", encoder="./my.py:Mine")
    with pytest.raises(EncoderError, match="what a directory names is never run"):
        AdapterEncoder.load(saved)
    adapter().save(saved)
    edited(saved, config={"hidden": 0, "frozen": str(tmp_path)})
    with pytest.raises(EncoderError, match="does not fit AdapterEncoder"):
        AdapterEncoder.load(saved)
    adapter().save(saved)
    shutil.move(saved / "frozen", tmp_path / "elsewhere")
    (saved / "frozen").symlink_to(tmp_path / "elsewhere")
    for use in (AdapterEncoder.load, adapter().save):
        with pytest.raises(EncoderError, match="is no folder of its own"):
            use(saved)


def test_another_frozen_encoder_in_the_folder_is_refused(tmp_path: Path) -> None:
    adapter().save(tmp_path)
    pixels(image_size=(4, 9)).save(tmp_path / "frozen")
    with pytest.raises(EncoderError, match="is not the encoder that this adapter was saved with"):
        AdapterEncoder.load(tmp_path)


def test_a_frozen_encoder_of_a_file_is_given_again(tmp_path: Path) -> None:
    class Mine(PixelsEncoder):
        name = "of-a-file"

    frozen = Mine(image_size=SIDE, channels=1)
    encoder = AdapterEncoder(frozen=frozen)
    encoder.save(tmp_path)
    with pytest.raises(EncoderError, match="no encoder is called 'of-a-file'"):
        AdapterEncoder.load(tmp_path)
    assert AdapterEncoder.load(tmp_path, frozen=frozen).frozen is frozen


def test_what_cannot_be_frozen_is_refused() -> None:
    with pytest.raises(EncoderError, match="is not trained"):
        AdapterEncoder(frozen=small())
    with pytest.raises(EncoderError, match="up to 4096 numbers"):
        AdapterEncoder(frozen="pixels", options={"image_size": 65, "channels": 1})
    with pytest.raises(ValueError, match="options are for an encoder that is made here"):
        AdapterEncoder(frozen=pixels(), options={"image_size": 8})
    with pytest.raises(ValueError, match="hidden is the width"):
        adapter(hidden=-1)
