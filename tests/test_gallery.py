"""A gallery from the first picture to the last: add, search, remove, change, take out."""

from __future__ import annotations

import csv
import json
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastretrieve as fr
from fastretrieve.data import DataError
from fastretrieve.encoders import EncoderError, create_encoder
from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.lookup import recommending
from fastretrieve.gallery.store import database
from gallery_helpers import class_folders, new_gallery, picture, write_pictures


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos")


@pytest.fixture
def gallery(tmp_path: Path, photos: Path) -> Gallery:
    made = new_gallery(tmp_path / "photos.gallery")
    assert made.add(photos).added == 12
    return made


def test_the_nearest_are_those_of_a_brute_force(gallery: Gallery, photos: Path) -> None:
    query = picture(77)
    vector = gallery._opened.queries.encode([query])[0]
    vectors = gallery.vectors()
    hits = fr.topk(vector, vectors, k=5, metric="cosine")
    ids = [item.id for item in gallery.items()]
    matches = gallery.search(query, k=5)
    assert [item.id for item in matches.items] == [ids[row] for row in hits.ids]
    assert matches.scores == hits.scores.tolist()


def test_a_path_a_picture_an_array_bytes_and_an_item_ask_the_same(
    gallery: Gallery, photos: Path
) -> None:
    path = photos / "boot" / "00003.png"
    item = gallery.search(path, k=1).items[0]
    assert Path(item.path) == path
    assert (item.label, item.width, item.height) == ("boot", 24, 20)
    wanted = gallery.search(path, k=4).scores
    for query in (str(path), Image.open(path), np.asarray(Image.open(path)), path.read_bytes()):
        assert gallery.search(query, k=4).scores == wanted
    for query in (item, item.id):
        assert gallery.search(query, k=4, include_self=True).scores == wanted
        assert gallery.search(query, k=3).scores == wanted[1:]  # an item is not its own neighbour


def test_pages_follow_each_other(gallery: Gallery) -> None:
    whole = gallery.search(picture(5), k=12).scores
    parts = [gallery.search(picture(5), k=5, offset=offset).scores for offset in (0, 5, 10)]
    assert [score for part in parts for score in part] == whole
    with pytest.raises(GalleryError, match="offset is at least 0"):
        gallery.search(picture(5), offset=-1)


def test_k_beyond_the_gallery_returns_all_and_an_empty_gallery_nothing(
    gallery: Gallery, tmp_path: Path
) -> None:
    assert len(gallery.search(picture(1), k=500)) == 12
    assert len(new_gallery(tmp_path / "empty").search(picture(1))) == 0


def test_only_new_and_changed_files_are_encoded(gallery: Gallery, photos: Path) -> None:
    again = gallery.add(photos)
    assert (again.added, again.updated, again.unchanged) == (0, 0, 12)
    write_pictures(photos / "boot", 1, first=50)
    picture(999).save(photos / "bag" / "01000.png")
    os.utime(photos / "bag" / "01001.png")  # touched, but its content is the same
    third = gallery.add(photos)
    assert (third.added, third.updated, third.unchanged) == (1, 1, 11)
    nearest = gallery.search(picture(999), k=1)
    assert nearest.scores[0] == pytest.approx(1)
    assert nearest.paths == [photos / "bag" / "01000.png"]
    assert gallery.add(photos).unchanged == 13


def test_an_added_gallery_is_found_when_it_is_opened_again(gallery: Gallery) -> None:
    wanted = gallery.search(picture(5), k=12)
    with Gallery.open(gallery.path) as opened:
        found = opened.search(picture(5), k=12)
        assert (found.paths, found.scores) == (wanted.paths, wanted.scores)
        assert opened.check() == []


def test_another_reader_sees_every_commit(gallery: Gallery, photos: Path) -> None:
    reader = Gallery.open(gallery.path)
    assert len(reader) == 12
    write_pictures(photos / "boot", 3, first=60)
    gallery.add(photos)
    assert len(reader) == 15
    gallery.remove(where="label = 'bag'")
    assert len(reader) == 9
    assert {item.label for item in reader.search(picture(1), k=20).items} == {"boot"}


def test_removed_items_stay_out_until_they_are_named(gallery: Gallery, photos: Path) -> None:
    path = photos / "boot" / "00002.png"
    assert gallery.remove(path) == 1
    assert path not in gallery.search(path, k=12).paths
    assert path.exists()
    assert gallery.add(photos).left_out == 1
    assert gallery.add(path).updated == 1
    assert gallery.search(path, k=1).paths == [path]
    gallery.remove(gallery.search(path, k=1).items)
    assert gallery.add(photos, restore=True).updated == 1


