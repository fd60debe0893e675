"""What is forgotten leaves no byte in the directory, also when the process is killed half way."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.store import forgetting
from gallery_helpers import new_gallery, picture, write_pictures

SECRET = "Ann-Example-4711"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Thirty pictures; number 7 and a kept one are Ann's, and so is an older state of number 7."""
    files = write_pictures(tmp_path / "many", 30)
    files[7].rename(tmp_path / "many" / f"{SECRET}.png")
    (tmp_path / "t.csv").write_text(
        f"path,label,caption,who\n{tmp_path}/many/{SECRET}.png,x,about {SECRET},{SECRET}\n"
        f"{tmp_path}/many/00001.png,y,about nobody,nobody\n"
    )
    with new_gallery(tmp_path / "g") as made:
        made.add(tmp_path / "t.csv")
        picture(777).save(tmp_path / "many" / f"{SECRET}.png")
        made.add(tmp_path / "many", commit_seconds=0, batch_size=5)
        made.add([picture(500), picture(501)], labels=[SECRET, "z"])
        made.label(2, "other")
    # What is overwritten stays in the free parts of pages, unless SQLite was built otherwise.
    with sqlite3.connect(tmp_path / "g" / "items.sqlite") as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        for label in (SECRET * 60, None):
            connection.execute("UPDATE item SET label = ? WHERE id BETWEEN 3 AND 25", (label,))
            connection.commit()
    connection.close()
    assert SECRET.encode() * 5 in (tmp_path / "g" / "items.sqlite").read_bytes()
    return tmp_path / "g"


def ids_of_ann(gallery: Gallery) -> list[int]:
    return [i.id for i in gallery.items() if SECRET in i.path or i.label == SECRET]


def traces(path: Path, needles: dict[str, bytes]) -> list[str]:
    """The files in which some byte of it is left."""
    found = []
    for file in sorted(path.rglob("*")):
        data = file.read_bytes() if file.is_file() else b""
        found += [f"{what} in {file.name}" for what, each in needles.items() if each in data]
        found += [
            f"the name {file.name}" for each in needles.values() if each in file.name.encode()
        ]
    return found


def needles_of(gallery: Gallery, ids: list[int]) -> dict[str, bytes]:
    """What would give them away: names, vectors of now and before, hashes, pictures."""
    needles = {"name": SECRET.encode()}
    for item_id in ids:
        item = gallery.item(item_id)
        vector = gallery.vectors([item_id])[0]
        needles[f"vector {item_id}"] = vector.tobytes()
        needles[f"a third of vector {item_id}"] = vector.tobytes()[256:512]
        needles[f"hash {item_id}"] = str(item.hash).encode()
        if not os.path.isabs(item.path):
            needles[f"picture {item_id}"] = gallery.file_of(item).read_bytes()[60:200]
            needles[f"file {item_id}"] = Path(item.path).name.encode()
    old = gallery._opened.queries.encode([picture(7)])[0]
    return needles | {"old vector": old.tobytes()[:256]}


def test_no_byte_is_left(path: Path, tmp_path: Path) -> None:
    with Gallery.open(path) as gallery, Gallery.open(path) as other:
        ids = ids_of_ann(gallery)
        assert len(ids) == 2
        needles = needles_of(gallery, ids)
        before = gallery.items()
        vectors = gallery.vectors()
        len(other)
        gallery.remove(ids[0])
        assert {t.split()[0] for t in traces(path, needles)} >= {
            "name",
            "vector",
            "hash",
            "picture",
        }
        done = gallery.forget(ids)
        assert (done.items, done.pictures, done.ids) == (2, 1, tuple(ids))
        assert done.index_files >= 1
        assert traces(path, needles) == []
        assert gallery.check() == []
        left = [i for i, item in enumerate(before) if item.id not in ids]
        assert gallery.items() == [before[i] for i in left] == other.items()
        np.testing.assert_array_equal(gallery.vectors(), vectors[left])
        np.testing.assert_array_equal(other.vectors(), vectors[left])
        with pytest.raises(GalleryError, match=f"no item {ids[0]}"):
            gallery.item(ids[0])
    assert traces(path, needles) == []
    assert (tmp_path / "many" / f"{SECRET}.png").exists()  # files elsewhere are not ours
    with Gallery.open(path) as gallery:
        assert gallery.add(tmp_path / "many" / f"{SECRET}.png").added == 1
        assert gallery.items()[-1].id > max(item.id for item in before)  # no id comes twice


