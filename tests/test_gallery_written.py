"""The index of words keeps in step with the items, whatever happens to the gallery or its file."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.store import database, schema, written
from gallery_helpers import new_gallery, picture

pytestmark = pytest.mark.skipif(bool(written.unavailable()), reason=written.unavailable())

CAPTIONS = {f"p{i}": f"boot number{i} zebra" for i in range(8)}
SHADOWS = [f"{name}_{part}" for name in schema.WORD_TABLES for part in schema.SHADOWS]


@contextlib.contextmanager
def file_of(gallery: Gallery | Path) -> Iterator[sqlite3.Connection]:
    """The database, as somebody else would change it."""
    path = gallery if isinstance(gallery, Path) else gallery.path
    with contextlib.closing(sqlite3.connect(path / "items.sqlite", timeout=30)) as connection:
        yield connection
        connection.commit()


def table(folder: Path, captions: dict[str, str]) -> Path:
    """Pictures with captions."""
    rows = []
    for number, (name, caption) in enumerate(captions.items()):
        path = folder / f"{name}.png"
        if not path.exists():
            picture(number).save(path)
        rows.append(json.dumps({"path": str(path), "caption": caption}))
    file = folder / "captions.jsonl"
    file.write_text("\n".join(rows))
    return file


@pytest.fixture
def pictured(tmp_path: Path) -> Gallery:
    """A gallery whose pictures are there."""
    made = new_gallery(tmp_path / "g")
    made.add(table(tmp_path, CAPTIONS))
    return made


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seed")
    with new_gallery(folder / "g") as made:
        made.add(table(folder, CAPTIONS))
    return folder / "g"


@pytest.fixture
def gallery(seed: Path, tmp_path: Path) -> Gallery:
    shutil.copytree(seed, tmp_path / "g")
    return Gallery.open(tmp_path / "g")


def assert_in_step(gallery: Gallery) -> None:
    """What is indexed is what the items say, asked in two ways that share no code with it."""
    assert gallery.check() == []
    with file_of(gallery) as connection:
        indexed = {row[0] for row in connection.execute("SELECT rowid FROM words('png')")}
    assert indexed == {item.id for item in gallery.items()}


# --- in step --------------------------------------------------------------------------------------


def test_every_change_is_followed(pictured: Gallery, tmp_path: Path) -> None:
    gallery = pictured
    assert_in_step(gallery)
    gallery.label([1, 2], "walrus")
    assert gallery.find("walrus").ids == [1, 2]
    gallery.label([1], None)
    assert gallery.find("walrus").ids == [2]
    gallery.remove([2])
    assert gallery.find("walrus").ids == gallery.find("number1").ids == []
    assert_in_step(gallery)
    gallery.add(tmp_path / "p1.png", restore=True)
    assert gallery.find("walrus boot").ids == [2]
    again = table(tmp_path, {f"p{i}": f"boot number{i}" + " yak" * (i == 5) for i in range(8)})
    gallery.add(again)  # other captions of unchanged files
    assert gallery.find("zebra").ids == []
    assert gallery.find("yak").ids == [6]
    assert_in_step(gallery)
    picture(70).save(tmp_path / "p5.png")  # another picture
    (tmp_path / "p6.png").write_bytes(b"no picture")
    (tmp_path / "p7.png").unlink()
    gallery.update()
    assert sorted(gallery.find("boot", k=20).ids) == [1, 2, 3, 4, 5, 6]
    assert gallery.find("yak").ids == [6]
    picture(6).save(tmp_path / "p6.png")
    gallery.add(again, retry=True)
    assert gallery.find("number6").ids == [7]
    assert_in_step(gallery)
    assert gallery.forget([6]).items == 1
    assert gallery.find("yak").ids == []
    assert_in_step(gallery)


def test_a_copy_has_its_own(gallery: Gallery, tmp_path: Path) -> None:
    with gallery.copy(tmp_path / "copy") as copied:
        copied.label([1], "walrus")
        assert copied.find("walrus").ids == [1]
        assert_in_step(copied)
    assert gallery.find("walrus").ids == []


def test_a_change_that_fails_leaves_the_index_as_it_was(gallery: Gallery) -> None:
    def change(connection: Any, generation: int) -> None:
        connection.execute("UPDATE item SET label = 'walrus'")
        raise ArithmeticError

    with gallery._storage.writing() as writer, pytest.raises(ArithmeticError):
        writer.commit(change)
    with gallery._storage.writing() as writer:
        writer.commit(lambda connection, generation: None)
    assert gallery.find("walrus").ids == []
    assert_in_step(gallery)


def test_many_items_at_once(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "CHUNK", 3)
    gallery.label([*range(1, 9)], "walrus")
    assert gallery.find("walrus", k=9).ids == [*range(1, 9)]
    gallery.rebuild_words()
    assert_in_step(gallery)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_a_commit_items_and_words_agree(gallery: Gallery, moment: str) -> None:
    gallery.close()
    code = """
        import os, sys
        from fastretrieve.gallery import Gallery
        from fastretrieve.gallery.store import written
        follow = written.follow
        def die(connection):
            if sys.argv[2] == "after":
                follow(connection)
            os.kill(os.getpid(), 9)
        gallery = Gallery.open(sys.argv[1])
        gallery.label([4], "otter")
        written.follow = die
        gallery.label([3], "walrus")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(gallery.path), moment]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with Gallery.open(gallery.path) as opened:
        assert opened.find("otter").ids == [4]
        assert opened.find("walrus").ids == []
        assert_in_step(opened)
        opened.label([3], "walrus")
        assert opened.find("walrus").ids == [3]


