"""Texts as items: data sets of them, galleries of them, and what is not a text."""

from __future__ import annotations

import contextlib
import csv
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import text_encoders
from fastretrieve import cli
from fastretrieve.data import DataError, Loader, open_dataset, textfiles
from fastretrieve.data.errors import TooLarge
from fastretrieve.data.samples import sample_texts
from fastretrieve.data.texts import MAX_TEXT, as_texts, fault_of, read_text, text_picture
from fastretrieve.encoders.checking.suite import run_check
from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.intake import adding, refitting
from fastretrieve.testing import parametrize_checks
from text_encoders import FittedLetters, Letters

SENTENCES = ["a red boot", "a blue boot", "the sea at night", "the sea by day", "bread in the oven"]


def texts(source: Any, **options: Any) -> Any:
    return open_dataset(source, modality="text", **options)


def reasons(data: Any) -> dict[str, str]:
    return {Path(key).name: reason for key, reason in data.skipped}


# --- data sets ------------------------------------------------------------------------------------


def test_lines_of_a_file_are_items_and_bad_ones_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    long = b"x" * (MAX_TEXT + 1)
    lines = [
        b"\xef\xbb\xbfa boot\r",
        b"",
        b"  caf\xc3\xa9 ",
        b"wrong \xff",
        long,
        b"nul\0",
        b"last",
    ]
    path.write_bytes(b"\n".join(lines))
    data = texts(path)
    assert list(data) == ["a boot", "café", "last"]
    assert data.key(1) == f"{path}#item=3"
    assert reasons(data) == {
        "a.txt:4": "it is not UTF-8",
        "a.txt:5": f"a text of {MAX_TEXT + 1:,} characters, at most {MAX_TEXT:,} go",
        "a.txt:6": "it holds a NUL byte",
    }


def test_a_column_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        'id,path,caption,label,split\n1,x.png,a boot,shoe,train\n2,,,bag,test\n3,,"a\nb",,test\n'
    )
    data = texts(path)
    assert list(data) == ["a boot", "a\nb"]
    assert (data.classes, data.labels.tolist()) == (("shoe",), [0, -1])
    assert data.column("id").tolist() == [1, 3]
    assert data.column("path").tolist() == ["x.png", ""]  # of texts, paths are metadata
    assert reasons(data) == {"a.csv:3": "it is empty"}
    assert list(texts(path, split="test")) == ["a\nb"]
    assert list(texts(path, text_column="label")) == ["shoe", "bag"]


def test_text_comes_before_caption_and_an_unknown_column_lists_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "t", "caption": "c"}\n{"text": 5}\n{"caption": "x"}\nbad\n')
    data = texts(path)
    assert list(data) == ["t"]
    assert data.column("caption").tolist() == ["c"]
    assert reasons(data)["a.jsonl:2"] == "a text is a str, got int"
    assert reasons(data)["a.jsonl:3"] == "it is empty"
    with pytest.raises(
        DataError, match=r"no column of text called 'quote'; .*\['text', 'caption'\]"
    ):
        texts(path, text_column="quote")
    (tmp_path / "b.csv").write_text("quote,author\nx,y\n")
    with pytest.raises(
        DataError, match=r"called 'text' or 'caption'; .*'quote', 'author'.*--text-co"
    ):
        texts(tmp_path / "b.csv")
    assert list(texts(tmp_path / "b.csv", text_column="quote")) == ["x"]


def test_a_column_of_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": ["a", None, "b"], "n": [1, 2, 3], "label": ["x", "y", "x"]}), path
    )
    data = texts(path)
    with Loader(data, as_texts, batch_size=8) as loader:
        loaded = list(loader)
    assert [each.batch for each in loaded] == [["a", "b"]]
    assert loader.skipped[0].reason.endswith("it is empty")
    assert (data.classes, data.column("n").tolist()) == (("x", "y"), [1, 2, 3])
    with pytest.raises(DataError, match=r"called 'n'; its columns are \['text', 'label'\]"):
        texts(path, text_column="n")


