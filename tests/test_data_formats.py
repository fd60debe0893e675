"""Files that hold many items each: IDX, CIFAR, npz splits, tar shards, Parquet; and pairs."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import fastretrieve as fr
from fastretrieve import cli
from fastretrieve.data import DataError, Loader, arrays, open_dataset

RNG = np.random.default_rng(14)
PICTURES = RNG.integers(0, 256, (12, 9, 8)).astype(np.uint8)
LABELS = np.arange(12) % 3


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, kind, array.ndim]) + sizes + array.tobytes()


def mnist(folder: Path, *, packed: bool = False) -> Path:
    """8 pictures to train on, 4 to test with."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", slice(0, 8)), ("t10k", slice(8, 12))):
        for name, array in (("images-idx3", PICTURES), ("labels-idx1", LABELS.astype(np.uint8))):
            data = idx(array[rows])
            end = ".gz" if packed else ""
            (folder / f"{split}-{name}-ubyte{end}").write_bytes(
                gzip.compress(data, mtime=0) if packed else data
            )
    return folder


def cifar(folder: Path, *, fine: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (6, 3, 32, 32)).astype(np.uint8)
    for name, start in (
        ("train" if fine else "data_batch_1", 0),
        ("test" if fine else "test_batch", 3),
    ):
        records = b""
        for i in range(start, start + 3):
            records += bytes([1 - i % 2] if fine else []) + bytes([i % 3]) + pixels[i].tobytes()
        (folder / f"{name}.bin").write_bytes(records)
    names = "fine_label_names.txt" if fine else "batches.meta.txt"
    (folder / names).write_text("cat\ndog\nfox\n\n")
    if fine:
        (folder / "coarse_label_names.txt").write_text("tame\nwild\n")
    np.save(folder / "pixels", pixels)
    return folder


def png(i: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PICTURES[i]).save(buffer, "PNG")
    return buffer.getvalue()


def shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def shards(folder: Path) -> Path:
    for split, rows in (("train", range(8)), ("val", range(8, 12))):
        members: dict[str, bytes] = {}
        for i in rows:
            members[f"{i:04}.png"] = png(i)
            members[f"{i:04}.cls"] = f"{LABELS[i]}\n".encode()
            members[f"{i:04}.txt"] = f"picture {i}".encode()
            members[f"{i:04}.json"] = json.dumps({"camera": f"c{i % 2}", "label": "x"}).encode()
        shard(folder / f"set-{split}-000.tar", members)
    return folder


