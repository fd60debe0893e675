"""A directory that somebody sent: links, pipes, names that lead out of it, false manifests."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gallery_fuzz
from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.store import manifest, parts
from gallery_helpers import new_gallery, picture, write_pictures


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A gallery with pictures of its own and with files."""
    write_pictures(tmp_path / "many", 3)
    with new_gallery(tmp_path / "g") as made:
        made.add(tmp_path / "many")
        made.add([picture(100), picture(101)])
    return tmp_path / "g"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What no gallery may touch, with names that a gallery would sweep away."""
    folder = tmp_path / "outside"
    (folder / "ab").mkdir(parents=True)
    for name in ("0000000099.index", ".half.tmp", "a.png", "ab/.hidden", "config.json"):
        (folder / name).write_text("precious")
    return folder


def tree(folder: Path) -> dict[str, bytes | None]:
    found = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in found}


def change(path: Path) -> None:
    """Everything that reads or changes a gallery."""
    with Gallery.open(path) as opened:
        opened.search(picture(1), k=3).image()
        opened.add(picture(200))
        opened.remove(1)
        opened.update()
        opened.forget(removed=True)


def test_the_directory_itself_may_be_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(path)
    change(tmp_path / "elsewhere")
    with Gallery.open(path) as opened:
        assert opened.check() == []
        assert len(opened) == 5


@pytest.mark.parametrize("name", sorted(parts.ALL - {"items.sqlite-journal", "forgetting"}))
@pytest.mark.parametrize("kind", ["link", "other kind", "pipe"])
def test_a_part_that_is_something_else_is_named(
    path: Path, outside: Path, tmp_path: Path, name: str, kind: str
) -> None:
    part, moved = path / name, tmp_path / "moved"
    if part.exists():
        part.rename(moved)
    if kind == "link":
        part.symlink_to(moved if name == "gallery.json" or not moved.exists() else outside)
    elif kind == "pipe":
        os.mkfifo(part)
    elif name in parts.FOLDERS:
        part.write_text("no folder")
    else:
        part.mkdir()
    before = tree(outside)
    with pytest.raises(GalleryError, match=rf"{name} is a (link|folder|file|pipe) instead of"):
        change(path)
    assert tree(outside) == before


@pytest.mark.parametrize("where", ["pictures/ab", "pictures/.x", "vectors/ab", "vectors/.a.tmp"])
def test_links_inside_are_not_followed(path: Path, outside: Path, where: str) -> None:
    (path / where).symlink_to(outside)
    before = tree(outside)
    faults = Gallery.open(path).check()
    assert len(faults) == 1
    assert f"{where} is a link" in faults[0]
    change(path)
    assert tree(outside) == before


def test_a_kept_picture_behind_a_link_is_neither_shown_nor_written(
    path: Path, outside: Path
) -> None:
    with Gallery.open(path) as opened:
        item = next(i for i in opened.items() if not os.path.isabs(i.path))
        picture(7).save(outside / Path(item.path).name)
        shutil.rmtree((path / item.path).parent)
        (path / item.path).parent.symlink_to(outside)
        before = tree(outside)
        assert any("is a link" in fault for fault in opened.check())
        with pytest.raises(GalleryError, match="is a link instead of a folder"):
            opened.file_of(item)
        found = opened.search(item, k=4, include_self=True)
        assert all(not match.path.exists() for match in found if match.item.id == item.id)
        found.image()  # a cross in its place; the others are there
        with pytest.raises(GalleryError, match="is a link instead of a folder"):
            opened.add([picture(100), picture(101)])  # the same picture again
        opened.update()
    assert tree(outside) == before


@pytest.mark.parametrize("kept", ["../outside/a.png", "pictures/../../outside/a.png", "a.png", ""])
def test_a_kept_picture_lies_below_the_gallery(path: Path, outside: Path, kept: str) -> None:
    picture(9).save(outside / "a.png")
    with sqlite3.connect(path / "items.sqlite") as connection:
        connection.execute(
            "UPDATE item SET path = ?, mtime_ns = 5, url = 'http://127.0.0.1:9/x' WHERE id = 4",
            (kept,),
        )
    connection.close()
    before = tree(outside)
    with Gallery.open(path) as opened:
        assert any("item 4" in fault for fault in opened.check())
        assert len(opened.search(picture(1), k=9)) == 5
        assert opened.search(4, k=1).image()
        with pytest.raises(GalleryError, match="names a kept picture"):
            opened.file_of(opened.item(4))
        assert [one.key for one in opened.update().unreadable] in ([], [opened.item(5).path])
        opened.forget(4)
        assert len(opened.items()) <= 4
    assert tree(outside) == before


@pytest.mark.parametrize("elsewhere", ["/dev/zero", "pipe"])
def test_a_device_or_a_pipe_is_never_read(path: Path, tmp_path: Path, elsewhere: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    where = str(tmp_path / elsewhere)  # an absolute path stays as it is
    with sqlite3.connect(path / "items.sqlite") as connection:
        connection.execute("UPDATE item SET path = ?, key = ? WHERE id = 2", (where, where))
    connection.close()
    with Gallery.open(path) as opened:
        assert any("not a file" in one.reason for one in opened.update().unreadable)


@pytest.mark.parametrize(
    "file", ["../outside/0000000099.index", "/etc/passwd", "a", "0000000001.index\n", "١.index", ""]
)
def test_an_index_file_has_a_name_of_ours(path: Path, outside: Path, file: str) -> None:
    with sqlite3.connect(path / "items.sqlite") as connection:
        connection.execute("UPDATE segment SET file = ?", (file,))
    connection.close()
    before = tree(outside)
    with pytest.raises(GalleryError, match="which is none that a gallery makes"):
        Gallery.open(path).search(picture(1))
    assert any("none that a gallery makes" in fault for fault in Gallery.open(path).check())
    with pytest.raises(GalleryError, match="which is none that a gallery makes"):
        Gallery.open(path).forget(1)
    assert tree(outside) == before


def test_a_lock_that_is_another_file_by_a_second_name_is_not_overwritten(
    path: Path, outside: Path
) -> None:
    precious = outside / "a.png"
    (path / "lock").unlink()
    os.link(precious, path / "lock")
    with pytest.raises(GalleryError, match="is not the lock of a gallery"):
        change(path)
    assert precious.read_text() == "precious"


def test_what_an_archive_left_out_is_made_again(tmp_path: Path) -> None:
    new_gallery(tmp_path / "g").close()
    for name in ("vectors", "pictures"):
        (tmp_path / "g" / name).rmdir()
    (tmp_path / "g" / "lock").unlink()
    with Gallery.open(tmp_path / "g") as opened:
        assert opened.add(picture(1)).added == 1


def test_debris_of_killed_writers_is_removed_by_the_next(path: Path) -> None:
    debris = [".gallery.json.ab12.tmp", "encoder/.config.json.x.tmp", "vectors/.0001.index.y.tmp"]
    for name in debris:
        (path / name).write_text("half")
    with Gallery.open(path) as opened:
        opened.add(picture(300))
    assert [name for name in debris if (path / name).exists()] == []


def test_a_creation_that_was_killed_in_a_file_can_be_done_again(tmp_path: Path) -> None:
    new_gallery(tmp_path / "g").close()
    (tmp_path / "g" / "gallery.json").rename(tmp_path / "g" / ".gallery.json.a1b2.tmp")
    with new_gallery(tmp_path / "g") as made:
        assert made.add(picture(1)).added == 1
    assert not (tmp_path / "g" / ".gallery.json.a1b2.tmp").exists()


# --- manifests ------------------------------------------------------------------------------------


def rewritten(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Another manifest, whose checksum fits."""
    file = path / "gallery.json"
    fields = json.loads(file.read_text())
    del fields["sha256"]
    edit(fields)
    file.write_text(json.dumps({**fields, "sha256": manifest._checksum(fields)}))


