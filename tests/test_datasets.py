"""Finding Fashion-MNIST: in folders, by download, with checksums; and what stands in for it."""

import gzip
import hashlib
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fastretrieve.data import fashion_mnist as datasets
from fastretrieve.data.fashion_mnist import SUFFIX, DatasetError


def idx(array: np.ndarray) -> bytes:
    sizes = np.array(array.shape, ">u4").tobytes()
    return b"\x00\x00\x08" + bytes([array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with four small files, whose checksums are the expected ones."""
    rng = np.random.default_rng(3)
    arrays = {
        "train-images-idx3": rng.integers(0, 256, (20, 4, 5)),
        "train-labels-idx1": np.arange(20) % 10,
        "t10k-images-idx3": rng.integers(0, 256, (12, 4, 5)),
        "t10k-labels-idx1": np.arange(12) % 10,
    }
    folder = tmp_path / "served"
    folder.mkdir()
    for name, array in arrays.items():
        (folder / f"{name}{SUFFIX}").write_bytes(gzip.compress(idx(array)))
    sums = {name: hashlib.sha256(idx(array)).hexdigest() for name, array in arrays.items()}
    monkeypatch.setattr(datasets, "CHECKSUMS", sums)
    monkeypatch.setattr(datasets, "DEBIAN_FOLDER", tmp_path / "no-package")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTRETRIEVE_DATA", raising=False)
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url(small: Path) -> Iterator[str]:
    """The folder, served on the loopback address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(small)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_idx_reads_what_was_written() -> None:
    array = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(datasets.parse_idx(idx(array)), array)


BROKEN = {
    "empty": (b"", "not an IDX file"),
    "floats": (b"\x00\x00\x0d\x01" + bytes(8), "not an IDX file"),
    "no sizes": (b"\x00\x00\x08\x03\x00", "needs 16 bytes, got 5"),
    "too short": (idx(np.zeros(9))[:-1], r"shape \(9,\) has 17 bytes, got 16"),
    "too long": (idx(np.zeros(9)) + b"x", r"has 17 bytes, got 18"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_idx_file_says_what_is_wrong(name: str) -> None:
    data, message = BROKEN[name]
    with pytest.raises(DatasetError, match=message):
        datasets.parse_idx(data)


def test_a_named_folder_comes_first(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert datasets.find_fashion_mnist() is None
    monkeypatch.setenv("FASTRETRIEVE_DATA", str(small))
    assert datasets.find_fashion_mnist() == small
    pictures = datasets.load_fashion_mnist(small)
    assert pictures.gallery.images.shape == (20, 4, 5)
    assert pictures.queries.labels.tolist() == [*range(10), 0, 1]


def test_a_folder_with_a_file_missing_is_not_it(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small / f"t10k-labels-idx1{SUFFIX}").unlink()
    monkeypatch.setenv("FASTRETRIEVE_DATA", str(small))
    assert datasets.find_fashion_mnist() is None


def test_other_bytes_are_refused(small: Path) -> None:
    (small / f"t10k-labels-idx1{SUFFIX}").write_bytes(gzip.compress(idx(np.zeros(12))))
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1 has SHA-256 .* delete it"):
        datasets.load_fashion_mnist(small)


@pytest.mark.parametrize("data", [b"not gzip", gzip.compress(b"x" * 99)[:-12]])
def test_a_file_that_is_no_gzip_is_refused(data: bytes) -> None:
    with pytest.raises(DatasetError, match="not a whole gzip file"):
        datasets.verified(data, name="train-images-idx3")


def test_a_download_lands_in_the_cache_and_is_found(url: str) -> None:
    folder = datasets.download_fashion_mnist(url=url)
    assert datasets.find_fashion_mnist() == folder == datasets.cache_folder()
    assert len(list(folder.iterdir())) == 4  # no partial files
    assert len(datasets.load_fashion_mnist(folder).gallery.labels) == 20


def test_a_download_goes_on_where_it_stopped(url: str, small: Path) -> None:
    folder = datasets.download_fashion_mnist(url=url)
    for path in small.iterdir():
        path.unlink()  # nothing is left to fetch
    (folder / "unrelated").touch()
    assert datasets.download_fashion_mnist(url=url) == folder


def test_a_tampered_download_is_not_kept(url: str, small: Path) -> None:
    for path in small.iterdir():
        path.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DatasetError, match="SHA-256"):
        datasets.download_fashion_mnist(url=url)
    assert list(datasets.cache_folder().iterdir()) == []


def test_a_download_that_fails_names_the_address(small: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot download http://127\.0\.0\.1:9/"):
        datasets.download_fashion_mnist(url="http://127.0.0.1:9", timeout=2)


def test_places_are_tried_in_turn_and_all_but_the_last_may_fail(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(place.startswith("https://") for place in datasets.DOWNLOAD_URLS)
    assert len(datasets.DOWNLOAD_URLS) > 1
    monkeypatch.setattr(datasets, "DOWNLOAD_URLS", ("http://127.0.0.1:9", f"{url}/no", url))
    assert datasets.find_fashion_mnist() is None
    assert datasets.fetch_fashion_mnist() == datasets.find_fashion_mnist()


def fake_programs(folder: Path, monkeypatch: pytest.MonkeyPatch, *, apt: str, deb: str) -> None:
    """Programs of these names, found before those of the system."""
    folder.mkdir()
    for name, script in (("apt-get", apt), ("dpkg-deb", deb)):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "DOWNLOAD_URLS", ("http://127.0.0.1:9",))


# It has no lists of packages until it has fetched its own, as in a slim image.
NO_LISTS = """
case "$*" in
  *update*) touch fetched;;
  *) test -e fetched || { echo "E: Unable to locate package" >&2; exit 100; }
     touch dataset-fashion-mnist_1_all.deb;;
esac"""


def test_where_no_place_answers_the_debian_package_is_unpacked(
    small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nowhere(monkeypatch)
    monkeypatch.setattr(datasets, "DEBIAN_FOLDER", Path("/usr/share/datasets/fashion-mnist"))
    unpack = f"mkdir -p $3/usr/share/datasets && cp -r {small} $3/usr/share/datasets/fashion-mnist"
    fake_programs(tmp_path / "bin", monkeypatch, apt=NO_LISTS, deb=unpack)
    folder = datasets.fetch_fashion_mnist()
    assert folder == datasets.cache_folder()
    assert len(datasets.load_fashion_mnist(folder).gallery.labels) == 20


def test_a_package_with_other_bytes_is_not_kept(
    small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nowhere(monkeypatch)
    for path in small.iterdir():
        path.write_bytes(gzip.compress(b"something else"))
    monkeypatch.setattr(datasets, "DEBIAN_FOLDER", Path("/usr/share/datasets/fashion-mnist"))
    unpack = f"mkdir -p $3/usr/share/datasets && cp -r {small} $3/usr/share/datasets/fashion-mnist"
    fake_programs(tmp_path / "bin", monkeypatch, apt=NO_LISTS, deb=unpack)
    with pytest.raises(DatasetError, match="SHA-256"):
        datasets.fetch_fashion_mnist()
    assert list(datasets.cache_folder().iterdir()) == []


FAILING = {
    "no apt": ("exit 1", "apt-get: exit status 1"),
    "no network": ("echo 'E: Failed to fetch' >&2; exit 100", "apt-get: E: Failed to fetch"),
    "nothing downloaded": ("exit 0", r"downloaded no dataset-fashion-mnist_"),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_package_that_cannot_be_had_says_both_reasons(
    name: str, small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nowhere(monkeypatch)
    script, reason = FAILING[name]
    fake_programs(tmp_path / "bin", monkeypatch, apt=script, deb="exit 0")
    with pytest.raises(DatasetError, match=rf"cannot download .*; .*{reason}"):
        datasets.fetch_fashion_mnist()


def test_without_apt_the_missing_program_is_named(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere(monkeypatch)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DatasetError, match="needs apt-get, which is not here"):
        datasets.fetch_fashion_mnist()


def test_the_command_says_where_it_is(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere(monkeypatch)
    monkeypatch.setenv("PATH", "")
    assert datasets.main([]) == 1
    assert "cannot download" in capsys.readouterr().err
    monkeypatch.setenv("FASTRETRIEVE_DATA", str(small))
    assert datasets.main([]) == 0
    assert str(small) in capsys.readouterr().out


def test_digits_stand_in() -> None:
    pytest.importorskip("sklearn")
    pictures = datasets.load_digits()
    assert pictures.name == "digits"
    assert len(pictures.gallery.images) + len(pictures.queries.images) == 1797
    assert pictures.gallery.images.max() == 255


def test_the_stand_in_says_what_it_is_and_asks_with_digits_of_its_own() -> None:
    pytest.importorskip("sklearn")
    digits, pictures = datasets.load_digits(), datasets.load_stand_in(n_shown=40, n_asked=20)
    assert "scikit-learn's digits: turned, moved" in pictures.source
    assert pictures.gallery.images.shape == (40, 32, 32)
    assert pictures.gallery.labels.tolist() == digits.gallery.labels[:40].tolist()
    assert pictures.queries.labels.tolist() == digits.queries.labels[:20].tolist()
    again = datasets.load_stand_in(n_shown=40, n_asked=20)
    np.testing.assert_array_equal(again.gallery.images, pictures.gallery.images)


def test_without_scikit_learn_the_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DatasetError, match=r"dataset-fashion-mnist.*FASTRETRIEVE_DATA"):
        datasets.load_digits()
