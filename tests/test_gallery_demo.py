"""The gallery's part of the demo, on a few pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from fastretrieve.datasets import Pictures, Split
from fastretrieve.gallery import Gallery
from fastretrieve.gallery.demo import build, how_to_go_on


def bars(n: int, seed: int) -> Split:
    """Noisy pictures of an upright or a lying bar, at random places."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (n, 16, 16), np.uint8)
    labels = np.arange(n) % 2
    for image, label in zip(images, labels, strict=True):
        at = rng.integers(2, 13)
        (image.T if label else image)[at : at + 2] = 255
    return Split(images, labels)


def test_it_trains_builds_searches_and_says_so(tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    pictures = Pictures("bars", "here", bars(240, 0), bars(60, 1), ("lying", "upright"))
    built = build(pictures, tmp_path, console=console, epochs=2)
    assert built.accuracy > 0.9
    text = console.export_text()
    assert f"{built.accuracy:.2%}" in text
    assert f"{built.pixels_accuracy:.2%}" in text
    assert (tmp_path / "search.png").exists()
    with Gallery.open(tmp_path / "demo.gallery") as opened:
        assert len(opened) == 240
    assert str(built.gallery.path) in how_to_go_on(built.gallery)
    build(pictures, tmp_path, console=console, epochs=1)  # again, over the first
