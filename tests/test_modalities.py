"""The registry of modalities: a new one is one row, and an unknown one is an error everywhere."""

import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastretrieve.data import DataError, Dataset, Loader, open_dataset, read_item
from fastretrieve.data.modalities import KINDS, ItemKind, Modality, kind_of
from fastretrieve.data.pictures import picture_of
from fastretrieve.data.samples import Sample
from fastretrieve.data.sources import Files, Memory
from fastretrieve.encoders import protocol
from fastretrieve.encoders.base import TorchEncoder
from fastretrieve.encoders.registry import instance_faults
from fastretrieve.gallery import Gallery, GalleryError


def decode_numbers(source: Any, *, name: Any, size: Any = None, box: Any = None) -> Any:
    text = source.read_bytes() if isinstance(source, Path) else source.read()
    try:
        return np.array(text.split(), np.float32), (None, None)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error


def numbers_picture(item: Any) -> Image.Image:
    return Image.fromarray(np.asarray(item, np.uint8)[None])


def sample_numbers(encoder: Any) -> Sample:
    rng = np.random.default_rng(0)
    return Sample([rng.normal(size=5) for _ in range(12)], np.arange(12) % 2)


NUMBERS = ItemKind(
    name="numbers",
    item="a list of numbers",
    items="lists of numbers",
    files="a text file",
    suffixes=frozenset({".num"}),
    decode=decode_numbers,
    picture=numbers_picture,
    sample=sample_numbers,
)


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one row that adds a modality."""
    monkeypatch.setitem(KINDS, "numbers", NUMBERS)


class Moments(TorchEncoder):
    """The mean and the spread of some numbers."""

    name = "moments"
    modality: Any = "numbers"
    capabilities = frozenset()

    def __init__(self) -> None:
        super().__init__(dim=2, config={})

    def preprocess(self, items: Any) -> Any:
        moments = [(np.mean(item), np.std(item)) for item in items]
        return torch.tensor(np.array(moments, np.float32).reshape(-1, 2))

    def embed(self, batch: Any) -> Any:
        return batch


def write_numbers(root: Path) -> Path:
    for label, values in {"low": ("1 2 3", "2 3 4"), "high": ("91 92", "95 98 97 96")}.items():
        (root / label).mkdir(parents=True)
        for i, text in enumerate(values):
            (root / label / f"{i}.num").write_text(text)
    (root / "notes.txt").write_text("no item")
    return root


def test_the_literals_for_type_checkers_name_the_rows_of_the_registry() -> None:
    assert typing.get_args(Modality) == tuple(KINDS)
    assert typing.get_args(protocol.Modality) == tuple(KINDS)
    assert [kind.name for kind in KINDS.values()] == list(KINDS)


@pytest.mark.usefixtures("numbers")
def test_a_data_set_finds_and_reads_items_of_a_new_modality(tmp_path: Path) -> None:
    found: Any = "numbers"
    data = open_dataset(write_numbers(tmp_path), modality=found)
    assert (len(data), data.classes, data.modality) == (4, ("high", "low"), "numbers")
    assert data.read(2).tolist() == [1, 2, 3]
    assert read_item(tmp_path / "low" / "1.num", modality="numbers").tolist() == [2, 3, 4]
    assert picture_of(data.read(2), modality="numbers").size == (3, 1)
    moments = Moments()
    with Loader(data, moments.preprocess, batch_size=3, workers=0) as loader:
        assert [tuple(batch.shape) for batch, *_ in loader] == [(3, 2), (1, 2)]


@pytest.mark.usefixtures("numbers")
@pytest.mark.parametrize("check", ["protocol", "shape", "distinct", "deterministic", "batch"])
def test_an_encoder_of_a_new_modality_is_checked_with_its_samples(check: str) -> None:
    from fastretrieve.encoders.checking.suite import run_check

    assert run_check(check, Moments)


@pytest.mark.usefixtures("numbers")
def test_a_gallery_takes_a_new_modality(tmp_path: Path) -> None:
    root = write_numbers(tmp_path / "in")
    (root / "low" / "bad.num").write_text("one two")
    gallery = Gallery.create(tmp_path / "g", encoder=Moments(), metric="l2")
    added = gallery.add(root)
    assert (added.added, len(added.unreadable)) == (4, 1)
    assert gallery.add(root).unchanged == 4
    found = gallery.search(root / "high" / "1.num", k=2)
    assert [item.label for item in found.items] == ["high", "high"]
    assert gallery.search(np.array([2.0, 3.0]), k=1).items[0].label == "low"
    found.save(tmp_path / "found.png")
    with pytest.raises(GalleryError, match="keeps lists of numbers as files; save each one"):
        gallery.add([np.array([1.0, 2.0])])
    with pytest.raises(GalleryError, match="is a folder"):
        gallery.search(root)
    opened = Gallery.open(tmp_path / "g", encoder=Moments())
    assert opened.check() == []
    assert opened.search(root / "low" / "0.num", k=1).items[0].label == "low"


@pytest.mark.usefixtures("numbers")
def test_results_of_a_new_modality_are_shown_by_its_picture(tmp_path: Path) -> None:
    from fastretrieve.server.pictures import small_picture

    root = write_numbers(tmp_path)
    shown = small_picture(
        root / "low" / "0.num", modality="numbers", box=None, size=64, limit=10_000
    )
    assert shown.startswith(b"\xff\xd8")


def unknown() -> dict[str, Any]:
    array = np.zeros((2, 4, 4), np.uint8)
    other: Any = "smell"
    return {
        "kind_of": lambda: kind_of(other),
        "open_dataset": lambda: open_dataset(array, modality=other),
        "read_item": lambda: read_item("a.png", modality=other),
        "picture_of": lambda: picture_of(array[0], modality=other),
        "Files": lambda: Files([Path("a.png")], modality=other),
        "Dataset": lambda: Dataset(
            Memory(array), labels=np.zeros(2, np.int64), classes=(), modality=other
        ),
        "no text": lambda: kind_of([]),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("place", unknown())
def test_an_unknown_modality_is_an_error_that_lists_the_known_ones(place: str) -> None:
    with pytest.raises(DataError, match=r"modality is one of image, sequence, text, got"):
        unknown()[place]()


def test_a_gallery_never_reads_an_unknown_modality_as_images(tmp_path: Path) -> None:
    from fastretrieve.gallery.intake.reading import Queue

    with pytest.raises(DataError, match="image, sequence"):
        Queue(tmp_path, "smell", [], None)  # type: ignore[arg-type]


def test_an_encoder_of_an_unknown_modality_breaks_the_protocol() -> None:
    (fault,) = instance_faults(Moments())
    assert fault == "modality is one of ['image', 'sequence', 'text'], got 'numbers'"
