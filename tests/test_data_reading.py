"""Folders, tables, arrays and sequences become data sets; what is bad is skipped and listed."""

import json

import numpy as np
import pytest
from PIL import Image

from fastretrieve.data import DataError, Loader, open_dataset, read_image, read_item
from fastretrieve.data.frames import frame_numbers

rng = np.random.default_rng(7)


def picture(path, value=100, size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """Two class folders, one nested deeper, beside files that are no images."""
    for i, name in enumerate(["boot/1.png", "boot/old/2.jpg", "bag/3.bmp", "bag/4.PNG"]):
        picture(tmp_path / name, 40 * i)
    (tmp_path / "bag" / "notes.txt").write_text("not an image")
    picture(tmp_path / "bag" / ".hidden.png")
    picture(tmp_path / ".cache" / "thumb.png")
    return tmp_path


def test_class_folders_name_the_labels(photos):
    data = open_dataset(photos)
    names = [data.key(i)[len(str(photos)) + 1 :] for i in range(len(data))]
    assert names == ["bag/3.bmp", "bag/4.PNG", "boot/1.png", "boot/old/2.jpg"]
    assert [data.label_name(i) for i in range(4)] == ["bag", "bag", "boot", "boot"]
    assert data.column("label").tolist() == ["bag", "bag", "boot", "boot"]
    assert np.asarray(data[2]).tolist() == np.zeros((10, 12)).tolist()


def test_a_flat_folder_has_no_labels(photos):
    data = open_dataset(photos / "bag")
    assert len(data) == 2
    assert not data.is_labelled
    with pytest.raises(DataError, match="recursive=False"):
        open_dataset(photos, recursive=False)


def test_labels_replace_those_of_the_folders(photos):
    data = open_dataset(photos, labels=["x", "y", "x", None])
    assert data.classes == ("x", "y")
    assert data.labels.tolist() == [0, 1, 0, -1]


def test_lists_of_paths_and_single_files(photos):
    data = open_dataset([photos / "boot/1.png", str(photos / "bag/3.bmp")], labels=[5, 3])
    assert data.classes == ("3", "5")
    assert data.labels.tolist() == [1, 0]
    assert len(open_dataset(photos / "boot/1.png")) == 1


def test_arrays_tensors_and_pairs():
    torch = pytest.importorskip("torch")
    images = rng.integers(0, 255, (5, 8, 9, 3)).astype(np.uint8)
    for source in (images, list(images), torch.from_numpy(images).permute(0, 3, 1, 2)):
        data = open_dataset((source, [2, 10, 2, -1, None]))
        assert data.classes == ("2", "10")  # by value, not by spelling
        assert data.labels.tolist() == [0, 1, 0, -1, -1]
        batch = next(iter(Loader(data, list, batch_size=2, workers=0))).batch
        assert np.shape(batch[1]) in ((8, 9, 3), (3, 8, 9))


def test_npz_and_npy_files(tmp_path):
    images = rng.integers(0, 255, (4, 6, 6)).astype(np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=[0, 1, 1, 0], classes=["cat", "dog"])
    data = open_dataset(tmp_path / "set.npz")
    assert data.column("label").tolist() == ["cat", "dog", "dog", "cat"]
    np.save(tmp_path / "set.npy", images)
    assert (open_dataset(tmp_path / "set.npy")[3] == images[3]).all()
    np.savez(tmp_path / "other.npz", pictures=images)
    with pytest.raises(DataError, match="name the items 'images'"):
        open_dataset(tmp_path / "other.npz")
    np.savez(tmp_path / "pickled.npz", images=np.array([{}, {}], object))
    with pytest.raises(DataError, match="not a readable"):
        open_dataset(tmp_path / "pickled.npz")


def test_csv_with_labels_boxes_and_columns(photos):
    table = photos / "items.csv"
    table.write_text(
        "path,label,left,top,right,bottom,camera,width,film\n"
        "boot/1.png,boot,,,,,A,12,007\n"
        "boot/1.png,heel,2,3,6,8,B,4,10\n"
        ",boot,,,,,A,,\n"
        "bag/3.bmp,bag,5,5,5,9,A,1,1\n"
        "bag/3.bmp,bag,a,1,2,3,A,1,1\n"
        "bag/4.PNG,,,,,,,2.5,1\n"
    )
    data = open_dataset(table)
    assert data.labels.tolist() == [0, 1, -1]
    assert data[1].size == (4, 5)
    assert data.key(1).endswith("boot/1.png#box=2,3,6,8")
    assert set(data.columns) == {"camera", "width", "film"}
    assert data.column("film").tolist() == ["007", "10", "1"]  # a name, not a number
    assert data.column("width").tolist() == [12.0, 4.0, 2.5]
    reasons = [(skipped.key.rsplit(":")[-1], skipped.reason) for skipped in data.skipped]
    assert [line for line, _ in reasons] == ["4", "5", "6"]
    for (_, reason), part in zip(reasons, ["no path", "is empty", "not made of"], strict=True):
        assert part in reason
    with pytest.raises(DataError, match=r"no column 'size'.*camera"):
        data.column("size")


def test_jsonl_with_a_box_and_a_bad_line(photos):
    rows = [
        {"file": "boot/1.png", "class": "boot", "box": [0, 0, 5, 5], "stars": 3.5},
        {"file": str(photos / "bag/3.bmp"), "x": 1, "y": 2, "w": 3, "h": 4},
    ]
    text = "\n".join([json.dumps(rows[0]), "{not json", "[1]", "", json.dumps(rows[1])])
    (photos / "items.jsonl").write_text(text)
    data = open_dataset(photos / "items.jsonl")
    assert [data[i].size for i in range(2)] == [(5, 5), (3, 4)]
    assert data.column("stars").tolist() == [3.5, None]
    assert [skipped.key.rsplit(":")[-1] for skipped in data.skipped] == ["2", "3"]


@pytest.mark.parametrize(("name", "text"), [("a.csv", ""), ("a.csv", "name\nx\n"), ("a.jsonl", "")])
def test_a_table_without_paths_says_what_it_needs(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="needs a column 'path'"):
        open_dataset(tmp_path / name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such/folder", "does not exist"),
        (3, "cannot read a data set from int"),
        (np.zeros(3), r"\[n, ...\]"),
        (["a.png", np.zeros((2, 2))], "not both"),
    ],
)
def test_sources_that_are_none_say_what_is(source, message):
    with pytest.raises(DataError, match=message):
        open_dataset(source)