# --- galleries without the index ------------------------------------------------------------------


def aged(gallery: Gallery) -> None:
    """Make it what versions made that knew no index of words."""
    gallery.close()
    with file_of(gallery) as connection:
        for name in (*schema.WORD_TABLES, "written"):
            connection.execute(f"DROP TABLE {name}")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def test_an_older_gallery_is_indexed_by_its_first_writer(gallery: Gallery) -> None:
    aged(gallery)
    before = (gallery.path / "items.sqlite").read_bytes()
    with Gallery.open(gallery.path) as opened:
        assert not opened.indexes_words
        assert opened.info()["words_of"] is None
        with pytest.raises(GalleryError, match=r"not indexed yet.*gallery\.update\(\)"):
            opened.find("boot")
        assert len(opened.search(1, k=3)) == 3
        assert opened.check() == []
        assert (gallery.path / "items.sqlite").read_bytes() == before
        generation = opened.generation
        opened.update(progress=False)
        assert opened.generation == generation  # nothing else has changed
        assert opened.indexes_words
        assert len(opened.find("boot", k=20)) == opened.info()["words_of"] == 8
        assert_in_step(opened)
    with file_of(gallery) as connection:  # versions before would not keep it in step
        assert connection.execute("PRAGMA user_version").fetchone() == (database.WORDS_VERSION,)


def test_without_fts5_all_else_works(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "SQLite 3.0 of this Python cannot index words: no such module: fts5"
    monkeypatch.setattr(written, "unavailable", lambda: reason)
    with Gallery.open(gallery.path) as opened:
        assert not opened.indexes_words
        for call in (lambda: opened.find("boot"), opened.rebuild_words):
            with pytest.raises(GalleryError, match="no such module: fts5"):
                call()
        assert len(opened.search(1, k=3)) == 3
        opened.label([1], "walrus")
        opened.forget([2])
        assert opened.check() == []
    data = b"".join(path.read_bytes() for path in gallery.path.glob("items.sqlite*"))
    assert b"number1" not in data
    monkeypatch.undo()
    with Gallery.open(gallery.path) as opened:
        with pytest.raises(GalleryError, match="not indexed yet"):
            opened.find("walrus")
        opened.label([3], "otter")
        assert opened.find("walrus").ids == [1]
        assert opened.find("otter").ids == [3]
        assert_in_step(opened)


def test_a_new_gallery_without_fts5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "unavailable", lambda: "none")
    with new_gallery(tmp_path / "g") as made:
        made.add([picture(1)])
        assert made.check() == []
        assert made.info()["words_of"] is None
    with file_of(tmp_path / "g") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_what_this_sqlite_makes_is_what_is_known() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        model.execute(schema.WRITTEN)
        for statement in schema.WORD_TABLES.values():
            model.execute(statement)
        found = dict(model.execute("SELECT name, sql FROM sqlite_master WHERE name != 'written'"))
        assert {("table", name): sql for name, sql in found.items()} == schema.WORDS
        for name in SHADOWS:
            rows = model.execute(f"SELECT * FROM {name}").fetchall()
            assert rows == [row for part, row in written._MADE if name.endswith(part)], name