def test_all_that_was_removed_is_forgotten(path: Path) -> None:
    with Gallery.open(path) as gallery:
        gallery.remove([3, 4, 5])
        wanted = gallery.items()
        assert gallery.forget(removed=True).ids == (3, 4, 5)
        assert gallery.forget(removed=True).items == 0
        assert gallery.items() == wanted
        assert gallery.forget(where="label = 'other'").ids == (2,)
        assert gallery.forget(path.parent / "many" / "00009.png").items == 1
        for wrong in ({}, {"what": 1, "removed": True}, {"what": 1, "where": "1"}):
            with pytest.raises(GalleryError, match="give one of them"):
                gallery.forget(**wrong)
        with pytest.raises(GalleryError, match="no item 3"):
            gallery.forget([3, 6])
        gallery.forget(where="1")
        assert len(gallery) == 0
        assert gallery.check() == []
        assert len(gallery.search(picture(1))) == 0
        assert list((path / "pictures").rglob("*.png")) == []


def test_a_picture_that_another_item_shares_stays(path: Path) -> None:
    with Gallery.open(path) as gallery:
        kept = [item for item in gallery.items() if not os.path.isabs(item.path)]
        with sqlite3.connect(path / "items.sqlite") as connection:
            connection.execute("UPDATE item SET path = ? WHERE id = 6", (kept[0].path,))
        connection.close()
        assert gallery.forget(kept[0]).pictures == 0
        assert gallery.file_of(gallery.item(6)).exists()
        assert gallery.forget(6).pictures == 1


@pytest.fixture(params=range(1, 8))
def stopped(path: Path, request: pytest.FixtureRequest) -> tuple[Path, dict[str, bytes]]:
    """A gallery whose forgetting process was killed at one of its steps."""
    with Gallery.open(path) as gallery:
        ids = ids_of_ann(gallery)
        needles = needles_of(gallery, ids)
    code = """
        import os, sys
        from fastretrieve.gallery import Gallery
        from fastretrieve.gallery.store import forgetting, parts, writing
        left = int(sys.argv[2])
        def die_before(owner, name):
            call = getattr(owner, name)
            def wrapped(*arguments, **options):
                global left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), 9)
                return call(*arguments, **options)
            setattr(owner, name, wrapped)
        die_before(forgetting, "_empty")
        die_before(forgetting, "_remove_pictures")
        die_before(forgetting.connections, "cut_log")
        die_before(writing.Writer, "_insert")
        die_before(writing.Writer, "rewrite")
        die_before(forgetting, "_flush")
        Gallery.open(sys.argv[1]).forget([int(i) for i in sys.argv[3:]])
        os.kill(os.getpid(), 9)
    """
    arguments = [str(path), str(request.param), *map(str, ids)]
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), *arguments], check=False)
    assert done.returncode == -signal.SIGKILL
    return path, needles


def test_killed_it_is_finished_by_the_next_writer(stopped: tuple[Path, dict[str, bytes]]) -> None:
    path, needles = stopped
    with Gallery.open(path) as gallery:
        assert gallery.check() == []
        others = [item for item in gallery.items() if not item.path.endswith(f"{SECRET}.png")]
        others = [item for item in others if item.label != SECRET]
        assert len(others) == 30
        has_begun = len(gallery) == 30
        gallery.label(9, "changed")  # any change
        if not has_begun:
            gallery.forget(ids_of_ann(gallery))
        assert traces(path, needles) == []
        assert not (path / "forgetting").exists()
        assert len(gallery.items()) == 30
        assert gallery.check() == []


def test_a_reader_of_the_log_is_waited_for_and_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "PATIENCE", 0.2)
    with Gallery.open(path) as gallery, Gallery.open(path) as reader:
        needles = needles_of(gallery, ids_of_ann(gallery))
        with reader._storage.database.snapshot() as connection:
            connection.execute("SELECT count(*) FROM item").fetchone()
            with pytest.raises(GalleryError, match="erased but for its log, which a reader still"):
                gallery.forget(ids_of_ann(gallery))
            gallery.label(9, "changed")  # others are not kept from their work
        gallery.label(9, "changed again")
        assert traces(path, needles) == []
        assert not (path / "forgetting").exists()


def test_from_the_command_line(path: Path) -> None:
    command = [sys.executable, "-m", "fastretrieve", "forget", str(path), "--where"]
    done = subprocess.run([*command, "label = 'z'"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("erased 1 item and 1 kept picture, wrote 1 index file anew; not")
    done = subprocess.run(
        [*command, "id = 1", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["stay"] == 29 + 1
