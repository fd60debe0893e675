"""Find the real pictures that the demo and the benchmarks use.

Fashion-MNIST comes from the installed Debian package ``dataset-fashion-mnist``, from a folder named
by ``FASTRETRIEVE_DATA``, from a download into the user's cache, or from that package without
installing it (``debian.py``). A file counts only if its decompressed bytes have the known SHA-256:
repackaging changes the compressed bytes, never these. If it is unavailable, scikit-learn's digits
stand in (``stand_in.py``), and the ``name`` says so.
"""

import argparse
import gzip
import hashlib
import http.client
import io
import os
import sys
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common import caches
from fastretrieve._common.needs import remedy
from fastretrieve.data import debian, idx
from fastretrieve.data.errors import DataError
from fastretrieve.data.stand_in import cluttered

DOWNLOAD_URLS = (
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    "https://fashion-mnist.s3.eu-central-1.amazonaws.com",
)
DOWNLOAD_MB = 30
MAX_BYTES = 64 << 20  # of a file, packed or not: the largest has 47 MB
PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

SUFFIX = "-ubyte.gz"

# SHA-256 of each file's decompressed bytes.
CHECKSUMS = {
    "t10k-images-idx3": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    "train-images-idx3": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
}


class DatasetError(RuntimeError):
    """A data set is missing or its bytes are not the known ones."""


class Split(NamedTuple):
    images: NDArray[np.uint8]  # [n, height, width]
    labels: NDArray[np.int64]  # [n]


class Pictures(NamedTuple):
    """A data set: what is indexed, what is asked, and where it came from."""

    name: str
    source: str
    gallery: Split
    queries: Split
    label_names: tuple[str, ...]


def parse_idx(data: bytes) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes."""
    try:
        header = idx.read_header(data[: 4 + 4 * 255])
        if header.dtype != np.uint8:
            raise DatasetError(f"not an IDX file of bytes: it holds {header.dtype}")
        idx.refuse_size(header, len(data))
    except DataError as error:
        raise DatasetError(str(error)) from error
    return np.frombuffer(data, np.uint8, offset=header.start).reshape(header.shape)


def verified(compressed: bytes, *, name: str) -> bytes:
    """Decompress ``name`` and compare it with its checksum."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(compressed)) as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{name} is not a whole gzip file: {error}") from error
    if len(data) > MAX_BYTES:
        raise DatasetError(f"{name} holds more than {MAX_BYTES} bytes; delete it and try again")
    digest = hashlib.sha256(data).hexdigest()
    if digest != CHECKSUMS[name]:
        raise DatasetError(
            f"{name} has SHA-256 {digest}, expected {CHECKSUMS[name]}; delete it and try again"
        )
    return data


def cache_folder() -> Path:
    """Where downloads are kept."""
    return caches.folder() / "fashion-mnist"


def _folders() -> Iterator[Path]:
    if named := os.environ.get("FASTRETRIEVE_DATA"):
        yield Path(named)
        yield Path(named) / "fashion-mnist"
    yield DEBIAN_FOLDER
    yield cache_folder()


def find_fashion_mnist() -> Path | None:
    """The first folder that holds all four files, or None."""
    for folder in _folders():
        if all((folder / f"{name}{SUFFIX}").is_file() for name in CHECKSUMS):
            return folder
    return None


def fetch_fashion_mnist() -> Path:
    """Fetch the four files into the user's cache, from the first place that has them."""
    try:
        return download_fashion_mnist()
    except (DatasetError, OSError) as error:
        failed = str(error)
    try:
        return unpack_fashion_mnist()
    except DatasetError as error:
        raise DatasetError(f"{failed}; {error}") from error


def download_fashion_mnist(
    folder: Path | None = None, *, url: str | None = None, timeout: float = 10.0
) -> Path:
    """Fetch the four files over TLS into ``folder`` (the user's cache), from ``url`` or from each
    of ``DOWNLOAD_URLS`` in turn; each is verified, then renamed.
    """
    folder = folder or cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for place in (url,) if url else DOWNLOAD_URLS:
        try:
            for name in CHECKSUMS:
                if not (folder / f"{name}{SUFFIX}").is_file():
                    _keep(folder, name, _downloaded(f"{place}/{name}{SUFFIX}", timeout))
            return folder
        except DatasetError as error:
            failed.append(str(error))
    raise DatasetError("; ".join(failed))