@pytest.mark.parametrize(
    "labels", [[10, 2, -1], [np.int64(10), np.int64(2), np.int64(-1)], ["10", "2", ""]]
)
def test_whole_numbers_are_ordered_by_value(labels):
    data = open_dataset(np.zeros((3, 4, 4), np.uint8), labels=labels)
    assert data.classes == ("2", "10")
    assert data.labels.tolist() == [1, 0, -1]


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no image files"):
        open_dataset(tmp_path)


def test_wrong_labels_are_refused():
    images = np.zeros((3, 4, 4), np.uint8)
    with pytest.raises(DataError, match="2 labels for 3 items"):
        open_dataset(images, labels=[0, 1])
    with pytest.raises(DataError, match=r"\['c'\] are not among the classes"):
        open_dataset(images, labels=["a", "b", "c"], classes=["a", "b"])
    with pytest.raises(DataError, match="label 2 has no name"):
        open_dataset(images, labels=[0, 1, 2], classes=["a", "b"])
    with pytest.raises(DataError, match="column 'x' has 1 values for 3 items"):
        open_dataset(images, columns={"x": [1]})


def test_subset_split_and_relabel():
    data = open_dataset(
        np.arange(40, dtype=np.uint8).reshape(10, 2, 2),
        labels=list("aaaaaabbbc"),
        columns={"n": np.arange(10)},
    )
    part = data.subset(np.arange(10) % 2 == 1).subset([2, 0])
    assert part.column("n").tolist() == [5, 1]
    assert part[0].tolist() == [[20, 21], [22, 23]]
    rest, held = data.split(1 / 3, seed=4)
    assert sorted([*rest.column("n"), *held.column("n")]) == list(range(10))
    assert np.bincount(held.labels, minlength=3).tolist() == [2, 1, 0]
    assert data.split(1 / 3, seed=4)[1].column("n").tolist() == held.column("n").tolist()
    assert data.relabel(["c", "a"]).labels.tolist() == [1] * 6 + [-1] * 3 + [0]
    with pytest.raises(DataError, match="asks for items 0 to 10 of 10"):
        data.subset([0, 10])
    with pytest.raises(ValueError, match="between 0 and 1"):
        data.split(1.5)


def test_pairs_are_held_out_whole():
    labels = np.r_[np.repeat(np.arange(100), 2), np.full(30, 100), 101, -1, -1]
    data = open_dataset(np.zeros((len(labels), 2, 2), np.uint8), labels=labels)
    rest, held = data.split(0.1, seed=3)
    counts = np.bincount(held.labels[held.labels >= 0], minlength=102)
    assert sorted(counts[:100].tolist()) == [0] * 90 + [2] * 10
    assert counts[100:].tolist() == [3, 0]
    assert (held.labels == -1).sum() == 1
    assert len(rest) + len(held) == len(labels)


# --- reading one file -----------------------------------------------------------------------------


def test_draft_decodes_a_jpeg_smaller_but_never_below_twice_the_size(tmp_path):
    pixels = np.kron(rng.integers(0, 255, (6, 8)), np.ones((80, 80))).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "big.jpg", quality=95)
    full, small = read_image(tmp_path / "big.jpg"), read_image(tmp_path / "big.jpg", size=32)
    assert full.size == (640, 480)
    assert small.size == (160, 120)
    a, b = (np.asarray(image.resize((32, 32)), float) for image in (full, small))
    assert np.abs(a - b).mean() < 2
    assert read_image(tmp_path / "big.jpg", size=400).size == (640, 480)