def parquet(folder: Path, rows: range = range(12), name: str = "train-00000-of-00001") -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    features = {
        "image": {"_type": "Image"},
        "label": {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"},
    }
    table = pa.table(
        {
            "image": [{"bytes": png(i), "path": f"{i}.png"} for i in rows],
            "label": pa.array([int(LABELS[i]) for i in rows], pa.int64()),
            "width": [8 for _ in rows],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, folder / f"{name}.parquet", row_group_size=5)
    return folder


def keras(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mnist.npz"
    np.savez_compressed(
        path,
        x_train=PICTURES[:8],
        y_train=LABELS[:8, None],
        x_test=PICTURES[8:],
        y_test=LABELS[8:, None],
    )
    return path


def two_parquets(folder: Path) -> Path:
    return parquet(parquet(folder, range(8)), range(8, 12), "test-00000-of-00001")


MAKERS: dict[str, Callable[[Path], Path]] = {
    "idx": mnist,
    "packed idx": lambda folder: mnist(folder, packed=True),
    "tar": shards,
    "parquet": two_parquets,
    "npz": keras,
}


@pytest.fixture(params=MAKERS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return MAKERS[request.param](tmp_path / "set")


def grey(item: Any) -> np.ndarray:
    return np.asarray(item)


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


# --- tar ------------------------------------------------------------------------------------------


def test_what_lies_beside_a_picture_becomes_label_caption_and_columns(tmp_path: Path) -> None:
    data = open_dataset(shards(tmp_path) / "set-val-000.tar")
    assert [data.label_name(i) for i in range(4)] == ["2", "0", "1", "2"]  # .cls before .json
    assert data.columns["caption"][0] == "picture 8"
    assert data.columns["camera"].tolist() == ["c0", "c1"] * 2
    assert data.key(0).endswith("set-val-000.tar#item=0008.png")


def test_folders_in_a_tar_name_classes(tmp_path: Path) -> None:
    names = {"./pets/cat/1.png": png(0), "./pets/dog/1.png": png(1)}
    data = open_dataset(shard(tmp_path / "a.tar", names))
    assert [data.label_name(i) for i in range(2)] == ["cat", "dog"]


def test_bad_members_are_skipped_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:

        def put(name: str, content: bytes, **about: Any) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in about.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))

        put("0.png", png(0))
        put("0.json", b"[1]")
        put("1.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        put("2.png", b"no picture")
        put("3.png", b"")
        put("4.jpg", png(4))
        put("4.cls", b"\xff\xfe")
        put("4.png", png(5))
        put("5.pyd", pickle.dumps(1))
    data = open_dataset(path)
    assert [data.key(i).partition("#item=")[2] for i in range(len(data))] == [
        "0.png",
        "2.png",
        "4.jpg",
    ]
    told = {one.key.partition("#item=")[2]: one.reason for one in data.skipped}
    assert told["0.json"] == "not a JSON object"
    assert told["1.png"].startswith("a link")
    assert told["3.png"].startswith("0 bytes")
    assert told["4.cls"] == "it is not UTF-8"
    assert told["4.png"].endswith("a picture already: 4.jpg")
    with pytest.raises(DataError, match=r"a\.tar#item=2\.png: not a readable image"):
        data.read(1)
    with fr.Gallery.create(tmp_path / "g", encoder="pixels", image_size=8) as gallery:
        result = gallery.add(path, progress=False)
        assert result.added == 2
        assert sum("2.png" in one.key for one in result.unreadable) == 1


def test_a_tar_that_is_cut_off_keeps_what_is_whole(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {f"{i}.png": png(i) for i in range(3)})
    path.write_bytes(path.read_bytes()[: 2 * 1024 + 512 + 20])
    data = open_dataset(path)
    assert len(data) == 2
    np.testing.assert_array_equal(grey(data.read(1)), PICTURES[1])
    assert "ends before it does" in data.skipped[0].reason


def test_a_tar_that_changed_is_not_read_at_old_places(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {"1.png": png(0)})
    data = open_dataset(path)
    shard(path, {"0.txt": b"x", "1.png": png(1), "2.png": png(1)})
    with pytest.raises(DataError, match="has changed since it was opened"):
        data.read(0)


def test_a_packed_tar_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"")
    for source in (tmp_path / "a.tar.gz", tmp_path):
        with pytest.raises(DataError, match="unpack it first"):
            open_dataset(source)


def test_a_pattern_names_shards(tmp_path: Path) -> None:
    shards(tmp_path)
    assert len(open_dataset(tmp_path / "set-*.tar")) == 12
    with fr.Gallery.create(tmp_path / "g", encoder="pixels", image_size=8) as gallery:
        assert gallery.add(str(tmp_path / "set-t*.tar"), progress=False).added == 8


# --- Parquet --------------------------------------------------------------------------------------


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match="needs pyarrow, which is not installed; pip install"):
        open_dataset(tmp_path / "a.parquet")


def test_parquet_columns_and_rows_without_a_picture(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [{"bytes": png(0), "path": None}, {"bytes": None, "path": "/etc/passwd"}]
    pq.write_table(pa.table({"photo": rows, "text": ["a", "b"]}), tmp_path / "a.parquet")
    data = open_dataset(tmp_path / "a.parquet")
    assert data.columns["text"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(grey(data.read(0)), PICTURES[0])
    with pytest.raises(DataError, match="row 1 holds no picture"):
        data.read(1)


def test_parquet_that_is_damaged_or_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path) / "train-00000-of-00001.parquet"
    whole = path.read_bytes()
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    many = tmp_path / "many.parquet"
    pq.write_table(pa.table({"image": [png(0)] * 40_000, "n": [1] * 40_000}), many)
    monkeypatch.setattr(arrays, "FREE_BYTES", 1 << 10)
    with pytest.raises(DataError, match="once it is unpacked, at most"):
        open_dataset(many)
    path.write_bytes(whole[:-40])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        open_dataset(path)


# --- pairs ----------------------------------------------------------------------------------------


def two_folders(root: Path, n: int = 6) -> tuple[Path, Path]:
    for side, shade in (("ink", 0), ("wax", 40)):
        for i in range(n):
            path = root / side / "deep" / f"{i}.{'png' if shade else 'bmp'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(PICTURES[i] // 2 + shade).save(path)
    return root / "ink", root / "wax"


def test_two_folders_with_equal_names_are_pairs(tmp_path: Path) -> None:
    ink, wax = two_folders(tmp_path)
    Image.new("L", (4, 4)).save(ink / "alone.png")
    data = open_dataset((ink, wax), pairs=True)
    assert data.labels.tolist() == [i // 2 for i in range(12)]
    assert data.columns["side"].tolist() == ["ink", "wax"] * 6
    assert data.classes[1] == "deep/1"
    np.testing.assert_array_equal(grey(data.read(3)), PICTURES[1] // 2 + 40)
    assert [Path(one.key).name for one in data.skipped] == ["alone.png"]
    assert open_dataset(tmp_path, pairs=True).labels.tolist() == data.labels.tolist()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_table_of_two_paths_is_pairs(suffix: str, tmp_path: Path) -> None:
    two_folders(tmp_path)
    rows = [
        {"path_a": f"ink/deep/{i}.bmp", "path_b": f"wax/deep/{i}.png", "hand": "left"}
        for i in range(3)
    ]
    rows.append({"path_a": "", "path_b": "x.png", "hand": ""})
    path = tmp_path / f"pairs{suffix}"
    if suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        path.write_text("\n".join(lines))
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    data = open_dataset(path)
    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.columns["hand"].tolist() == ["left"] * 6
    assert "no paths" in data.skipped[0].reason
    named = tmp_path / f"named{suffix}"
    named.write_text(path.read_text().replace("path_a", "sketch").replace("path_b", "photo"))
    assert open_dataset(named, pairs=("sketch", "photo")).labels.tolist() == data.labels.tolist()
    with pytest.raises(DataError, match=r"pairs=\('a', 'b'\)"):
        open_dataset(named, pairs=True)


def test_pairs_that_share_an_item_are_one_class(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("anchor,positive\na.png,b.png\nc.png,d.png\nb.png,e.png\n")
    data = open_dataset(path)
    assert [Path(data.key(i)).stem for i in range(len(data))] == ["a", "b", "c", "d", "e"]
    assert data.labels.tolist() == [0, 0, 1, 1, 0]


def test_two_lists_are_pairs() -> None:
    data = open_dataset((PICTURES[:3], PICTURES[3:6]), pairs=True)
    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(data.read_many(np.arange(6)), PICTURES[[0, 3, 1, 4, 2, 5]])
    with pytest.raises(DataError, match="have one length, got 2 and 1"):
        open_dataset((PICTURES[:2], PICTURES[:1]), pairs=True)


def test_pairs_train_by_library_and_command(tmp_path: Path) -> None:
    ink, wax = two_folders(tmp_path)
    cnn = fr.create_encoder("cnn", dim=4, image_size=8, channels=1, width=2)
    fr.train(cnn, open_dataset((ink, wax), pairs=True), epochs=1, progress=False)
    assert len(cnn.classes) == 6
    options = ["--image-size", "8", "--dim", "4", "--epochs", "1", "--out", str(tmp_path / "e")]
    done = CliRunner().invoke(cli.app, ["train", str(ink), "--pairs", str(wax), *options])
    assert done.exit_code == 0, done.output