def unpack_fashion_mnist(folder: Path | None = None) -> Path:
    """Take the four files out of the Debian package, without root; each is verified."""
    folder = folder or cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [DEBIAN_FOLDER / f"{name}{SUFFIX}" for name in CHECKSUMS]
    try:
        found = debian.files(PACKAGE, paths)
    except debian.NoPackage as error:
        raise DatasetError(str(error)) from error
    for name in CHECKSUMS:
        _keep(folder, name, found[f"{name}{SUFFIX}"])
    return folder


def _downloaded(url: str, timeout: float) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            data: bytes = response.read(MAX_BYTES)
            return data
    except (OSError, http.client.HTTPException) as error:
        raise DatasetError(f"cannot download {url}: {error}") from error


def _keep(folder: Path, name: str, compressed: bytes) -> None:
    """Write a verified file whole or not at all."""
    verified(compressed, name=name)
    target = folder / f"{name}{SUFFIX}"
    partial = target.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(compressed)
    partial.replace(target)


def load_fashion_mnist(folder: Path) -> Pictures:
    """60,000 training images as the gallery, 10,000 test images as the queries, 28 x 28 grey."""

    def read(name: str) -> NDArray[np.uint8]:
        return parse_idx(verified((folder / f"{name}{SUFFIX}").read_bytes(), name=name))

    def split(prefix: str) -> Split:
        images = read(f"{prefix}-images-idx3")
        return Split(images, read(f"{prefix}-labels-idx1").astype(np.int64))

    return Pictures("Fashion-MNIST", str(folder), split("train"), split("t10k"), LABELS)


def load_digits() -> Pictures:
    """scikit-learn's 1,797 digits of 8 x 8: every fifth is a query."""
    try:
        from sklearn.datasets import load_digits as sklearn_digits
    except ImportError as error:
        raise DatasetError(
            "no Fashion-MNIST here and no scikit-learn for its digits; install the Debian package "
            "dataset-fashion-mnist, or name a folder with its four files in FASTRETRIEVE_DATA, or "
            f"{remedy('digits')}"
        ) from error
    bunch = sklearn_digits()
    images = (bunch.images * (255 / 16)).round().astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    asked = np.arange(len(images)) % 5 == 0
    return Pictures(
        "digits",
        "scikit-learn",
        Split(images[~asked], labels[~asked]),
        Split(images[asked], labels[asked]),
        tuple(str(digit) for digit in range(10)),
    )


def load_stand_in(*, n_shown: int = 30_000, n_asked: int = 3_000) -> Pictures:
    """The digits, turned, moved and cluttered; queries are made of digits that are not searched."""
    digits = load_digits()
    shown = cluttered(*digits.gallery, n_shown, seed=0)
    asked = cluttered(*digits.queries, n_asked, seed=1)
    return Pictures(
        "cluttered digits",
        f"made of {len(digits.gallery.labels):,} and {len(digits.queries.labels)} of "
        "scikit-learn's digits: turned, moved, among pieces of others",
        Split(*shown),
        Split(*asked),
        digits.label_names,
    )


def main(argv: list[str] | None = None) -> int:
    """Say where Fashion-MNIST is, fetching it if needed: ``python -m`` this module."""
    parser = argparse.ArgumentParser(
        prog="python -m fastretrieve.data.fashion_mnist", description=main.__doc__
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing if it is here")
    options = parser.parse_args(argv)
    if folder := find_fashion_mnist():
        if not options.quiet:
            print(f"Fashion-MNIST: {folder}")
        return 0
    print(f"Fashion-MNIST: not here; downloading about {DOWNLOAD_MB} MB into {cache_folder()}")
    try:
        fetch_fashion_mnist()
    except (DatasetError, OSError) as error:
        print(f"Fashion-MNIST: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