def test_a_box_is_in_pixels_of_the_whole_image(tmp_path):
    pixels = np.zeros((200, 300), np.uint8)
    pixels[50:100, 100:200] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    crop = read_image(tmp_path / "a.png", box=(100, 50, 200, 100), size=8)
    assert crop.size == (100, 50)
    assert np.asarray(crop).min() == 255
    assert read_image(tmp_path / "a.png", box=(250, 150, 900, 900)).size == (50, 50)
    with pytest.raises(DataError, match="holds no pixel of an image of 300 x 200"):
        read_image(tmp_path / "a.png", box=(400, 0, 500, 10))


BAD = {
    "empty": b"",
    "text": b"hello, I am not an image",
    "cut": None,
    "header only": b"\x89PNG\r\n\x1a\n" + b"\0" * 20,
    "gif without frames": b"GIF89a" + b"\0" * 7,
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("modality", ["image", "sequence"])
def test_a_bad_file_is_a_data_error_with_its_path(tmp_path, case, modality):
    path = tmp_path / "bad.png"
    if BAD[case] is None:
        Image.fromarray(rng.integers(0, 255, (64, 64)).astype(np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:900])
    else:
        path.write_bytes(BAD[case])
    with pytest.raises(DataError, match=r"bad\.png"):
        read_item(path, modality=modality)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    picture(tmp_path / "bomb.png", size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="decompression bomb"):
        read_image(tmp_path / "bomb.png")


# --- sequences ------------------------------------------------------------------------------------


def frames(n, start=0):
    return [Image.new("L", (8, 6), start + 10 * i) for i in range(n)]


@pytest.fixture
def clips(tmp_path):
    for name, start in (("walk", 0), ("run", 100)):
        folder = tmp_path / name
        for i, frame in enumerate(frames(4, start)):
            (folder / "clip").mkdir(parents=True, exist_ok=True)
            frame.save(folder / "clip" / f"{i:02}.png")
        first, *others = frames(3, start)
        first.save(folder / "moving.gif", save_all=True, append_images=others)
        first.save(folder / "moving.webp", save_all=True, append_images=others, lossless=True)
        np.save(folder / "signal.npy", rng.random((7, 5)).astype(np.float32))
    return tmp_path


def test_animations_frame_folders_and_arrays_are_sequences(clips):
    data = open_dataset(clips, modality="sequence")
    names = [data.key(i)[len(str(clips)) + 1 :] for i in range(len(data))]
    assert names[:4] == ["run/moving.gif", "run/moving.webp", "run/signal.npy", "run/clip"]
    assert data.column("label").tolist() == ["run"] * 4 + ["walk"] * 4
    assert [len(data[i]) for i in range(4)] == [3, 3, 7, 4]
    greys = [np.asarray(frame.convert("L")).mean() for frame in data[3]]
    assert greys == [100, 110, 120, 130]
    assert data[2].shape == (7, 5)


def test_long_sequences_are_thinned_evenly(tmp_path):
    for i in range(100):
        picture(tmp_path / "clip" / f"{i:03}.png", value=i)
    found = [np.asarray(frame)[0, 0] for frame in read_item(tmp_path / "clip", modality="sequence")]
    assert len(found) == 64
    assert (found[0], found[-1]) == (0, 99)
    assert np.diff(found).max() <= 2
    assert frame_numbers(3) == [0, 1, 2]


def test_sequences_in_memory():
    items = [rng.random((t, 3)).astype(np.float32) for t in (4, 9, 2)]
    data = open_dataset(items, labels=["a", "b", "a"], modality="sequence")
    assert [len(item) for item in data] == [4, 9, 2]


def test_a_folder_without_frames_says_so(tmp_path):
    with pytest.raises(DataError, match="no frames"):
        read_item(tmp_path, modality="sequence")


def test_video_files(tmp_path):
    av = pytest.importorskip("av", reason="the extra fastretrieve[video] is not installed")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for i in range(80):
            pixels = np.full((32, 32, 3), 3 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    found = [np.asarray(f).mean() for f in read_item(tmp_path / "a.mp4", modality="sequence")]
    assert len(found) == 64
    assert found == sorted(found)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="not a readable video"):
        read_item(tmp_path / "bad.mp4", modality="sequence")


def test_video_without_pyav_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"pip install av$"):
        read_item(tmp_path / "a.mp4", modality="sequence")


def test_a_url_in_a_table_is_an_item_that_only_a_gallery_reads(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("url,label\nhttps://example.org/1.jpg,boot\nno-url,bag\n,bag\n")
    data = open_dataset(table)
    assert (len(data), data.key(0), data.label_name(0)) == (1, "https://example.org/1.jpg", "boot")
    assert data.columns == {}
    assert [bad.reason for bad in data.skipped] == [
        "not a URL of http or https: no-url",
        "no path and no url",
    ]
    with pytest.raises(DataError, match=r"only a gallery fetches URLs.*download it"):
        data.read(0)
