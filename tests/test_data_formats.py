"""Files that hold many items each: IDX, CIFAR, npz splits; and what all of them promise."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import fastretrieve as fr
from data_files import (
    LABELS,
    MAKERS,
    PICTURES,
    cifar,
    grey,
    idx,
    mnist,
    png,
    shard,
)
from fastretrieve import cli
from fastretrieve.data import DataError, Loader, arrays, open_dataset


@pytest.fixture(params=MAKERS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return MAKERS[request.param](tmp_path / "set")


def test_pictures_labels_and_splits_are_those_that_were_written(made: Path) -> None:
    data = open_dataset(made)
    splits = list(dict.fromkeys(data.columns["split"]))
    assert len(data) == 12
    assert "train" in splits
    held = next(name for name in splits if name != "train")
    for name, rows in (("train", range(8)), (held, range(8, 12))):
        part = open_dataset(made, split=name)
        assert part.columns["split"].tolist() == [name] * len(rows)
        for at, i in enumerate(rows):
            np.testing.assert_array_equal(grey(part.read(at)), PICTURES[i])
        codes = [("0", "1", "2"), ("ant", "bee", "cow")]
        assert part.classes in codes
        assert part.labels.tolist() == LABELS[list(rows)].tolist()
    assert data.columns["split"][0] == "train"
    assert len({data.key(i) for i in range(12)}) == 12


def test_a_loader_reads_them_in_any_order(made: Path) -> None:
    data = open_dataset(made, split="train")
    order = np.array([7, 0, 3, 3, 6])
    with Loader(data, lambda items: [grey(item) for item in items], batch_size=2) as loader:
        read = [picture for batch, _, _ in loader.batches(order) for picture in batch]
    np.testing.assert_array_equal(np.stack(read), PICTURES[order])


def test_a_missing_split_names_those_that_are_there(made: Path) -> None:
    with pytest.raises(DataError, match=r"has no split 'exam'; its splits are .*train"):
        open_dataset(made, split="exam")


def test_a_gallery_keeps_them_and_knows_them_again(made: Path, tmp_path: Path) -> None:
    with fr.Gallery.create(tmp_path / "g", encoder="pixels", image_size=8) as gallery:
        assert gallery.add(made, progress=False).added == 12
        again = gallery.add(made, progress=False)
        assert (again.added, again.unchanged) == (0, 12)
        assert gallery.update(progress=False).unchanged == 12
        item = gallery.items(where="split = 'train'")[3]
        assert "#item=" in item.metadata["source"]
        with Image.open(gallery.file_of(item)) as picture:  # as the page shows it
            np.testing.assert_array_equal(np.asarray(picture), PICTURES[3])
        assert gallery.search(item, k=1, include_self=True)[0].item.id == item.id
        assert gallery.search(PICTURES[3], k=1)[0].item.id == item.id
        assert gallery.remove(str(made)) == 12  # by the file or folder that they came from


def test_a_gallery_adds_one_split(made: Path, tmp_path: Path) -> None:
    with fr.Gallery.create(tmp_path / "g", encoder="pixels", image_size=8) as gallery:
        assert gallery.add(made, split="train", progress=False).added == 8
        with pytest.raises(DataError, match="no split 'exam'"):
            gallery.add(made, split="exam", progress=False)


def test_a_changed_picture_is_taken_anew_and_the_others_are_not(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {"1.png": png(0), "2.png": png(1)})
    with fr.Gallery.create(tmp_path / "g", encoder="pixels", image_size=8) as gallery:
        gallery.add(path, progress=False)
        shard(path, {"1.png": png(2), "2.png": png(1)})
        result = gallery.add(path, progress=False)
        assert (result.updated, result.unchanged, result.added) == (1, 1, 0)
        assert gallery.search(PICTURES[2], k=1)[0].item.metadata["source"] == "a.tar#item=1.png"


def test_the_same_picture_at_two_places_is_two_items(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {"1.png": png(0), "2.png": png(0)})
    with fr.Gallery.create(tmp_path / "g", encoder="pixels", image_size=8) as gallery:
        assert gallery.add(path, progress=False).added == 2
        gallery.forget(gallery.items()[0])
        with Image.open(gallery.file_of(gallery.items()[0])) as picture:
            assert picture.size == (8, 9)


@pytest.mark.parametrize("made", ["idx", "tar"], indirect=True)
def test_training_takes_train_and_evaluation_asks_with_what_is_held_out(made: Path) -> None:
    cnn = fr.create_encoder("cnn", dim=4, image_size=8, channels=1, width=2)
    result = fr.train(cnn, made, epochs=1, progress=False)
    assert result.n_items == 8
    assert (
        fr.train(cnn, made, epochs=1, split="train", validation=made, progress=False).n_held_out
        == 4
    )
    figures = fr.evaluate("pixels", made)
    assert (figures.n_queries, figures.n_gallery) == (4, 8)
    assert fr.evaluate("pixels", made, split="train").n_queries == 8
    assert fr.evaluate("pixels", open_dataset(made)).n_gallery == 12


@pytest.mark.parametrize("made", ["packed idx", "parquet"], indirect=True)
def test_the_commands_take_them(made: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> Any:
        done = CliRunner().invoke(cli.app, [*map(str, arguments), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    gallery = tmp_path / "g"
    facts = run("index", gallery, made, "--split", "train", "--encoder", "pixels")
    assert facts["added"] == 8
    assert run("evaluate", gallery, made)["n_queries"] == 4
    assert run("evaluate", gallery, made, "--split", "train")["n_queries"] == 8
    out = tmp_path / "encoder"
    options = ("--encoder", "autoencoder", "--image-size", 8, "--dim", 4, "--epochs", 1)
    assert "loss" in run("train", made, "--out", out, *options)
    assert run("add", gallery, made)["added"] == 4


# --- IDX and CIFAR --------------------------------------------------------------------------------


def test_one_idx_file_brings_its_labels_and_its_split(tmp_path: Path) -> None:
    data = open_dataset(mnist(tmp_path) / "t10k-images-idx3-ubyte")
    assert data.labels.tolist() == LABELS[8:].tolist()
    assert data.columns["split"].tolist() == ["test"] * 4
    assert len(open_dataset(tmp_path, split="t10k")) == 4
    with pytest.raises(DataError, match=r"labels and no items; give the file of the images"):
        open_dataset(tmp_path / "t10k-labels-idx1-ubyte")


def test_a_folder_above_is_searched(tmp_path: Path) -> None:
    mnist(tmp_path / "MNIST" / "raw", packed=True)
    mnist(tmp_path / "MNIST" / "raw")  # as programs leave both
    assert len(open_dataset(tmp_path)) == 12


def test_a_tar_beside_pictures_stays_unread(tmp_path: Path) -> None:
    shard(tmp_path / "backup.tar", {"1.png": png(0)})
    (tmp_path / "a.png").write_bytes(png(1))
    assert [open_dataset(tmp_path).key(0)] == [str(tmp_path / "a.png")]


BAD_IDX = {
    "cut off": (idx(PICTURES)[:-1], r"shape \(12, 9, 8\) has 880 bytes, got 879"),
    "claims too much": (
        bytes([0, 0, 8, 3]) + b"\xff" * 12 + bytes(20),
        r"has \d+ bytes, got 36",
    ),
    "another kind": (b"\x00\x00\x07\x03" + bytes(20), "not an IDX file of numbers"),
    "no header": (b"\0\0", "not an IDX file of numbers"),
    "packed and cut off": (gzip.compress(idx(PICTURES))[:-9], "not a whole gzip file"),
    "packed and longer": (gzip.compress(idx(PICTURES) + b"x"), "has 880 bytes, got 881"),
    "packed, claims too much": (
        gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12),
        "once it is unpacked, at most",
    ),
}


@pytest.mark.parametrize("name", BAD_IDX)
def test_a_bad_idx_file_is_refused_before_it_is_read(name: str, tmp_path: Path) -> None:
    data, message = BAD_IDX[name]
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as told:
        open_dataset(path)
    assert str(told.value).startswith(str(path))


def test_a_gzip_bomb_is_never_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "FREE_BYTES", 1 << 16)
    bomb = gzip.compress(idx(np.zeros((1 << 8, 32, 32), np.uint8)))
    (tmp_path / "a-images-idx3-ubyte.gz").write_bytes(bomb)
    with pytest.raises(DataError, match="at most 65,536 go; unpack it with gunzip"):
        open_dataset(tmp_path)


def test_one_bad_file_of_several_is_skipped(tmp_path: Path) -> None:
    (mnist(tmp_path) / "t10k-images-idx3-ubyte").write_bytes(b"no")
    data = open_dataset(tmp_path)
    assert len(data) == 8
    assert "not an IDX file" in data.skipped[0].reason


def test_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    (mnist(tmp_path) / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(7, np.uint8)))
    with pytest.raises(DataError, match=r"shape \(7,\) for 8 items"):
        open_dataset(tmp_path / "train-images-idx3-ubyte")


@pytest.mark.parametrize("fine", [False, True])
def test_cifar_is_read_with_the_names_of_its_classes(fine: bool, tmp_path: Path) -> None:
    folder = cifar(tmp_path / "cifar", fine=fine)
    data = open_dataset(folder)
    assert data.classes == ("cat", "dog", "fox")
    assert data.labels.tolist() == [0, 1, 2] * 2
    assert data.columns["split"].tolist() == ["train"] * 3 + ["test"] * 3
    pixels = np.load(folder / "pixels.npy")
    for i in range(6):
        np.testing.assert_array_equal(data.read(i), pixels[i].transpose(1, 2, 0))
    np.testing.assert_array_equal(
        data.read_many(np.array([5, 1])), pixels[[5, 1]].transpose(0, 2, 3, 1)
    )
    if fine:
        assert data.columns["coarse"].tolist() == ["wild", "tame"] * 3
    assert len(open_dataset(tmp_path)) == 6  # from the folder above too


def test_a_cut_off_cifar_file_is_refused(tmp_path: Path) -> None:
    path = cifar(tmp_path) / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="no multiple of"):
        open_dataset(path)


def test_pickles_are_refused_with_the_remedy(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("it was unpickled",))

    for name in ("data_batch_1", "batches.meta"):
        (tmp_path / name).write_bytes(pickle.dumps(Bad()))
    for source in (tmp_path, tmp_path / "data_batch_1"):
        with pytest.raises(DataError, match=r"download the binary version \(cifar-10-binary"):
            open_dataset(source)


def test_npz_with_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=np.array([{}] * 3, object), y_train=np.arange(3))
    with pytest.raises(DataError, match="nothing is unpickled"):
        open_dataset(tmp_path / "a.npz")


def test_npz_of_other_names(tmp_path: Path) -> None:
    path = tmp_path / "medical.npz"
    np.savez(path, train_images=PICTURES, train_labels=LABELS[:, None], val_images=PICTURES[:2])
    data = open_dataset(path)
    assert data.columns["split"].tolist() == ["train"] * 12 + ["val"] * 2
    assert data.labels.tolist() == [*LABELS.tolist(), -1, -1]
