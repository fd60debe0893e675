"""What a caller gets wrong is an error that says what was wanted, what came, and what to do; and
the index is what it was.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cases
import fastretrieve as fr
from fastretrieve import _core

ROWS = cases.gaussian(300, 4, seed=60).rows


@pytest.fixture
def index() -> fr.Index:
    made = fr.Index(4, metric="l2")
    made.add(ROWS[:200], ids=np.arange(200) * 2)
    return made


def with_value(value: float, row: int, column: int = 1, n: int = 250) -> np.ndarray:
    rows = np.ones((n, 4), np.float32)
    rows[row, column] = value
    return rows


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 63, 64, 249])
def test_what_is_not_finite_is_named_by_row(
    value: float, row: int, index: fr.Index, isa: str
) -> None:
    before = index.search(ROWS[:3], 5)
    for column in range(4):
        bad = with_value(value, row, column)
        with pytest.raises(ValueError, match=f"vectors hold a value .* in row {row}; nothing was"):
            index.add(bad)
        with pytest.raises(ValueError, match=f"queries hold a value .* not finite in row {row};"):
            index.search(bad)
    if row < 200:
        with pytest.raises(ValueError, match=f"vectors hold a value .* in row {row};"):
            index.update(np.arange(200) * 2, with_value(value, row, n=200))
    assert len(index) == 200
    for now, then in zip(index.search(ROWS[:3], 5), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_first_bad_row_is_named_however_many_there_are(index: fr.Index) -> None:
    bad = np.full((200_000, 4), np.nan, np.float32)
    bad[:1234] = 1
    for _ in range(5):
        with pytest.raises(ValueError, match="in row 1234;"):
            index.add(bad)
        with pytest.raises(ValueError, match="in row 1234;"):
            index.search(bad)
        with pytest.raises(ValueError, match="in row 1234;"):
            fr.normalize(bad)


def test_the_row_is_counted_over_all_that_was_added() -> None:
    index = fr.Index(4)
    index.add(ROWS[:5])  # leaves room for some of the next rows
    bad = np.ones((5000, 4), np.float32)
    bad[4000, 2] = np.nan
    with pytest.raises(ValueError, match="in row 4000;"):
        index.add(bad)
    assert len(index) == 5


def test_what_float16_cannot_hold_is_refused() -> None:
    index = fr.Index(1, dtype="float16")
    index.add([[65519.0]])
    with pytest.raises(ValueError, match=r"not finite in float16 in row 1;"):
        index.add([[1.0], [65520.0]])
    with pytest.raises(ValueError, match=r"not finite in float32 in row 0;"):
        fr.Index(1).add([[1e39]])


Call = Callable[[fr.Index], object]

VALUE_ERRORS: dict[str, tuple[Call, str]] = {
    "k of 0": (lambda i: i.search(ROWS, 0), "k must be at least 1, got 0"),
    "k below 0": (lambda i: i.search(ROWS, -3), "k must be at least 1, got -3"),
    "k too large": (
        lambda i: i.search(ROWS, 2**31),
        r"k must be in \[1, 2147483647\], got 2147483648",
    ),
    "k beyond any integer": (
        lambda i: i.search(ROWS, 2**70),
        r"k must be in \[1, 2147483647\], got 1180591620717411303424",
    ),
    "threads beyond any integer": (
        lambda i: fr.set_num_threads(2**31),
        r"number of threads must be in \[1, 1024\], got 2147483648",
    ),
    "a metric of many": (
        lambda i: fr.scores(ROWS, ROWS, metric=ROWS),
        "metric must be .*, got arr",
    ),
    "dimension of queries": (
        lambda i: i.search(np.ones((1, 5))),
        "queries have dimension 5 but the index has dimension 4; encode them as",
    ),
    "dimension of rows": (
        lambda i: i.add(np.ones((1, 5))),
        "vectors have dimension 5 but the index has dimension 4",
    ),
    "extend by another kind": (lambda i: i.extend(fr.Index(4)), "of the same dim, .*cosine.* for"),
    "extend by itself": (lambda i: i.extend(i), "200 of 200 ids .*; remove them from one of the"),
    "score_dtype": (
        lambda i: i.search(ROWS, score_dtype="float16"),
        "score_dtype must be float32 or float64, got 'float16'",
    ),
    "an id twice": (lambda i: i.add(ROWS[:3], ids=[7, 9, 7]), "id 7 is given twice"),
    "a known id": (
        lambda i: i.add(ROWS[:3], ids=[1, 4, 6]),
        r"2 of 3 ids are in the index already: 4, 6; use update\(\)",
    ),
    "ids and rows": (
        lambda i: i.add(ROWS[:3], ids=[1]),
        "there must be one id for each vector, got 1 ids for 3 vectors",
    ),
    "rows and ids": (
        lambda i: i.update([0, 2], ROWS[:1]),
        "there must be one vector for each id, got 1 vectors for 2 ids",
    ),
    "a negative id": (
        lambda i: i.add(ROWS[:2], ids=[5, -4]),
        "ids must be 0 or more, got -4 at position 1",
    ),
    "ids in a square": (
        lambda i: i.add(ROWS[:4], ids=[[1, 3], [5, 7]]),
        r"ids must have one dimension, got shape \(2, 2\)",
    ),
    "removed twice": (lambda i: i.remove([2, 2]), "id 2 is given twice"),
    "updated twice": (lambda i: i.update([2, 2], ROWS[:2]), "id 2 is given twice"),
    "too much room": (lambda i: i.reserve(2**63), r"n_rows must be in \[1, 1099511627776\], got 9"),
    "no room": (lambda i: i.reserve(0), "n_rows must be at least 1, got 0"),
    "metric": (
        lambda i: fr.Index(4, metric="euclid"),
        "metric must be cosine, ip, l2 or sqeuclidean, got 'euclid'",
    ),
    "metric of topk": (lambda i: fr.topk(ROWS, ROWS, metric="dot"), "metric must be .*, got 'dot'"),
    "dtype as an object": (
        lambda i: fr.Index(4, dtype=np.float64),
        "dtype must be float32, float16 or bfloat16, got 'float64'",
    ),
    "dtype": (
        lambda i: fr.Index(4, dtype="int8"),
        "dtype must be float32, float16 or bfloat16, got 'int8'",
    ),
    "no dimension": (lambda i: fr.Index(0), "dim must be at least 1, got 0"),
    "too many dimensions": (lambda i: fr.Index(65537), r"dim must be in \[1, 65536\], got 65537"),
    "device": (lambda i: fr.Index(4, device="tpu"), "device must be cpu or cuda, got 'tpu'"),
    "no device": (lambda i: fr.Index(4, device=None), "device must be cpu or cuda, got None"),
    "queries for other rows": (
        lambda i: fr.topk(np.ones((1, 5)), np.ones((2, 4))),
        "queries have dimension 5 but rows have 4",
    ),
    "scores of other rows": (
        lambda i: fr.scores([[1, 2]], [[1]]),
        "queries have dimension 2 but rows have 1",
    ),
    "rows without columns": (
        lambda i: fr.topk(np.ones((1, 0)), np.ones((2, 0))),
        "rows must have at least one column",
    ),
    "no threads": (lambda i: fr.set_num_threads(0), "number of threads must be at least 1, got 0"),
    "too many threads": (
        lambda i: fr.set_num_threads(5000),
        r"number of threads must be in \[1, 1024\], got 5000",
    ),
}

TYPE_ERRORS: dict[str, tuple[Call, str]] = {
    "k": (lambda i: i.search(ROWS, 2.0), r"k must be a whole number, got 2\.0"),
    "k of many": (lambda i: i.search(ROWS, np.arange(2)), r"k must be a whole .*, got array\(\[0"),
    "k of none": (lambda i: i.search(ROWS, None), "k must be a whole number, got None"),
    "k true": (lambda i: i.search(ROWS, True), "k must be a whole number, got True"),
    "dim": (lambda i: fr.Index(2.5), r"dim must be a whole number, got 2\.5"),
    "ids": (
        lambda i: i.add(ROWS[:2], ids=[1.0, 3.0]),
        r"ids must be integers, .*, got \[1\.0, 3\.0\]",
    ),
    "ids of truth": (lambda i: i.remove([True]), r"ids must be integers, .*, got \[True\]"),
    "ids of text": (lambda i: i.get(["a"]), r"ids .*, got \[.a.\]; keep names in a list"),
    "radius": (lambda i: i.range_search(ROWS, None), "radius must be a number, got None"),
    "radius of many": (lambda i: i.pairs([1, 2]), r"radius must be a number, got \[1, 2\]"),
    "n_rows": (lambda i: i.reserve(1.5), r"n_rows must be a whole number, got 1\.5"),
    "threads": (lambda i: fr.set_num_threads(1.5), r"threads must be a whole number, got 1\.5"),
    "load": (lambda i: fr.Index.load(3), "path must be the name of a file, .* got 3"),
    "save": (lambda i: i.save(None), "path must be the name of a file, .* got None"),
    "read_vectors": (lambda i: fr.read_vectors(3), "path must be the name of a file, .* got 3"),
    "write_vectors": (lambda i: fr.write_vectors(ROWS, "a.npy"), "must be the name .* got array"),
    "where of text": (lambda i: i.search(ROWS, 1, where="a = 1"), "where must be .*, got 'a = 1'"),
    "exclude a set": (lambda i: i.search(ROWS, 1, exclude={2, 4}), r"exclude .* got \{2, 4\}"),
    "extend": (
        lambda i: i.extend(ROWS),
        r"extend\(\) takes an Index .* got ndarray; add\(\) takes",
    ),
}

KEY_ERRORS: dict[str, tuple[Call, str]] = {
    "get": (lambda i: i.get([2, 3, 5]), "2 of 3 ids are not in the index: 3, 5"),
    "remove": (lambda i: i.remove([2, 1]), "1 of 2 ids are not in the index: 1"),
    "update": (lambda i: i.update([10**12], ROWS[:1]), "not in the index: 1000000000000"),
    "many": (lambda i: i.get(np.arange(1, 99, 2)), "49 of 49 ids .*: 1, 3, 5, 7, 9"),
}

ALL = [
    (kind, name, *entry)
    for kind, table in (
        (ValueError, VALUE_ERRORS),
        (TypeError, TYPE_ERRORS),
        (KeyError, KEY_ERRORS),
    )
    for name, entry in table.items()
]


@pytest.mark.parametrize(
    ("kind", "call", "message"),
    [(kind, call, message) for kind, _, call, message in ALL],
    ids=[f"{kind.__name__}-{name}" for kind, name, *_ in ALL],
)
def test_the_message_and_the_index_unchanged(
    kind: type[Exception], call: Call, message: str, index: fr.Index
) -> None:
    ids, rows, bytes_before = index.ids, index.get(index.ids), index.nbytes
    with pytest.raises(kind, match=message):
        call(index)
    np.testing.assert_array_equal(index.ids, ids)
    np.testing.assert_array_equal(index.get(ids), rows)
    assert index.nbytes == bytes_before
    assert index.add(ROWS[:1]).tolist() == [399]


@pytest.mark.parametrize("what", [None, "a", 2.5, [2], np.arange(3), -1, 2**80, 1])
def test_what_is_no_id_is_not_in_the_index(what: object, index: fr.Index) -> None:
    assert what not in index
    assert 2 in index
    assert np.int64(2) in index


def test_a_dtype_may_be_an_object() -> None:
    assert fr.Index(4, dtype=np.float16).dtype == "float16"


def test_a_missing_backend_says_why() -> None:
    cuda = next(backend for backend in fr.backends() if backend.name == "cuda")
    if cuda.available:
        pytest.skip("this machine has a GPU")
    with pytest.raises(fr.BackendUnavailable, match=f"cuda: {cuda.reason}"):
        fr.Index(4, device="cuda")


def test_backends_are_listed() -> None:
    cpu = fr.backends()[0]
    assert (cpu.name, cpu.available) == ("cpu", True)
    assert cpu.instruction_set in _core.instruction_sets()


# A wrong type or layout that gets past Python is an error of the core too, never a crash.
def segment(n_strips: int) -> _core.Segment:
    """Three rows, without codes."""
    rows = np.ones((3, 2), np.float32)
    return _core.Segment(
        rows=rows, codes=0, n_strips=n_strips, ids=0, first_id=0, live=0, owner=None
    )


CORE: dict[str, tuple[Callable[[Any], object], str]] = {
    "float64": (
        lambda b: b.ingest(np.ones((2, 2)), out=0, dtype="float32"),
        "rows must hold float32, float16 or the bits of bfloat16, got float64",
    ),
    "one dimension": (
        lambda b: b.ingest(np.ones(2, np.float32), out=0, dtype="float32"),
        "rows must have two dimensions, got 1",
    ),
    "columns": (
        lambda b: b.ingest(np.ones((2, 4), np.float32)[:, ::2], out=0, dtype="float32"),
        "rows must be adjacent within a row",
    ),
    "a list": (
        lambda b: b.ingest([[1.0]], out=0, dtype="float32"),
        "rows must be a NumPy array, got list",
    ),
    "a short tuple": (
        lambda b: b.ingest((0, "float32"), out=0, dtype="float32"),
        r"rows must be \(address, dtype, n_rows, dim, stride\), got 2 parts",
    ),
    "strips": (
        lambda b: b.encode(np.ones((63, 4), np.float32), metric="ip", n_strips=1, codes=0),
        "1 strips need 64 rows, got 63",
    ),
    "labels": (
        lambda b: b.cluster_sums(np.ones((2, 2), np.float32), np.array([0, 3]), 3),
        r"label 3 of row 1 is not in \[0, 3\)",
    ),
    "label count": (
        lambda b: b.cluster_sums(np.ones((2, 2), np.float32), np.array([0]), 3),
        "need one label a row, got 1 for 2",
    ),
    "layers": (
        lambda b: b.fuse([], weigh=True, out=0, dtype="float32"),
        "at least one layer",
    ),
    "segment strips": (lambda b: segment(n_strips=1), "a segment of 3 rows cannot have 1 strips"),
    "segment of strips below zero": (lambda b: segment(n_strips=-1), "cannot have -1 strips"),
    "segment of another dim": (
        lambda b: _core.Segments("ip", 3, [segment(n_strips=0)]),
        "a segment has dim 2 in an index of dim 3",
    ),
    "segment dim": (lambda b: _core.Segments("ip", 0, []), r"dim must be in \[1, 65536\], got 0"),
    "masks": (
        lambda b: _core.Segments("ip", 2, []).masked([1], [1], None),
        "need a mask for each of 0 segments, got 1",
    ),
    "dims": (
        lambda b: b.search(
            np.ones((1, 3), np.float32), _core.Segments("ip", 2, []), 1, _core.Counters(), True
        ),
        "queries have dim 3 but the index has dim 2",
    ),
}


@pytest.mark.parametrize("name", CORE)
def test_the_core_checks_what_python_should_have(name: str) -> None:
    call, message = CORE[name]
    with pytest.raises(_core.Error, match=message):
        call(_core.CpuBackend())


ENVIRONMENT = {
    "FASTRETRIEVE_ISA=avx1024": "instruction set 'avx1024' is not available here; this machine has",
    "FASTRETRIEVE_NUM_THREADS=0": "FASTRETRIEVE_NUM_THREADS must be a positive number, got '0'",
    "FASTRETRIEVE_NUM_THREADS=two": "FASTRETRIEVE_NUM_THREADS must be a positive number, got 'two'",
}


@pytest.mark.parametrize("setting", ENVIRONMENT)
def test_a_wrong_setting_of_the_environment(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*setting.split("="))
    code = "import fastretrieve as fr; fr.topk([[1.0]], [[1.0]])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert ENVIRONMENT[setting] in done.stderr


def test_the_environment_chooses_instruction_set_and_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTRETRIEVE_ISA", "scalar")
    monkeypatch.setenv("FASTRETRIEVE_NUM_THREADS", "3")
    code = "import fastretrieve as fr; print(fr.backends()[0].instruction_set, fr.num_threads())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["scalar", "3"]
