"""Killed at any moment, a gallery holds what was committed; damaged, it says which file is.

The kills happen in a process of their own (``gallery_killed.py``), which forks a writer, kills it
with SIGKILL after a random time, and looks at what is there with a fresh reader.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastretrieve.encoders import EncoderError
from fastretrieve.gallery import Gallery, GalleryError
from gallery_helpers import new_gallery, picture, write_pictures

SCRIPT = Path(__file__).with_name("gallery_killed.py")


def kill(n_kills: int, seed: int) -> None:
    command = [sys.executable, str(SCRIPT), "--kills", str(n_kills), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["killed"] == n_kills
    assert told["commits"] > n_kills  # else it tests nothing
    assert told["items"] > 0


def test_killed_while_adding_and_removing() -> None:
    kill(20, seed=1)


@pytest.mark.slow
def test_killed_two_hundred_times() -> None:
    kill(200, seed=2)


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    made = new_gallery(tmp_path / "g")
    write_pictures(tmp_path / "many", 30)
    made.add(tmp_path / "many")
    made.close()
    return made


def index_file(gallery: Gallery) -> Path:
    (path,) = (gallery.path / "vectors").iterdir()
    return path


def test_a_cut_index_file_is_named(gallery: Gallery) -> None:
    path = index_file(gallery)
    os.truncate(path, path.stat().st_size - 7)
    with pytest.raises(GalleryError, match=f"{path.name} has .* bytes instead of"):
        Gallery.open(gallery.path).search(picture(1))
    assert any(path.name in fault for fault in Gallery.open(gallery.path).check())


def test_a_missing_index_file_is_named(gallery: Gallery) -> None:
    path = index_file(gallery)
    path.unlink()
    with pytest.raises(GalleryError, match=f"{path.name} is missing"):
        Gallery.open(gallery.path).search(picture(1))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_a_changed_byte_is_found_and_its_file_named(gallery: Gallery, share: float) -> None:
    path = index_file(gallery)
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 0x10
    path.write_bytes(data)
    faults = Gallery.open(gallery.path).check()
    assert any(path.name in fault for fault in faults)
    with pytest.raises(GalleryError, match=f"{path.name} is damaged"):
        Gallery.open(gallery.path).search(picture(1))


def test_a_damaged_manifest_is_named(gallery: Gallery) -> None:
    path = gallery.path / "gallery.json"
    text = path.read_text()
    path.write_text(text.replace('"cosine"', '"l2"'))
    with pytest.raises(GalleryError, match=r"gallery\.json is damaged: its checksum"):
        Gallery.open(gallery.path)
    path.write_text(text[:50])
    with pytest.raises(GalleryError, match=r"gallery\.json cannot be read"):
        Gallery.open(gallery.path)
    path.write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(GalleryError, match=r"format version 9.*upgrade"):
        Gallery.open(gallery.path)


def test_a_damaged_database_is_named(gallery: Gallery) -> None:
    path = gallery.path / "items.sqlite"
    path.write_bytes(b"no database at all, but long enough to be one" * 100)
    with pytest.raises(GalleryError, match=r"items\.sqlite is damaged"):
        Gallery.open(gallery.path)
    path.unlink()
    with pytest.raises(GalleryError, match=r"items\.sqlite is missing"):
        Gallery.open(gallery.path)


def test_another_encoder_in_the_gallery_is_refused(gallery: Gallery, tmp_path: Path) -> None:
    other = new_gallery(tmp_path / "other")
    (other.path / "encoder" / "config.json").rename(gallery.path / "encoder" / "config.json")
    assert Gallery.open(gallery.path).check() == []  # equal weights: pixels have none
    weights = gallery.path / "encoder" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(EncoderError, match="does not belong to its"):
        Gallery.open(gallery.path).search(picture(1))
    assert Gallery.open(gallery.path).check() != []


def test_debris_of_killed_writers_is_swept(gallery: Gallery, tmp_path: Path) -> None:
    debris = gallery.path / "vectors" / "0000000099.index"
    debris.write_bytes(b"half a file")
    part = gallery.path / "pictures" / "ab" / ".abc.png.1234"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half a picture")
    opened = Gallery.open(gallery.path)
    assert len(opened) == 30
    write_pictures(tmp_path / "many", 1, first=500)
    opened.add(tmp_path / "many")
    assert not debris.exists()
    assert not part.exists()
    assert len(opened) == 31


def test_a_creation_that_was_cut_off_can_be_done_again(tmp_path: Path) -> None:
    made = new_gallery(tmp_path / "g")
    made.close()
    (made.path / "gallery.json").unlink()  # it is written last
    with pytest.raises(GalleryError, match="is not a gallery"):
        Gallery.open(made.path)
    again = new_gallery(tmp_path / "g")
    assert again.add(picture(1)).added == 1


def test_a_failed_commit_changes_nothing(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Gallery.open(gallery.path)
    before = opened.info()
    write_pictures(tmp_path / "many", 2, first=600)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(opened._storage.vectors, "write", full)
        with pytest.raises(OSError, match="No space left"):
            opened.add(tmp_path / "many")
    assert opened.info() == before
    assert opened.add(tmp_path / "many").added == 2
    assert opened.check() == []


def test_an_index_file_of_another_kind_is_named(gallery: Gallery) -> None:
    import fastretrieve as fr

    path = index_file(gallery)
    stranger = fr.Index(192, metric="ip")
    stranger.add(np.zeros((30, 192), np.float32))
    stranger.save(path)
    with sqlite3.connect(gallery.path / "items.sqlite") as connection:
        connection.execute("UPDATE segment SET n_bytes = ?", (path.stat().st_size,))
    connection.close()
    with pytest.raises(GalleryError, match=rf"{path.name} holds Index.*'ip'.*wants.*'cosine'"):
        Gallery.open(gallery.path).search(picture(1))


MERGE = """
import resource, sys
import numpy as np
from fastretrieve.gallery import Gallery
from fastretrieve.gallery.store.writing import NewVectors