# --- erasing --------------------------------------------------------------------------------------


def bytes_of(gallery: Gallery) -> bytes:
    return b"".join(path.read_bytes() for path in gallery.path.glob("items.sqlite*"))


def test_no_byte_of_forgotten_words_is_left(gallery: Gallery, tmp_path: Path) -> None:
    secret = "qzjxwvkp"
    picture(99).save(tmp_path / "p99.png")
    gallery.add(tmp_path / "p99.png")
    with file_of(gallery) as connection:  # else what is overwritten is zeroed anyhow
        connection.execute("PRAGMA secure_delete = OFF")
    gallery.label([9], f"{secret} 靴墨")
    gallery.label([8], f"{secret}ly")
    assert gallery.find(secret, k=9).ids == [9, 8]
    assert secret.encode() in bytes_of(gallery)
    gallery.label([8], "harmless")  # what is written anew stays in FTS5's older segments, too
    gallery.remove([9])
    gallery.forget(removed=True)
    for piece in (secret, *(secret[i : i + 3] for i in range(6)), "墨"):
        assert piece.encode() not in bytes_of(gallery), piece
    with file_of(gallery) as connection:
        for name in schema.WORD_TABLES:
            connection.execute(
                f"CREATE VIRTUAL TABLE temp.v_{name} USING fts5vocab(main, {name}, row)"
            )
            terms = {row[0] for row in connection.execute(f"SELECT term FROM temp.v_{name}")}
            assert not [t for t in terms if (len(t) > 2 and t in secret) or t == "墨"]
            assert terms  # the others are there
    assert_in_step(gallery)


# --- a file that somebody sent --------------------------------------------------------------------

