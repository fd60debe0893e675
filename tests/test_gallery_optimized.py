"""Galleries optimize the index files that they merge."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

import fastretrieve as fr
from fastretrieve._state import optimizing
from fastretrieve.gallery import Gallery
from fastretrieve.gallery.store import memory
from fastretrieve.gallery.store.vectors import Vectors
from gallery_helpers import new_gallery, picture
from screens import covered_ids, screen_of, slots_in_strips


@pytest.fixture(autouse=True)
def of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen for as few rows as a test has."""

    def make(state: Any, progress: Any) -> Any:
        enough = len(slots_in_strips(state)) >= 64
        return (screen_of(state), "it is a test") if enough else (None, "too few")

    monkeypatch.setattr(optimizing, "make_screen", make)


def filled(folder: Path) -> Gallery:
    """A gallery with two index files, the second of two commits."""
    gallery = new_gallery(folder)
    gallery.add([picture(i) for i in range(384)], commit_seconds=0, batch_size=64)
    assert [len(file) for file in files(gallery)] == [256, 128]
    return gallery


def files(gallery: Gallery) -> list[fr.Index]:
    paths = sorted((Path(gallery.path) / "vectors").iterdir())
    return sorted((fr.Index.load(path, verify="codes") for path in paths), key=lambda i: i.ids[0])


def test_the_first_file_is_optimized_when_others_join_it(tmp_path: Path) -> None:
    with filled(tmp_path / "g") as gallery:
        first, last = files(gallery)
        assert covered_ids(first) == first.ids.tolist()
        assert covered_ids(last) == []
        assert gallery.check() == []
        with gallery._storage.vectors.view() as view:
            assert covered_ids(view.index) == covered_ids(first)
        assert int(gallery.search(picture(7), k=1).ids[0]) == gallery.items()[7].id


def test_what_is_forgotten_leaves_no_codes(tmp_path: Path) -> None:
    with filled(tmp_path / "g") as gallery:
        first, *_ = files(gallery)
        screen = first._state.screen
        assert screen is not None
        position = 5
        gone = int(first.ids[screen.places[position]])
        codes = screen.arrays["screen_records"][position].tobytes()[16:80]
        assert any(codes in path.read_bytes() for path in (tmp_path / "g/vectors").iterdir())
        gallery.forget([gone])
        assert not any(codes in path.read_bytes() for path in (tmp_path / "g/vectors").iterdir())
        first, *_ = files(gallery)
        assert gone not in first.ids
        assert len(covered_ids(first)) == 192  # of 255
        assert gallery.check() == []


def test_a_gallery_that_exceeds_memory_is_merged_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Vectors, "_fits_memory", lambda self, n_rows: False)
    with filled(tmp_path / "g") as gallery:
        assert not any(file._state.screen for file in files(gallery))
        assert gallery.check() == []


def test_the_least_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", [str(tmp_path / "a"), str(tmp_path / "b")])
    machine = memory.most_bytes()
    assert machine > 1 << 20
    (tmp_path / "a").write_text("max\n")
    assert memory.most_bytes() == machine
    (tmp_path / "b").write_text("5000\n")
    assert memory.most_bytes() == 5000
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (4000, resource.RLIM_INFINITY))
    assert memory.most_bytes() == 4000