def test_removing_what_is_not_there_names_it_and_changes_nothing(gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="no item 4711"):
        gallery.remove([1, 4711])
    with pytest.raises(GalleryError, match=r"has no item .*nosuch\.png"):
        gallery.remove("nosuch.png")
    with pytest.raises(GalleryError, match="give one of them"):
        gallery.remove()
    assert len(gallery) == 12


def test_unreadable_images_are_skipped_listed_and_tried_again_when_they_change(
    gallery: Gallery, photos: Path
) -> None:
    bad = photos / "boot" / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff not a picture")
    result = gallery.add(photos)
    assert [item.key for item in result.unreadable] == [str(bad)]
    assert "not a readable image" in result.unreadable[0].reason
    assert [(i.path, bool(i.error)) for i in gallery.unreadable()] == [(str(bad), True)]
    assert len(gallery.add(photos).unreadable) == 1  # known, and not read again
    assert len(gallery) == 12
    picture(4).save(bad)
    assert gallery.add(photos).updated == 1
    assert gallery.unreadable() == []
    bad.write_bytes(b"damaged later")
    assert len(gallery.add(photos).unreadable) == 1
    assert len(gallery) == 12
    assert gallery.check() == []


def test_update_follows_the_files(gallery: Gallery, photos: Path) -> None:
    (photos / "boot" / "00000.png").unlink()
    picture(123).save(photos / "boot" / "00001.png")
    result = gallery.update()
    assert (result.updated, result.unchanged, result.removed, len(gallery)) == (1, 10, 1, 11)
    assert str(result).startswith("1 updated, 10 unchanged, 1 removed because their files are gone")
    assert gallery.search(picture(123), k=1).scores[0] == pytest.approx(1)
    assert gallery.check() == []


def test_pictures_in_memory_are_kept_in_the_gallery(tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "g")
    images = np.random.default_rng(0).integers(0, 255, (9, 12, 12), np.uint8)
    assert gallery.add(images, labels=list("abcabcabc")).added == 9
    assert gallery.add(images).unchanged == 9
    assert gallery.add(picture(3)).added == 1
    found = gallery.search(images[4], k=1)
    assert found.items[0].label == "b"
    np.testing.assert_array_equal(np.asarray(Image.open(found.paths[0])), images[4])
    assert (found.items[0].origin, found.items[0].name) == ("item 5", "item 5")
    assert repr(found).endswith("b                 item 5")
    found.to_html(tmp_path / "r.html")
    assert found.paths[0].stem not in (tmp_path / "r.html").read_text()  # its hash
    assert gallery.search(5, k=1).title == "item 5"
    assert gallery.update().unchanged == 10
    assert Gallery.open(gallery.path).check() == []


def test_a_search_says_where_its_time_went(gallery: Gallery, photos: Path) -> None:
    opened = Gallery.open(gallery.path)
    assert opened.search(1).seconds.load == 0  # its vector is there
    first, second = (opened.search(photos / "boot" / "00001.png").seconds for _ in range(2))
    assert first.load > 0
    assert second.load == 0
    assert min(first.encode, first.search, second.encode) > 0


def test_duplicates_are_groups(gallery: Gallery, photos: Path) -> None:
    for name in ("copy1.png", "copy2.png"):
        picture(3).save(photos / "bag" / name)
    picture(1002).save(photos / "boot" / "copy.png")
    gallery.add(photos)
    groups = [sorted(Path(i.path).name for i in group) for group in gallery.duplicates(0.99999)]
    assert groups == [["00003.png", "copy1.png", "copy2.png"], ["01002.png", "copy.png"]]


def test_several_liked_items_do_not_draw_towards_what_resembles_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = Gallery.create(tmp_path / "g", encoder="pixels", image_size=4, channels=1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 4, 4))
    images[:100] = images[:100] // 8 + 128  # grey, and so near to every mean
    images[100:150, :, 2:] //= 2  # darker on the right
    images[150:, :, :2] //= 2  # darker on the left
    gallery.add(images.astype(np.uint8))
    ids = [item.id for item in gallery.items()]

    def n_alike() -> int:
        found = gallery.recommend(like=ids[100:106], k=30).items
        return len({item.id for item in found} & set(ids[100:150]))

    assert n_alike() >= 25
    monkeypatch.setattr(recommending, "MIDDLE", 0.0)
    assert n_alike() < 15