STRANGE = {
    "a part is missing": "DROP TABLE written; DROP TABLE pieces",
    "words without an index": "DROP TABLE words; DROP TABLE pieces",
    "another tokenizer": (
        "DROP TABLE words; CREATE VIRTUAL TABLE words USING fts5(name, label, caption, more, "
        "content='written', content_rowid='item')"
    ),
    "an index of something else": (
        "DROP TABLE words; CREATE VIRTUAL TABLE words USING fts5(name, label, caption, more, "
        "content='item', content_rowid='id')"
    ),
    "another virtual table": "CREATE VIRTUAL TABLE terms USING fts5vocab(words, row)",
    "a table in its place": "DROP TABLE words; CREATE TABLE words (name, label, caption, more)",
    "a trigger on what is written": (
        "CREATE TRIGGER t AFTER DELETE ON written BEGIN DELETE FROM item; END"
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_tables_that_no_gallery_makes_are_refused(gallery: Gallery, name: str) -> None:
    gallery.close()
    with file_of(gallery) as connection:
        connection.executescript(STRANGE[name])
    with pytest.raises(GalleryError, match="which no gallery makes"):
        Gallery.open(gallery.path)


FORGED = {
    "words of others": "UPDATE written SET caption = 'walrus' WHERE item = 3",
    "an item too many": "INSERT INTO written VALUES (99, 'walrus', '', '', '', '')",
    "an item too few": "DELETE FROM written WHERE item = 3",
    "bytes": "UPDATE written SET name = x'ff00ff', long = 7 WHERE item = 3",
    "an index that hides": "INSERT INTO words (words) VALUES ('delete-all')",
    "an index that adds": (
        "INSERT INTO words (rowid, name, label, caption, more) VALUES (77, 'boot', '', '', '')"
    ),
    "pieces of others": "INSERT INTO pieces (rowid, long) VALUES (2, 'walrus')",
    "no segments": "DELETE FROM words_data WHERE id > 10",
    "no list of segments": "DELETE FROM words_data WHERE id = 10",
    "a list of segments that wants 2 GB": (
        "UPDATE pieces_data SET block = x'0000000001040b00cbcbcb04010108' WHERE id = 10"
    ),
    "a list of segments of text": "UPDATE pieces_data SET block = 'none' WHERE id = 10",
    "an endless number": f"UPDATE words_data SET block = x'{'ff' * 60}' WHERE id = 10",
    "no lengths": "DELETE FROM words_docsize",
    "lengths of noise": "UPDATE words_docsize SET sz = x'ffffffffffffffffffff'",
    "a rank of its own": "INSERT INTO words_config VALUES ('rank', 'bm25(1e300)')",
    "another version": "UPDATE words_config SET v = 99",
    "no settings": "DELETE FROM pieces_config",
    "settings of bytes": "UPDATE pieces_config SET k = x'00', v = x'00'",
}


@pytest.mark.parametrize("name", FORGED)
def test_a_false_index_is_named_and_mended(gallery: Gallery, name: str) -> None:
    gallery.close()
    with file_of(gallery) as connection:
        connection.executescript(FORGED[name])
    with Gallery.open(gallery.path) as opened:
        for text in ("boot", "zebra NOT number3", "umber", "b*", "walrus", "NOT walrus"):
            with contextlib.suppress(GalleryError):
                assert {*opened.find(text, k=20).ids} <= {*range(1, 9)}
        faults = opened.check()
        assert any("rebuild_words() or `fastretrieve update" in fault for fault in faults), faults
        assert len(opened.search(1, k=3)) == 3
        assert opened.rebuild_words() == 8
        assert len(opened.find("boot", k=20)) == 8
        assert opened.find("walrus").ids == []
        opened.label([3], "otter")
        assert opened.find("otter").ids == [3]
        assert_in_step(opened)


@pytest.mark.parametrize("name", [name for name in FORGED if "list of segments" in name])
def test_a_false_list_of_segments_is_refused_before_it_takes_memory(
    gallery: Gallery, name: str
) -> None:
    gallery.close()
    with file_of(gallery) as connection:
        connection.executescript(FORGED[name])
    with Gallery.open(gallery.path) as opened:
        for call in (lambda: opened.find("boot"), lambda: opened.label([1], "otter")):
            with pytest.raises(GalleryError, match="its list of segments is none"):
                call()
        assert any("its list of segments is none" in fault for fault in opened.check())


def test_a_writer_says_what_to_do_about_a_damaged_index(gallery: Gallery) -> None:
    gallery.close()
    with file_of(gallery) as connection:
        connection.execute("DELETE FROM words_data WHERE id = 10")
    with Gallery.open(gallery.path) as opened:
        with pytest.raises(GalleryError, match=r"index of words in items.sqlite is damaged.*--wo"):
            opened.label([3], "otter")
        assert opened.item(3).label is None
        opened.rebuild_words()
        opened.forget([3])
        assert_in_step(opened)


def noise(connection: sqlite3.Connection, chance: random.Random) -> None:
    """Some bytes of what FTS5 keeps are others."""
    for _ in range(chance.choice((1, 2, 4))):
        name = f"{chance.choice([*schema.WORD_TABLES])}_data"
        rows = connection.execute(f"SELECT id, block FROM {name} WHERE block != x''").fetchall()
        number, block = chance.choice(rows)
        data = bytearray(block)
        for _ in range(chance.choice((1, 3, 9))):
            at = chance.randrange(min(len(data), chance.choice((8, 30, len(data)))))
            data[at] = chance.choice((0, 127, 128, 255, chance.randrange(256)))
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        connection.execute(f"UPDATE {name} SET block = ? WHERE id = ?", (bytes(data), number))


def test_a_noisy_index_neither_crashes_nor_hangs(gallery: Gallery, tmp_path: Path) -> None:
    """In a child, as a fault in SQLite would end this process."""
    gallery.close()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            signal.setitimer(signal.ITIMER_VIRTUAL, 60)
            look_at_noise(gallery.path, tmp_path / "noisy", 25)
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def look_at_noise(source: Path, target: Path, n: int) -> None:
    for seed in range(n):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        with file_of(target) as connection:
            noise(connection, random.Random(seed))
        with Gallery.open(target) as opened:
            for text in ("boot", "zebra NOT number3", "umber", "b*"):
                with contextlib.suppress(GalleryError):
                    assert {*opened.find(text, k=20).ids} <= {*range(1, 9)}
            with contextlib.suppress(GalleryError):
                opened.label([3], "otter")
            opened.rebuild_words()
            assert len(opened.find("boot", k=20)) == 8
