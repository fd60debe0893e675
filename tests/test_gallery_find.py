"""Words that are written: what is found, in which order, and that the index keeps in step."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from colour_words import ColourWords, painted, shade
from fastretrieve import cli
from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.lookup import expressions, ranking, wordsearch
from fastretrieve.gallery.lookup.words import MAX_CHARACTERS, WordsError
from fastretrieve.gallery.store import schema, spelling, written
from gallery_helpers import class_folders, new_gallery, picture

pytestmark = pytest.mark.skipif(bool(written.unavailable()), reason=written.unavailable())


def captioned(folder: Path, captions: list[str]) -> Gallery:
    """A gallery of a picture for each caption, with ids from 1 on."""
    for i in range(len(captions)):
        picture(i).save(folder / f"{i}.png")
    rows = [json.dumps({"path": f"{folder}/{i}.png", "caption": c}) for i, c in enumerate(captions)]
    (folder / "captions.jsonl").write_text("\n".join(rows))
    made = new_gallery(folder / "g")
    assert made.add(folder / "captions.jsonl").added == len(captions)
    return made


# --- what words are -------------------------------------------------------------------------------

CAPTIONS = [
    "A red boot",  # 1
    "A child's boot, red",
    "blue boots on a beach",
    "ein roter Gummistiefel",  # 4
    "Stiefel für den Garten",
    "赤い靴下をはいた子供",  # 6
    "红色的靴子",
    "빨간 부츠를 신은 아이",  # 8
    "รองเท้าบู๊ตสีแดง",
    "लाल जूते",  # 10
    "Ein Straßenschild mit Ｆｕｌｌｗｉｄｔｈ",
    "ガラスの靴 👢",  # 12
    "SHOUTING İSTANBUL",
]
FOUND = {
    "boot": [1, 2, 3],  # the word first; boots holds it
    "RED boot": [1, 2],
    "boot NOT child": [1, 3],
    "boot AND NOT child": [1, 3],
    "stiefel": [4, 5],
    "gummi": [4],
    "fur": [5],
    "für": [5],
    "赤い靴下": [6],
    "靴": [6, 7, 12],
    "靴下": [6],
    "靴 NOT 靴下": [7, 12],
    "红色靴子": [7],  # the caption has a word between
    "赤い帽子": [],  # half of the pairs, but only one
    "부츠": [8],
    "빨간부츠": [8],
    "สีแดง": [9],
    "जूते": [10],
    "strassenschild": [11],
    "schild": [11],
    "fullwidth": [11],
    "ｶﾞﾗｽ": [12],
    "👢": [12],
    "istanbul": [13],
    "boo*": [1, 2, 3],
    "bo*": [1, 2, 3],
    "oot": [1, 2, 3],  # a part of a word, of three letters at least
    "ed": [],
    '"a red boot"': [1],
    '"red boot"': [1],
    "“red boot”": [1],
    '"boot red"': [2],  # signs between words count for nothing
    '"red a"': [],
    '"boot"': [1, 2],  # in quotes: as it is
    "boots OR stiefel": [3, 4, 5],
    "(red OR blue) boots": [3],
    "red OR blue boots": [1, 2, 3],
    "NOT (a OR ein OR den)": [6, 7, 8, 9, 10, 12, 13],
    "NOT NOT shouting": [13],
    "boot & red": [1, 2],
    "caption:boot": [],  # no filter of columns: the words caption and boot
    "child boot)": [2],
    "boot AND": [],  # no expression: the words boot and and
    "NEAR(red boot)": [],
    "^boot": [1, 2, 3],
}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return captioned(tmp_path_factory.mktemp("find"), CAPTIONS)


@pytest.mark.parametrize("text", FOUND)
def test_what_is_found(gallery: Gallery, text: str) -> None:
    assert sorted(gallery.find(text, k=50).ids) == FOUND[text]


def test_the_word_comes_before_its_compounds_and_rare_words_count_more(gallery: Gallery) -> None:
    assert gallery.find("stiefel").ids == [5, 4]
    found = gallery.find("boot")
    assert found.ids[:2] == [1, 2]  # the shorter caption first
    assert found.scores == sorted(found.scores, reverse=True)
    assert all(score > 0 for score in found.scores)
    assert gallery.find("blue OR a").ids[0] == 3
    assert gallery.find("NOT boot").scores == [0.0] * 11  # nothing that is wanted is there


def test_a_rare_compound_never_comes_before_a_common_word(tmp_path: Path) -> None:
    made = captioned(tmp_path, ["red"] * 8 + ["hundred"])
    found = made.find("red", k=20)
    assert found.ids == [*range(1, 10)]
    assert 0 < found.scores[-1] <= wordsearch.PIECE * found.scores[0]


def test_names_of_files_and_labels_are_split_where_words_meet(tmp_path: Path) -> None:
    names = ["red_boot-01.jpg", "redHat2.png", "IMG4711.png", "rote Ärmel.png", "roterÄrmel.png"]
    (tmp_path / "ankleBoot").mkdir()
    for i, name in enumerate(names):
        picture(i).save(tmp_path / "ankleBoot" / name)
    with new_gallery(tmp_path / "g") as made:
        made.add(tmp_path / "ankleBoot" / names[0], tmp_path / "ankleBoot" / names[1])
        made.add(*(tmp_path / "ankleBoot" / name for name in names[2:]))
        for text, wanted in {
            "red boot": [1], "boot": [1], "01": [1], "red_boot-01.jpg": [1], "red hat": [2],
            "redhat2": [2], "2 png": [2], "img": [3], "4711": [3], "armel": [4, 5], "rot*": [4, 5],
        }.items():  # fmt: skip
            assert sorted(made.find(text).ids) == wanted, text
        made.label([3], "ankleBoot")
        assert made.find("ankle").ids == made.find("ankleboot").ids == [3]


def test_columns_of_text_are_found_and_numbers_are_not(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    (tmp_path / "t.jsonl").write_text(
        json.dumps({"path": f"{tmp_path}/a.png", "by": "Ann Example", "n": 4711, "tags": ["wet"]})
    )
    with new_gallery(tmp_path / "g") as made:
        made.add(tmp_path / "t.jsonl")
        assert made.find("ann example").ids == made.find("wet").ids == [1]
        assert made.find("4711").ids == []


def test_urls_are_found_by_their_last_part_alone() -> None:
    assert spelling.file_name("x", "http://h.example/a/red%20boot.jpg?token=s3cret") == (
        "red boot.jpg"
    )
    assert spelling.file_name("pictures/ab/abcdef.png", None) == ""
    assert spelling.file_name("x", "http://[broken") == ""


def test_sqlite_takes_every_word_as_it_is() -> None:
    """Else a word would be written as one and asked for as another."""
    codes = [*range(0x3400), *range(0x3400, 0x110000, 97)]
    every = {w for code in codes for w in spelling.words(f"x{chr(code)}") if w != "x"}
    assert len(every) > 10_000
    with sqlite3.connect(":memory:") as connection:
        connection.execute(schema.WORD_TABLES["words"].replace("content='written', ", ""))
        connection.executemany(
            "INSERT INTO words (rowid, name) VALUES (?, ?)", enumerate(sorted(every))
        )
        connection.execute("CREATE VIRTUAL TABLE terms USING fts5vocab(words, instance)")
        counts = connection.execute("SELECT doc, count(*), max(offset) FROM terms GROUP BY doc")
        assert sum(1 for _, n, last in counts if (n, last) == (1, 0)) == len(every)
    connection.close()


@given(st.text())
@settings(max_examples=200, derandomize=True, database=None)
def test_words_of_words_are_the_same(text: str) -> None:
    found = spelling.words(text)
    assert spelling.words(" ".join(found)) == found
    assert all(word.strip() == word and '"' not in word and "\0" not in word for word in found)


# --- what is asked --------------------------------------------------------------------------------

NAMES = ["amber", "bronze", "cedar", "dune"]  # none is a part of another


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    sets = [[name for i, name in enumerate(NAMES) if n >> i & 1] for n in range(16)]
    return captioned(tmp_path_factory.mktemp("mixed"), [" ".join(each) or "x" for each in sets])


def random_expression(chance: random.Random, depth: int) -> tuple[str, set[int]]:
    """An expression in full brackets, and the items that it means."""
    kind = chance.choice(["word"] if depth == 0 else ["word", "NOT", "AND", "OR", "beside"])
    if kind == "word":
        place = chance.randrange(4)
        return NAMES[place], {n + 1 for n in range(16) if n >> place & 1}
    text, ids = random_expression(chance, depth - 1)
    if kind == "NOT":
        return f"NOT ({text})", {*range(1, 17)} - ids
    other, more = random_expression(chance, depth - 1)
    joint = " " if kind == "beside" else f" {kind} "
    return f"({text}){joint}({other})", ids | more if kind == "OR" else ids & more


@pytest.mark.parametrize("seed", range(60))
def test_expressions_mean_what_sets_say(mixed: Gallery, seed: int) -> None:
    text, ids = random_expression(random.Random(seed), 4)
    assert {*mixed.find(text[:MAX_CHARACTERS], k=50).ids} == ids


SIGNS = [
    *('"', "(", ")", "*", "^", "-", "+", ":", "{", "}", "'", ";", "\\", "%", "_", "\n", " ", " "),
    *("AND", "OR", "NOT", "NEAR(", "label:", "NEAR/2", "boot", "red", "a", "赤い靴下", "靴", "👢"),
    *("\u202e", "\ufeff", "é", "e\u0301", "ﷺ", "İ", "\U000e0041", "\U0010ffff", "--", "/*"),
]


@given(st.lists(st.one_of(st.sampled_from(SIGNS), st.text(max_size=5)), max_size=60))
@settings(max_examples=300, derandomize=True, database=None, deadline=None)
def test_any_text_is_searched_or_refused_with_a_sentence(
    gallery: Gallery, parts: list[str]
) -> None:
    text = "".join(parts)[:MAX_CHARACTERS]
    if not text.isprintable() or not any(c.isascii() and c.isalnum() for c in text):
        with contextlib.suppress(WordsError):
            gallery.find(text)
        return
    assert {*gallery.find(text, k=50).ids} <= {*range(1, 14)}
    leaves = [step for step in expressions.parsed(text) if not isinstance(step, str)]
    assert all(leaf.words for leaf in leaves)
    gallery.find(f"{text[:900]} OR {text[:900]}", k=1)


@pytest.mark.parametrize(
    "text",
    ["(" * 20_000 + "a" + ")" * 20_000, "NOT " * 25_000 + "a", "a " * 3_000, '"' * 30_000,
     "a" * 30_000, "a OR (" * 1_000, "靴" * 30_000, "\0" * 30_000, "a*" * 20_000],
)  # fmt: skip
def test_long_texts_are_refused_and_take_no_stack(gallery: Gallery, text: str) -> None:
    with pytest.raises(WordsError, match="characters; at most"):
        gallery.find(text)
    steps = expressions.parsed(text)  # bounded by itself, too
    expressions.excluded(steps)
    short = text[: MAX_CHARACTERS // 2] + " boot"
    if "\0" not in short:
        gallery.find(short)


@pytest.mark.parametrize("text", ["", " \n", "-- &", '"', None, 5, "a\0b", "\ud800"])
def test_texts_without_words_are_refused(gallery: Gallery, text: Any) -> None:
    with pytest.raises(WordsError, match="text"):
        gallery.find(text)


def test_a_text_that_takes_too_long_is_stopped(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wordsearch, "TIME_LIMIT", -1.0)
    monkeypatch.setattr(wordsearch.sandbox, "STEPS", 1)
    with pytest.raises(WordsError, match="was stopped"):
        gallery.find("boot")
    monkeypatch.undo()
    assert gallery.find("boot").ids == [1, 2, 3]


# --- conditions, pages, results -------------------------------------------------------------------


def test_conditions_pages_and_clusters_hold_exactly(tmp_path: Path) -> None:
    made = captioned(tmp_path, [f"boot {'wet ' * (i % 5)}{i}" for i in range(40)])
    every = made.find("boot", k=100)
    assert sorted(every.ids) == [*range(1, 41)]
    assert [i for n in range(6) for i in made.find("boot", k=7, offset=7 * n).ids] == every.ids
    odd = made.find("boot", k=100, where="id % 2 = 1")
    assert odd.ids == [i for i in every.ids if i % 2]
    assert made.find("boot NOT wet", where=[("id", "<", 9)], k=50).ids == [1, 6]
    assert made.find("NOT wet", where="id > 30", k=50).ids == [31, 36]
    made.remove(every.ids[:5])
    assert made.find("boot", k=100).ids == every.ids[5:]
    assert made.find("NOT wet", k=50).ids == [i for i in (1, 6, 11, 16, 21, 26, 31, 36)
                                              if i not in every.ids[:5]]  # fmt: skip
    made.clusters(3)
    members = made.items(within=1)
    assert sorted(made.find("boot", k=50, within=1).ids) == [item.id for item in members]
    assert made.find("boot", within=1).cluster == 1
    for wrong in ({"k": 0}, {"offset": -1}, {"within": "cluster"}, {"where": "nonsense"}):
        with pytest.raises((GalleryError, ValueError)):
            made.find("boot", **wrong)


def test_results_are_shown_like_others(gallery: Gallery, tmp_path: Path) -> None:
    found = gallery.find("red boot")
    assert [match.found_in for match in found] == ["words"] * 2
    facts = json.loads(json.dumps(found.to_dict()))
    assert (facts["text"], facts["matches"][0]["id"]) == ("red boot", 1)
    assert facts["matches"][0]["found_in"] == "words"
    assert "A red boot" not in repr(found) or "matches" in repr(found)
    found.save(tmp_path / "found.png")
    found.to_html(tmp_path / "found.html")
    assert "red boot" in (tmp_path / "found.html").read_text()


def test_words_that_most_items_have_are_ordered_without_their_scores(
    mixed: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {*mixed.find("amber").ids}
    monkeypatch.setattr(wordsearch, "MANY", 2)
    found = mixed.find("amber")
    assert {*found.ids} == wanted
    assert len({*found.scores}) == 1
    assert found.scores[0] > 0


# --- words and vectors together -------------------------------------------------------------------


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("colours")
    made = Gallery.create(folder / "g", encoder=ColourWords())
    made.add(painted(folder / "photos"))
    return made


def fused(*lists: list[int], listed: int) -> list[int]:
    """Reciprocal rank fusion, by its definition; then the rest of the first list."""
    sums: dict[int, float] = {}
    for each, share in zip(lists, (1, 1.5), strict=True):
        for rank, item in enumerate(each[:listed]):
            sums[item] = sums.get(item, 0) + share / (2 + rank)
    best = sorted(sums, key=lambda item: (-sums[item], item))
    return best + [item for item in lists[0] if item not in sums]


@pytest.mark.parametrize("listed", [200, 3, 1])
@pytest.mark.parametrize("where", [None, "label != 'middle'"])
@pytest.mark.parametrize("query", ["none", "picture", "item"])
def test_both_orders_are_fused_by_reciprocal_rank(
    colours: Gallery, monkeypatch: pytest.MonkeyPatch, listed: int, where: Any, query: str
) -> None:
    monkeypatch.setattr(ranking, "LISTED", listed)
    asked = {"none": None, "picture": shade("blue"), "item": 2}[query]
    text = "dark green"
    by_vector = colours.search(asked, text=text, where=where, k=50)
    by_words = [i for i in colours.find("dark OR green", where=where, k=50).ids if i != asked]
    wanted = fused(by_vector.ids, by_words, listed=listed)
    found = colours.search(asked, text=text, where=where, k=50, hybrid=True)
    assert found.ids == wanted
    assert found.scores == pytest.approx([by_vector.scores[by_vector.ids.index(i)] for i in wanted])
    for match in found:
        near, said = (match.item.id in ids[:listed] for ids in (by_vector.ids, by_words))
        assert match.found_in == ("both" if near and said else "words" if said else "vectors")
    pages = [colours.search(asked, text=text, where=where, k=5, offset=n, hybrid=True).ids
             for n in (0, 5, 10)]  # fmt: skip
    assert [*chain.from_iterable(pages)] == wanted[:15]
    assert [m["found_in"] for m in found.to_dict()["matches"]] == [m.found_in for m in found]


def test_what_a_hybrid_search_needs_and_takes(colours: Gallery) -> None:
    with pytest.raises(WordsError, match='it needs them: text="a red boot"'):
        colours.search(1, hybrid=True)
    plain = colours.search(text="red NOT dark", hybrid=True, k=3)
    assert {m.found_in for m in plain if m.item.label == "dark"} == {"vectors"}
    assert {m.found_in for m in plain if m.item.label != "dark"} == {"both"}
    alone = colours.search(text="NOT dark", hybrid=True, k=3)  # no word is wanted
    assert alone.ids == colours.search(text="NOT dark", k=3).ids
    assert {match.found_in for match in colours.search(text="xyz red", k=2)} == {"vectors"}
    varied = colours.search(text="red", hybrid=True, k=4, diversity=0.5)
    assert len({*varied.ids}) == 4
    colours.clusters(4)
    near = colours.search(text="dark", hybrid=True, within=0, k=50)
    assert sorted(near.ids) == [item.id for item in colours.items(within=0)]


# --- the shell and the server ---------------------------------------------------------------------


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(each) for each in arguments])


def test_the_verb(gallery: Gallery, tmp_path: Path) -> None:
    done = run("find", gallery.path, "boot NOT child")
    assert done.exit_code == 0
    assert "0.png" in done.output
    assert "to search 13 items" in done.output
    facts = json.loads(run("find", gallery.path, "boot", "--json", "-k", 1, "--offset", 1).output)
    assert [match["id"] for match in facts["matches"]] == [2]
    nothing = run("find", gallery.path, "red hat", "--where", "id > 1")
    assert "nothing was found where id > 1" in nothing.output
    assert "with OR between them one is enough" in nothing.output
    assert run("find", gallery.path, "boot", "--save", tmp_path / "x.html").exit_code == 0
    assert "boot" in (tmp_path / "x.html").read_text()
    assert "indexed the words of 13 items" in run("update", gallery.path, "--words").output
    assert "words of" in run("info", gallery.path).output


def test_hybrid_in_the_shell(colours: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Gallery.open(colours.path, encoder=ColourWords())
    monkeypatch.setattr("fastretrieve.gallery.asking.open_gallery", lambda *_: opened)
    done = run("search", colours.path, "--text", "dark red", "-k", 2, "--hybrid")
    assert done.exit_code == 0, done.output
    assert "found in" in done.output
    assert "both" in done.output


def test_over_http(colours: Gallery, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    httpx = pytest.importorskip("httpx")
    from gallery_helpers import serving

    with serving(colours) as address, httpx.Client(base_url=f"{address}/api") as web:
        narrow = '[{"column": "label", "operator": "=", "value": "dark"}]'
        for text, where in (("red OR blue", None), ("dark NOT (red", None), ("red", narrow)):
            asked = {"text": text, "k": 2, **({"filters": where} if where else {})}
            answer = web.get("/find", params=asked)
            assert answer.status_code == 200, answer.text
            wanted = colours.find(text, k=3, where="label = 'dark'" if where else None)
            matches = answer.json()["matches"]
            assert [match["id"] for match in matches] == wanted.ids[:2]
            assert answer.json()["more"] == (len(wanted) == 3)
            assert {match["found_in"] for match in matches} <= {"words"}
        assert web.get("/find", params={"text": "-"}).json()["matches"] == []
        for wrong in ({}, {"text": " "}, {"text": "x" * 2001}, {"text": "a", "k": 0}):
            assert web.get("/find", params=wrong).status_code == 422
        both = web.get("/search", params={"text": "dark red", "hybrid": "true"}).json()["matches"]
        assert [m["id"] for m in both] == colours.search(text="dark red", hybrid=True).ids
        assert {"both"} <= {m["found_in"] for m in both}
        assert web.get("/gallery").json()["finds"] is True


def test_a_server_of_a_gallery_whose_words_are_not_indexed(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    httpx = pytest.importorskip("httpx")
    from gallery_helpers import serving

    with new_gallery(tmp_path / "g") as made, serving(made) as address:
        with httpx.Client(base_url=address) as web:
            assert web.get("/api/gallery").json()["finds"] is False
            answer = web.get("/api/find", params={"text": "a"})
            assert (answer.status_code, "not indexed" in answer.text) == (422, True)
            assert "/api/find" not in web.get("/openapi.json").json()["paths"]
        made.add(class_folders(tmp_path / "photos", 1))