def test_recommendations_leave_out_what_was_named_and_keep_away_from_the_disliked(
    tmp_path: Path,
) -> None:
    gallery = Gallery.create(tmp_path / "g", encoder="pixels", image_size=2, channels=1)
    angles = np.linspace(0.1, 1.4, 40)
    bright = np.stack([np.cos(angles), np.sin(angles)], 1) * 255
    images = np.repeat(bright.round().astype(np.uint8)[:, None, :], 2, axis=1)
    gallery.add(images)
    ids = [item.id for item in gallery.items()]
    near = gallery.recommend(like=ids[20], k=4)
    assert ids[20] not in [item.id for item in near.items]
    assert {item.id for item in near.items} <= set(ids[17:24])
    pushed = gallery.recommend(like=ids[20], unlike=ids[25], k=4)
    assert max(item.id for item in pushed.items) < ids[20]
    varied = gallery.recommend(like=ids[20], k=4, diversity=0.9)
    assert np.ptp([item.id for item in varied.items]) > np.ptp([item.id for item in near.items])
    assert ids[5] in [i.id for i in gallery.recommend(like=images[5], k=1).items]
    with pytest.raises(GalleryError, match="diversity is between 0"):
        gallery.recommend(like=1, diversity=2)
    with pytest.raises(GalleryError, match="at least one"):
        gallery.recommend(like=[])


def test_classify_votes_with_labelled_neighbours(gallery: Gallery, photos: Path) -> None:
    gallery.label(photos / "boot" / "00003.png", None)
    label = gallery.classify(photos / "boot" / "00003.png", k=3)
    assert label.label in ("boot", "bag")
    assert sum(label.shares.values()) == pytest.approx(1)
    assert photos / "boot" / "00003.png" not in label.matches.paths
    assert label.head is None
    gallery.label([item.id for item in gallery.items()], "all")
    assert gallery.classify(picture(5)).label == "all"


def test_a_balanced_vote_counts_the_items_that_may_vote(gallery: Gallery) -> None:
    ids = [item.id for item in gallery.items()]
    gallery.label(ids, "often")
    gallery.label(ids[:2], "rare")
    gallery.label(ids[0], None)
    for where, n_often in ((None, len(ids) - 2), (f"id <= {ids[4]}", 3)):  # one is rare
        plain, balanced = (
            gallery.classify(ids[0], k=len(ids), where=where, balanced=b).shares
            for b in (False, True)
        )
        ratio = {name: balanced[name] / plain[name] for name in plain}
        assert ratio["rare"] / ratio["often"] == pytest.approx(n_often)