gallery = Gallery.open(sys.argv[1])
with gallery._storage.writing() as writer:
    listed = [(2000 * i, 2000) for i in range(6)] + [(1000, 1500)]  # the last ones are updates
    for number, (first, n) in enumerate(listed):
        rows = np.full((n, 4096), number + 1, np.float32)
        rows[:, 0] = np.arange(first, first + n)
        def fill(connection, generation, first=first, n=n, rows=rows):
            connection.executemany(
                "INSERT OR IGNORE INTO item (id, key, path) VALUES (?, ?, ?)",
                ((i, str(i), f'/{i}') for i in range(first + 1, first + n + 1)),
            )
            return NewVectors(np.arange(first + 1, first + n + 1), rows)
        # Its own transaction, without the merging that a commit does.
        with writer.transaction() as generation:
            change = fill(writer.connection, generation)
            writer._insert(writer._vectors.write(change.ids, change.vectors, generation))
    del rows, change, fill
    gone = list(range(3000, 3100))
    writer.connection.executemany("UPDATE item SET deleted = 99 WHERE id = ?", [(i,) for i in gone])
    used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
    limit = used + 100_000_000  # the vectors are 200 MB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    writer.merge(ended=True)
assert gallery.info()["index_files"] == 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="bounds memory by RLIMIT_DATA")
def test_merging_holds_a_part_of_the_vectors_at_a_time(tmp_path: Path) -> None:
    Gallery.create(tmp_path / "g", encoder="pixels", image_size=64, channels=1).close()
    command = [sys.executable, "-c", MERGE, str(tmp_path / "g")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Gallery.open(tmp_path / "g") as merged:
        assert merged.check() == []
        assert len(merged) == 12_000 - 100
        ids = np.array([1, 1000, 1001, 2500, 2501, 2999, 3100, 12_000])
        wanted = np.stack([ids - 1, np.array([1, 1, 7, 7, 2, 2, 2, 6])], axis=1)
        np.testing.assert_array_equal(merged.vectors(ids.tolist())[:, :2], wanted)
