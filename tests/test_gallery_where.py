"""``where``: exact among the allowed rows, and nothing but a condition over the items."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.lookup import conditions
from fastretrieve.gallery.lookup.conditions import Filter
from gallery_helpers import new_gallery, picture, write_pictures

N = 60


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("where")
    paths = write_pictures(folder / "many", N)
    rows = [
        f'{path},{"odd" if i % 2 else "even"},{i},{i / 10},"it\'s {i}%",{i % 3}'
        for i, path in enumerate(paths)
    ]
    table = folder / "table.csv"
    table.write_text("\n".join(["path,label,number,share,note,photo grapher", *rows]))
    made = new_gallery(folder / "g")
    assert made.add(table).added == N
    made.remove(where="number = 59")
    return made


CONDITIONS: dict[str, tuple[Any, Any]] = {
    "a label": ("label = 'odd'", lambda i: i % 2),
    "numbers compare as numbers": ("number > 9 AND number <= 20", lambda i: 9 < i <= 20),
    "a column with a blank": ('"photo grapher" = 2', lambda i: i % 3 == 2),
    "a function": (
        "upper(label) = 'EVEN' AND abs(number - 30) < 5",
        lambda i: i in (26, 28, 30, 32, 34),
    ),
    "or does not reach beyond the condition": ("number = 3 OR number = 59", lambda i: i == 3),
    "a subquery over the items": ("number = (SELECT max(number) FROM items)", lambda i: i == 58),
    "nothing": ("0", lambda i: False),
    "blank means all": ("  ", lambda i: True),
    "a comment": ("number < 3 -- and so on", lambda i: i < 3),
    "filters": (
        [Filter("label", "=", "odd"), Filter("number", "<", 10)],
        lambda i: i % 2 and i < 10,
    ),
    "a filter by text that means something in SQL": (
        [Filter("note", "contains", "it's 5%")],
        lambda i: i == 5,
    ),
    "a filter in": ([Filter("number", "in", [1, 2, 59, 77])], lambda i: i in (1, 2)),
    "an empty filter in": ([Filter("number", "in", [])], lambda i: False),
    "a filter on emptiness": ([Filter("caption", "is empty")], lambda i: True),
    "a filter on fullness": ([Filter("label", "is not empty")], lambda i: True),
    "names of columns in any case": ([Filter("NUMBER", ">=", 57)], lambda i: i >= 57),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_best_among_the_allowed(gallery: Gallery, name: str) -> None:
    where, allowed = CONDITIONS[name]
    items = gallery.items()
    assert items == gallery.items(limit=N)
    vectors = gallery.vectors()
    query = gallery._opened.queries.encode([picture(7)])[0]
    scores = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    keep = [row for row, item in enumerate(items) if allowed(item.metadata["number"])]
    wanted = [items[row].id for row in sorted(keep, key=lambda row: -scores[row])[:8]]
    assert [item.id for item in gallery.search(picture(7), k=8, where=where).items] == wanted


REFUSED = {
    "what was deleted": ("deleted = 0) OR (deleted > 0", ""),
    "the table behind the view": ("EXISTS (SELECT 1 FROM item)", "may not use item"),
    "another table": ("(SELECT generation FROM state) > 0", "may not use state"),
    "the list of files": ("(SELECT count(*) FROM segment) > 0", "may not use segment"),
    "the schema": ("(SELECT count(*) FROM sqlite_master) > 0", "may not use sqlite_master"),
    "a second statement": ("1; DELETE FROM item", "syntax error"),
    "writing": ("1) ; UPDATE item SET label = 'x' WHERE (1", None),
    "loading code": ("load_extension('x')", "may not use load_extension"),
    "reading a file": ("readfile('/etc/passwd')", "no such function"),
    "pragma functions": ("(SELECT count(*) FROM pragma_table_info('item')) > 0", "may not use"),
    "large values": ("length(zeroblob(1000000000)) > 0", "may not use zeroblob"),
    "recursion": (
        "(WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n)",
        "may not",
    ),
    "a typing error": ("labl = 'boot'", "no such column: labl"),
    "half a condition": ("label =", "syntax error"),
    "a comment that swallows": ("1) /*", ""),
    "too long": ("1" * 200_000, "characters, at most"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused_and_changes_nothing(gallery: Gallery, name: str) -> None:
    where, reason = REFUSED[name]
    before = gallery.info()
    if reason == "":  # it is valid, and sees what the view shows
        assert len(gallery.search(1, k=N, where=where)) == N - 2
    else:
        with pytest.raises(GalleryError, match=reason):
            gallery.search(1, where=where)
    assert gallery.info() == before
    assert len(gallery.search(1, k=N)) == N - 2  # and the connection still serves


def test_the_message_names_the_columns(gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match=r"columns: .*label.*photo grapher"):
        gallery.search(1, where="nosuch = 1")


def test_what_takes_too_long_is_stopped(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery._opened.conditions, "_time_limit", 0.05)
    slow = "(SELECT count(*) FROM items a, items b, items c, items d, items e) > 1"
    with pytest.raises(GalleryError, match=r"took more than 0\.05 s"):
        gallery.search(1, where=slow)


def test_masks_are_remembered_until_something_changes(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = "number BETWEEN 5 AND 25"
    first = gallery.search(1, k=5, where=where).scores

    def fail(*_: object) -> None:
        raise AssertionError("asked the database again")

    with monkeypatch.context() as patched:
        patched.setattr(conditions.Conditions, "ids", fail)
        assert gallery.search(1, k=5, where=where).scores == first
        gallery.label(gallery.items(limit=1), "new")
        with pytest.raises(AssertionError, match="again"):
            gallery.search(1, k=5, where=where)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Filter("nosuch", "=", 1), "no column 'nosuch'"),
        (Filter('label" = "', "=", 1), "no column"),
        (Filter("label", "; DROP", 1), "operator is one of"),  # type: ignore[arg-type]
        (Filter("label", "in", "odd"), "'in' with a list"),
        (Filter("label", "=", {"a": 1}), "compares with text or a number"),
    ],
)
def test_a_wrong_filter_is_refused(gallery: Gallery, wrong: Filter, message: str) -> None:
    with pytest.raises(GalleryError, match=message):
        gallery.search(1, where=[wrong])


def test_remove_and_items_take_conditions(tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "g")
    images = np.random.default_rng(0).integers(0, 255, (10, 8, 8), np.uint8)
    gallery.add(images, labels=list("aabbbccccc"))
    assert [item.label for item in gallery.items("label < 'c'", offset=1, limit=3)] == list("abb")
    assert gallery.remove(where="label = 'c'") == 5
    assert gallery.remove(where="label = 'c'") == 0
    assert len(gallery) == 5


LARGE = {
    "nested hex": f"length({'hex(' * 26}note{')' * 26}) > 0",
    "queries that double text": "(WITH "
    + ", ".join(
        ["a0(x) AS (SELECT note FROM items LIMIT 1)"]
        + [f"a{i}(x) AS (SELECT x || x FROM a{i - 1})" for i in range(1, 27)]
    )
    + " SELECT length(x) FROM a26) > 0",
    "a sorter": f"(SELECT count(*) FROM (SELECT {'hex(' * 10}a.note{')' * 10} x "
    "FROM items a, items b, items c ORDER BY x)) > 0",
}


@pytest.mark.parametrize("name", LARGE)
def test_a_condition_takes_bounded_memory_and_time(gallery: Gallery, name: str) -> None:
    with pytest.raises(GalleryError, match=r"more than \d+ MiB of memory|took more than"):
        gallery.items(LARGE[name])
    own, child = (resource.getrusage(who).ru_maxrss >> 10 for who in _WHO)
    assert child < 600 + own  # MiB; this process starts one that is larger than it for a moment
    assert len(gallery.items(limit=1)) == 1


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def test_a_step_that_never_looks_at_the_clock_is_stopped(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery._opened.conditions, "_time_limit", 0.5)
    big = "hex(" * 22 + "'3'" + ")" * 22  # four million times the same digit
    with pytest.raises(GalleryError, match=r"took more than 0\.5 s"):
        gallery.items(f"instr({big}, {big[4:-1]} || '4') = 7")


@pytest.mark.parametrize("where", ["label = '\ud800'", "id = 1 OR label = '\0'"])
def test_what_no_statement_can_hold_is_an_error(gallery: Gallery, where: str) -> None:
    with pytest.raises(GalleryError, match="not a condition that works here"):
        gallery.items(where)
    with pytest.raises(GalleryError, match="not a condition that works here"):
        gallery.items([Filter("id", "=", 2**70)])


PLAIN = ("number > 5", "label LIKE '%d' AND width BETWEEN 1 AND 99", "round(share) IN (1, 2)")
APART = ("instr(note, '5') > 0", "note LIKE label", "note || 'x' > 'a'", "id IN (SELECT 1)")


def test_only_what_may_grow_needs_a_process(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    apart = conditions.Conditions._apart

    def spy(self: Any, statement: str, condition: str, connection: Any) -> Any:
        asked.append(condition)
        return apart(self, statement, condition, connection)

    monkeypatch.setattr(conditions.Conditions, "_apart", spy)
    for where in (*PLAIN, *APART):
        gallery.items(where)
    assert asked == list(APART)


def test_joining_text_is_refused(gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="may not use group_concat"):
        gallery.items("length((SELECT GROUP_CONCAT(note) FROM items)) > 0")
    with pytest.raises(GalleryError, match="at most 500 characters"):
        gallery.items([Filter("note", "contains", "%" * 501)])