VALUES: dict[str, list[Any]] = {
    "format_version": [-5, 0, True, "1", None, 1.0, [1]],
    "modality": ["x", None, 1, ["image"]],
    "metric": ["cosinus", 7, None, ["cosine"]],
    "dtype": ["int8", {}, None],
    "dim": [0, -1, True, "192", 2**31, 10**400, 1.5, None],
    "encoder": ["", None, 3, "a" * 2000, "\x1b[31mred", "\ud800"],
    "weights_sha256": ["", "z" * 64, "A" * 64, None, 1],
    "made_by": [None, 1, "a\nb"],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n in VALUES for v in VALUES[n]])
def test_a_manifest_says_only_what_a_gallery_can_be(path: Path, name: str, value: Any) -> None:
    rewritten(path, lambda fields: fields.__setitem__(name, value))
    with pytest.raises(GalleryError, match=r"gallery\.json (has|says|holds) .*restore it"):
        Gallery.open(path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"format": ' * 100_000 + "1" + "}" * 100_000,
        '{"format": "fastretrieve-gallery", "format_version": ' + "[" * 900 + "]" * 900 + "}",
        '{"a": NaN}',
        '{"a": ' + "9" * 5000 + "}",
        "\ud800",
    ],
    ids=["lists", "objects", "a nested version", "nan", "a long number", "half a character"],
)
def test_a_manifest_that_is_none_is_named(path: Path, text: str) -> None:
    (path / "gallery.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(GalleryError, match=r"gallery\.json"):
        Gallery.open(path)


def test_a_huge_manifest_is_refused_before_it_is_read(path: Path) -> None:
    os.truncate(path / "gallery.json", 1 << 33)
    with pytest.raises(GalleryError, match="more than 1000000 bytes"):
        Gallery.open(path)


# --- databases ------------------------------------------------------------------------------------

DAMAGE = {
    "a table is missing": "DROP TABLE segment",
    "a column is missing": "DROP VIEW items; ALTER TABLE item RENAME COLUMN label TO other",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON item BEGIN DELETE FROM item; END",
    "a view without end": "DROP VIEW items; CREATE VIEW items AS WITH RECURSIVE n(id) AS (SELECT 1 "
    "UNION ALL SELECT id + 1 FROM n) SELECT id, 0 AS deleted FROM n",
    "a generated column": "ALTER TABLE item ADD COLUMN x AS (hex(zeroblob(1000000000)))",
    "no generation": "DELETE FROM state",
    "a generation of text": "UPDATE state SET generation = 'x'",
    "a negative generation": "UPDATE state SET generation = -3",
    "a huge generation": "UPDATE state SET generation = 9223372036854775807",
    "rows of text": "UPDATE segment SET n_rows = 'many'",
    "more rows than there are": "UPDATE segment SET n_rows = n_rows + 1",
    "a file of bytes": "UPDATE segment SET file = x'ff'",
    "no checksum": "UPDATE segment SET sha256 = x''",
    "a path of bytes": "UPDATE item SET path = x'00ff'",
    "text that is no text": "UPDATE item SET path = cast(x'ff80' AS TEXT)",
    "a label that is no text": "UPDATE item SET label = cast(x'ff80' AS TEXT)",
    "a label of bytes": "UPDATE item SET label = x'ff80'",
    "a width of text": "UPDATE item SET width = 'wide'",
    "a deleted of text": "UPDATE item SET deleted = 'yes' WHERE id = 1",
    "metadata of bytes": "ALTER TABLE item ADD COLUMN \"x\"; UPDATE item SET x = x'00'",
    "an item without a vector": "INSERT INTO item (key, path) VALUES ('a', '/a')",
    "vectors without items": "DELETE FROM item",
    "one vector without its item": "DELETE FROM item WHERE id = 2",
    "a huge id": "UPDATE item SET id = 4611686018427387904 WHERE id = 5",
    "a newer version": "PRAGMA user_version = 99",
    "a negative version": "PRAGMA user_version = -1",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_database_that_we_did_not_write_is_named(path: Path, name: str) -> None:
    with sqlite3.connect(path / "items.sqlite") as connection:
        connection.executescript(DAMAGE[name])
    connection.close()
    started = time.monotonic()
    outcomes = gallery_fuzz.outcomes(path)
    assert time.monotonic() - started < 20  # a statement left open makes each writer wait
    assert [o for o in outcomes if not gallery_fuzz.is_an_answer(o)] == []
    refused = [o for o in outcomes if o != "done"]
    assert any("items.sqlite" in o or ".index" in o or "no vector" in o for o in refused), refused


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gallery_fuzz.seed(tmp_path_factory.mktemp("seed"))


@pytest.mark.parametrize("case", sorted(gallery_fuzz.CORPUS.glob("*.xz")), ids=lambda p: p.stem)
def test_what_fuzzing_found_stays_mended(case: Path, seed: Path, tmp_path: Path) -> None:
    outcomes = gallery_fuzz.outcomes(gallery_fuzz.kept(case, seed, tmp_path / "g"))
    assert [o for o in outcomes if not gallery_fuzz.is_an_answer(o)] == []