def test_a_folder_takes_labels_from_its_folders(tmp_path: Path) -> None:
    for name, line in (("boot/a.txt", "red"), ("sea/b.txt", "blue"), ("c.txt", "none")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(line)
    (tmp_path / "sea" / "empty.txt").write_text("\n\n")
    data = texts(tmp_path)
    assert {(data[i], data.label_name(i)) for i in range(len(data))} == {
        ("red", "boot"),
        ("blue", "sea"),
        ("none", None),
    }
    assert reasons(data) == {"empty.txt": f"{tmp_path / 'sea' / 'empty.txt'} holds no text"}
    assert list(texts(tmp_path, recursive=False)) == ["none"]


def test_texts_in_memory(tmp_path: Path) -> None:
    data = texts(["a", " ", "c"], labels=["x", "y", "x"])
    assert (data[0], data.classes) == ("a", ("x", "y"))
    with pytest.raises(DataError, match="#1: it is empty"):
        data[1]
    assert list(texts((np.array(["a", "b"]), [0, 1]))) == ["a", "b"]
    path = tmp_path / "a.txt"
    path.write_text("from a file")
    assert list(texts([path])) == ["from a file"]
    assert list(texts([str(path)])) == [str(path)]  # a str is the words


def test_pairs_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("a,b\na boot,footwear\nthe sea,ocean\n,nothing\na boot, a shoe\n")
    data = texts(path, pairs=("a", "b"))
    assert list(data) == ["a boot", "footwear", "the sea", "ocean", "a shoe"]
    assert data.labels.tolist() == [0, 0, 1, 1, 0]
    assert data.classes == ("a boot", "the sea")
    assert reasons(data) == {"p.csv:4": "no texts in a and b"}
    both = texts((["a boot", "the sea"], ["footwear", "ocean"]), pairs=True)
    assert (list(both), both.labels.tolist()) == (list(data)[:4], [0, 0, 1, 1])


HOSTILE = {
    "a path and a text": (
        lambda p: [p / "a.txt", "b"],
        r"texts \(str\) or files \(Path\), not both",
    ),
    "bytes": (lambda p: b"a", "cannot read texts from bytes"),
    "a number": (lambda p: 5, "cannot read texts from int"),
    "a picture": (lambda p: p / "a.png", "holds no texts; give .txt"),
    "no file": (lambda p: p / "no.txt", "does not exist"),
    "UTF-16": (lambda p: p / "utf16.txt", "UTF-16; save it as UTF-8"),
    "nothing": (lambda p: p / "empty.txt", "holds no text$"),
    "a pipe": (lambda p: p / "pipe.txt", "a pipe, not a file"),
    "an empty folder": (lambda p: p / "folder", "holds no .txt files"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_source_of_texts(case: str, tmp_path: Path) -> None:
    import os

    (tmp_path / "utf16.txt").write_text("hello", "utf-16")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    make, message = HOSTILE[case]
    with pytest.raises(DataError, match=message):
        texts(make(tmp_path))


@pytest.mark.parametrize("text", [5, None, b"a", "\ud800", "a\0b", "", "x" * (MAX_TEXT + 1)])
def test_one_bad_text_is_its_own_error(text: Any) -> None:
    data = texts(["good", text, "fine"])
    assert fault_of(text)
    with pytest.raises(DataError, match="#1: "):
        data[1]
    assert (data[0], data[2]) == ("good", "fine")


def test_sizes_are_checked_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\nthree\n")
    monkeypatch.setattr(textfiles, "MAX_TEXTS", 2)
    with pytest.raises(TooLarge, match="holds more than 2 texts; split it"):
        texts(path)
    monkeypatch.setattr(textfiles, "MAX_BYTES", 5)
    monkeypatch.setattr(textfiles, "TableRows", None)  # it must not be read
    with pytest.raises(TooLarge, match="14 bytes, at most 5 of text go"):
        texts(path)
    path.write_text("x" * (4 * MAX_TEXT + 4))
    with pytest.raises(TooLarge, match="more than 65,536 characters"):
        read_text(path, name=path)


def test_text_column_is_for_texts_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="text_column is for texts"):
        open_dataset(tmp_path, text_column="quote")


def test_text_files_are_no_pictures(tmp_path: Path) -> None:
    """What .txt means to a data set of pictures has not changed."""
    (tmp_path / "a.txt").write_text("a boot")
    with pytest.raises(DataError, match="holds no image files"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    "text", ["a red boot", "w" * 700, "word " * 900, "", "寿司", "a\x1b[31m\n\tb"]
)
def test_a_text_has_a_picture(text: str) -> None:
    picture = text_picture(text)
    assert picture.size == (320, 320)
    inked = np.argwhere(np.asarray(picture.convert("L")) < 128)
    assert len(inked) > 0 or not text
    if text:
        assert inked.min() >= 8
        assert inked.max() < 318  # nothing runs over the edge


def test_long_texts_have_small_letters() -> None:
    """As many words as fit are drawn: more ink for more words."""
    ink = [(np.asarray(text_picture("boot " * n).convert("L")) < 128).sum() for n in (1, 20, 90)]
    assert ink == sorted(ink)


# --- encoders of texts ----------------------------------------------------------------------------


@parametrize_checks(Letters)
def test_an_encoder_of_texts_is_checked_with_sentences(check: Any) -> None:
    check()


class Company(Letters):
    """Wrong: the vector depends on the longest text of the batch."""

    def preprocess(self, items: Any) -> Any:
        return super().preprocess(items) / max([1, *map(len, items)])


def test_company_is_noticed() -> None:
    with pytest.raises(AssertionError, match="changes by"):
        run_check("batch", Company)


def test_sample_texts_are_of_many_lengths() -> None:
    items = sample_texts().items
    lengths = {len(item.split()) for item in items}
    assert {0, 1} < lengths
    assert max(lengths) == 40
    assert any(not item.isascii() for item in items)


# --- galleries of texts ---------------------------------------------------------------------------


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    made = Gallery.create(tmp_path / "g", encoder=Letters())
    made.add(SENTENCES, labels=["shoe", "shoe", "sea", "sea", "food"])
    return made


def test_words_find_words(gallery: Gallery) -> None:
    found = gallery.search("a red shoe or boot", k=2)
    assert [match.item.text for match in found] == ["a red boot", "a blue boot"]
    assert found.title == "a red shoe or boot"
    assert found.to_dict()["matches"][0]["text"] == "a red boot"
    assert gallery.search(text="a red shoe or boot", k=2).scores == found.scores
    assert gallery.search(1, k=1).items[0].text == "a blue boot"
    assert gallery.search("boot", where="label = 'sea'", k=1).items[0].label == "sea"
    assert gallery.search("boot", where="caption LIKE '%oven%'", k=1).items[0].text == SENTENCES[4]


def test_a_str_is_the_words_and_a_path_is_a_file(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sea.txt").write_text("a red boot\n")
    assert gallery.search(Path("sea.txt"), k=1).items[0].text == "a red boot"
    assert gallery.search("the sea.txt", k=1).items[0].label == "sea"
    assert gallery.search(b"a red boot", k=1).items[0].text == "a red boot"
    assert gallery.recommend(like="a red boot", k=1).items[0].text == "a red boot"
    for asked, message in (("", "it is empty"), (5.5, "search a gallery of texts with words")):
        with pytest.raises(GalleryError, match=message):
            gallery.search(asked)
    with pytest.raises(DataError, match=r"no\.txt"):
        gallery.search(Path("no.txt"))


def test_a_gallery_of_texts_is_a_gallery(gallery: Gallery, tmp_path: Path) -> None:
    assert [len(group) for group in gallery.duplicates(0.5)] == [2, 2]
    assert gallery.classify("the sea", k=1).label == "sea"
    names = gallery.clusters(2).names
    assert {"shoe", "sea"} & set(names)
    assert gallery.recommend(like=[1], unlike=[3], k=1).items[0].text == "a blue boot"
    assert gallery.evaluate(k=(1,)).metrics["recall@1"] > 0.5
    assert (gallery.update().unchanged, gallery.check()) == (5, [])
    with gallery.copy(tmp_path / "copy") as copied:
        assert [item.text for item in copied.items()] == SENTENCES
        assert copied.check() == []
    refusals = {
        "regions and explanations": lambda: gallery.explain("a", 1),
        "are of pictures": lambda: gallery.search("a", region=(0, 0, 1, 1)),
        "imagined queries are pictures": lambda: gallery.search("a", imagine="x/"),
        "a text has no file": lambda: gallery.file_of(gallery.item(1)),
    }
    for message, ask in refusals.items():
        with pytest.raises(GalleryError, match=message):
            ask()


def test_sheets_and_pages_show_words(gallery: Gallery, tmp_path: Path) -> None:
    found = gallery.search("a boot", k=2)
    sheet = np.asarray(found.image().convert("L"))
    other = np.asarray(gallery.search("the sea", k=2).image().convert("L"))
    assert (sheet != other).sum() > 500
    found.to_html(tmp_path / "a.html")
    gallery.clusters(2).save(tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as drawn:
        assert drawn.width > 300
    assert "a red boot" in repr(found)


def test_texts_are_items_of_their_file(gallery: Gallery, tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    path.write_text("first\n\nsecond\nfirst\n")
    assert gallery.add(path).added == 3  # the same words on two lines are two items
    first = gallery.items("source = 'q.txt#item=1'")[0]
    assert (first.text, first.name, first.origin) == ("first", "q.txt#item=1", "first")
    assert gallery.add(path).unchanged == 3
    path.write_text("first\n\nother\nfirst\n")
    changed = gallery.add(path)
    assert (changed.updated, changed.unchanged) == (1, 2)
    assert gallery.items("source = 'q.txt#item=3'")[0].text == "other"
    path.unlink()
    assert gallery.update().removed == 0  # the gallery needs the file no more
    assert gallery.remove(path) == 3
    assert len(gallery) == 5


def test_the_same_text_in_memory_is_one_item(gallery: Gallery) -> None:
    added = gallery.add(["new", "new", "a red boot", "", 5])
    assert (added.added, added.unchanged) == (1, 1)
    assert [one.reason for one in added.unreadable] == [
        "#3: it is empty",
        "#4: a text is a str, got int",
    ]


def test_a_table_keeps_its_columns(gallery: Gallery, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("quote,caption,label,year\nto be,c,play,1600\n,d,play,1601\n")
    added = gallery.add(path, text_column="quote")
    assert (added.added, len(added.unreadable)) == (1, 1)
    item = gallery.items("label = 'play'")[0]
    assert (item.text, item.metadata["caption_"], item.metadata["year"]) == ("to be", "c", 1600)


def test_what_is_exported_can_be_added_again(gallery: Gallery, tmp_path: Path) -> None:
    gallery.export(tmp_path / "v.npy", tmp_path / "items.csv")
    with (tmp_path / "items.csv").open(newline="") as file:
        assert [row["caption"] for row in csv.DictReader(file)] == SENTENCES
    again = Gallery.create(tmp_path / "again", encoder=Letters())
    assert again.add(tmp_path / "items.csv").added == 5
    assert [(i.text, i.label) for i in again.items()] == [
        (i.text, i.label) for i in gallery.items()
    ]


def test_forgotten_words_are_gone(gallery: Gallery) -> None:
    gallery.forget([5])
    held = b"".join(path.read_bytes() for path in gallery.path.rglob("*") if path.is_file())
    assert b"oven" not in held
    assert b"red boot" in held
    assert gallery.check() == []


def test_words_are_committed_with_their_vectors(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that dies inside a commit leaves neither."""
    put, calls = adding.db.put, []

    def dies(*args: Any) -> int:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return put(*args)

    with monkeypatch.context() as patched:
        patched.setattr(adding.db, "put", dies)
        with pytest.raises(KeyboardInterrupt):
            gallery.add(["x one", "x two", "x three", "x four"])
    assert (len(gallery), gallery.check()) == (5, [])
    assert not gallery.items("caption LIKE 'x%'")
    assert gallery.add(["x one", "x two", "x three", "x four"]).added == 4


CHANGED = "its words are not those that were added; remove it"


def test_changed_words_are_noticed(gallery: Gallery) -> None:
    gallery.close()
    with contextlib.closing(sqlite3.connect(gallery.path / "items.sqlite")) as connection:
        connection.execute("UPDATE item SET caption = 'another' WHERE id = 2")
        connection.execute("UPDATE item SET path = '/etc/hostname', size = 0 WHERE id = 3")
        connection.commit()
    changed = Gallery.open(gallery.path, encoder=Letters)
    assert changed.check()[0].startswith("item 2: its words are not those that were added")
    updated = changed.update()  # and no file that a database names is read as a text
    assert [one.reason.partition(": ")[2] for one in updated.unreadable] == [CHANGED]


def test_a_refit_reads_the_words_from_the_gallery(tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path / "g", encoder=FittedLetters())
    assert gallery.add(SENTENCES).fitted_to == 5
    before = gallery.vectors()
    gallery.add(["quite another thing", "and one more of them"])
    with contextlib.closing(sqlite3.connect(gallery.path / "items.sqlite")) as connection:
        connection.execute("UPDATE item SET caption = 'another' WHERE id = 7")
        connection.commit()
    refitting.refit(gallery._storage, FittedLetters, progress=False, device="cpu")
    fresh = Gallery.open(gallery.path, encoder=FittedLetters)
    assert not np.allclose(fresh.vectors()[:5], before)
    assert abs(fresh.vectors().mean(axis=0)).max() < 1e-6
    assert [(one.id, one.error.partition(": ")[2]) for one in fresh.unreadable()] == [(7, CHANGED)]


def test_txt_holds_urls_for_pictures_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a red boot\n")
    pictures = Gallery.create(tmp_path / "p", encoder="pixels", image_size=8)
    assert pictures.add(tmp_path / "a.txt").unreadable[0].reason.startswith("not a URL")
    with pytest.raises(GalleryError, match="text_column is for a gallery of texts"):
        pictures.add(tmp_path / "a.txt", text_column="x")


def test_texts_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "texts" / "sea").mkdir(parents=True)
    (tmp_path / "texts" / "sea" / "a.txt").write_text(
        "the waves\nwrong \udcff\n", errors="surrogateescape"
    )
    gallery = Gallery.create(tmp_path / "g", encoder=Letters())
    added = gallery.add(tmp_path / "texts")
    assert (added.added, added.unreadable[0].reason) == (1, "it is not UTF-8")
    assert gallery.items()[0].label == "sea"
    bare = Gallery.create(tmp_path / "h", encoder=Letters())
    bare.add(tmp_path / "texts", labels_from_folders=False)
    assert bare.items()[0].label is None


# --- the shell and the page -----------------------------------------------------------------------


def test_the_shell_takes_words_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("letters.py").write_text(Path(text_encoders.__file__).read_text())
    Path("q.csv").write_text("quote\na red boot\nthe [bold]sea[/bold]\n")
    Path("boot.txt").write_text("the [bold]sea")
    encoder = "./letters.py:Letters"

    def run(*words: str) -> str:
        done = CliRunner().invoke(cli.app, [*words])
        assert done.exit_code == 0, done.output
        return done.output

    made = run("index", "g", "q.csv", "--encoder", encoder, "--text-column", "quote", "--json")
    assert json.loads(made)["added"] == 2
    found = json.loads(run("search", "g", "boots", "--encoder", encoder, "--json"))
    assert found["matches"][0]["text"] == "a red boot"
    assert "[bold]sea" in run("search", "g", "boot.txt", "-k", "1", "--encoder", encoder)
    assert "a red boot" in run("duplicates", "g", "--threshold", "-1")
    assert "text" in run("info", "g")


def test_the_page_shows_words_and_refuses_uploads(gallery: Gallery) -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("fastapi")
    from gallery_helpers import serving

    with serving(gallery) as address:
        shown = httpx.get(f"{address}/api/items?k=2").json()["matches"]
        assert shown[0]["caption"] == "a red boot"
        picture = httpx.get(f"{address}/{shown[0]['picture']}")
        assert picture.headers["content-type"] == "image/jpeg"
        assert len(picture.content) > 1000
        near = httpx.get(f"{address}/api/items/1/similar?k=1").json()["matches"]
        assert near[0]["caption"] == "a blue boot"
        refused = httpx.post(f"{address}/api/search", files={"image": ("a.png", b"x")})
        assert refused.status_code == 415
        assert "search it with words" in refused.text