def test_a_pipe_is_never_waited_for(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for ask in (gallery.search, gallery.classify, lambda query: gallery.recommend(like=query)):
        with pytest.raises(DataError, match="a pipe, not a file"):
            ask(pipe)
    path = photos / "boot" / "00003.png"
    matches = gallery.search(path, k=12)
    path.unlink()
    os.mkfifo(path)
    (number,) = [i for i, found in enumerate(matches.paths) if found == path]
    assert matches.image()  # a cross in its place
    assert gallery.search(matches.ids[number], k=1).query is not None


def test_export_is_in_one_order(gallery: Gallery, tmp_path: Path) -> None:
    assert gallery.export(tmp_path / "v.npy", tmp_path / "items.csv") == 12
    vectors = np.load(tmp_path / "v.npy")
    np.testing.assert_array_equal(vectors, gallery.vectors())
    with (tmp_path / "items.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [item.path for item in gallery.items()]
    for row, vector in zip(rows, vectors, strict=True):
        np.testing.assert_array_equal(gallery.vectors([int(row["id"])])[0], vector)
    gallery.export(items=tmp_path / "items.jsonl")
    lines = (tmp_path / "items.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["label"] in ("boot", "bag")
    with pytest.raises(GalleryError, match=r"as \.npy"):
        gallery.export(tmp_path / "v.txt")


def test_matches_can_be_looked_at(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    matches = gallery.search(photos / "boot" / "00001.png", k=8)
    (photos / "boot" / "00001.png").unlink()  # one file is gone: a cross stands for it
    matches.save(tmp_path / "out" / "result.png")
    sheet = Image.open(tmp_path / "out" / "result.png")
    assert sheet.width > 6 * 160
    assert len(np.unique(np.asarray(sheet.convert("RGB")).reshape(-1, 3), axis=0)) > 100
    matches.to_html(tmp_path / "result.html")
    page = (tmp_path / "result.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 9
    assert "00001.png" in page
    assert "boot" in repr(matches)
    assert matches.ids == [item.id for item in matches.items]
    again = pickle.loads(pickle.dumps(matches))
    assert (again.scores, again.query.size) == (matches.scores, matches.query.size)
    assert json.loads(json.dumps(matches.to_dict()))["matches"][0]["score"] == matches.scores[0]
    with pytest.raises(ValueError, match=r"saved as \.png"):
        matches.save(tmp_path / "result.gif")


def test_labels_in_a_page_are_escaped(gallery: Gallery, tmp_path: Path) -> None:
    gallery.label([1, 2], "<script>alert(1)</script>")
    gallery.search(1, k=12).to_html(tmp_path / "r.html")
    assert "<script>" not in (tmp_path / "r.html").read_text()


def test_an_untrained_encoder_is_refused_with_the_remedies(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"not trained.*train.*pixels.*pretrained"):
        Gallery.create(tmp_path / "g", encoder=create_encoder("pixels", dim=4, channels=1))
    assert not (tmp_path / "g").exists()


def test_create_refuses_what_is_there(gallery: Gallery, photos: Path) -> None:
    with pytest.raises(GalleryError, match="is a gallery already"):
        new_gallery(gallery.path)
    with pytest.raises(GalleryError, match="holds other files"):
        new_gallery(photos)
    with pytest.raises(ValueError, match="metric must be"):
        new_gallery(photos.parent / "g2", metric="manhattan")


def test_what_was_meant_is_said(gallery: Gallery) -> None:
    with pytest.raises(TypeError, match=r"Gallery.open\(path\) opens a gallery"):
        Gallery(gallery.path)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"an item's id is a whole number, got 'a\.jpg'"):
        gallery.item("a.jpg")  # type: ignore[arg-type]
    for where in ({"label": "boot"}, [1, 2], np.ones(12, bool), [("label", "boot")]):
        with pytest.raises(GalleryError, match=r"where is a condition in SQL, .*; got "):
            gallery.search(1, where=where)  # type: ignore[arg-type]


def test_open_says_what_is_missing(tmp_path: Path, gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="is not a gallery"):
        Gallery.open(tmp_path / "nowhere")
    with pytest.raises(GalleryError, match="does not exist"):
        gallery.add(tmp_path / "nowhere")
    with pytest.raises(GalleryError, match="does not exist; give an image"):
        gallery.search("nowhere.jpg")
    with pytest.raises(GalleryError, match="search with a path"):
        gallery.search(3.5)
    with pytest.raises(GalleryError, match="not a readable image"):
        gallery.search(b"no picture")


def test_a_second_writer_is_refused_or_waits(gallery: Gallery, photos: Path) -> None:
    write_pictures(photos / "boot", 2, first=70)
    other = Gallery.open(gallery.path)
    with gallery._storage.writing():
        with pytest.raises(GalleryError, match=f"changed by process {os.getpid()}"):
            other.add(photos)
        waiting = threading.Thread(target=lambda: other.add(photos, wait=30))
        waiting.start()
        assert len(gallery) == 12
    waiting.join()
    assert len(gallery) == 14


def test_an_interrupted_addition_keeps_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_pictures(tmp_path / "many", 40)
    gallery = new_gallery(tmp_path / "g")
    encoder = gallery.encoder
    calls = []

    def encode(batch: np.ndarray) -> np.ndarray:
        calls.append(len(batch))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return type(encoder).encode(encoder, batch)

    monkeypatch.setattr(encoder, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        gallery.add(tmp_path / "many", batch_size=5)
    assert len(gallery) == 15
    assert gallery.add(tmp_path / "many").added == len(paths) - 15
    assert gallery.check() == []


def test_a_vector_that_is_not_finite_is_an_unreadable_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "many", 4)
    gallery = new_gallery(tmp_path / "g")
    encoder = gallery.encoder

    def encode(batch: np.ndarray) -> np.ndarray:
        vectors = np.array(type(encoder).encode(encoder, batch))
        vectors[2] = np.nan
        return vectors

    monkeypatch.setattr(encoder, "encode", encode)
    result = gallery.add(tmp_path / "many")
    assert (result.added, len(result.unreadable)) == (3, 1)
    assert "not finite" in result.unreadable[0].reason


def test_files_stay_few_whatever_the_order_of_commits(tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "g")
    write_pictures(tmp_path / "many", 60)
    gallery.add(tmp_path / "many", batch_size=1, workers=0, commit_seconds=0)
    assert len(gallery) == 60
    assert gallery.info()["index_files"] <= 6
    with gallery._storage.database.reading() as connection:
        named = {file.name for file in database.index_files(connection)}
    assert {path.name for path in (gallery.path / "vectors").iterdir()} == named
    assert gallery.check() == []


def test_readers_search_while_others_add_and_remove(tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "g")
    write_pictures(tmp_path / "first", 30)
    write_pictures(tmp_path / "second", 60, first=100)
    gallery.add(tmp_path / "first")
    reader = Gallery.open(gallery.path)
    faults: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                scores = reader.search(picture(3), k=10, where="label IS NULL").scores
                assert scores == sorted(scores, reverse=True)
                assert len(scores) == 10
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    gallery.add(tmp_path / "second", batch_size=3, commit_seconds=0)
    for item in gallery.items(limit=20):
        gallery.remove(item)
    done.set()
    for thread in threads:
        thread.join()
    assert not faults, faults
    assert len(reader) == 70
    assert reader.search(picture(3), k=70).scores == gallery.search(picture(3), k=70).scores
