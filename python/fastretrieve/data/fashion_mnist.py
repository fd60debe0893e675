"""Find the real pictures that the demo and the benchmarks use.

Fashion-MNIST comes from the Debian package ``dataset-fashion-mnist``, from a folder named by
``FASTRETRIEVE_DATA``, or from a download into the user's cache. A file counts only if its
decompressed bytes have the known SHA-256: repackaging changes the compressed bytes, never these.
If it is unavailable, ``digits`` (part of scikit-learn) stands in, and its ``name`` says so.
"""

import argparse
import gzip
import hashlib
import io
import os
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common import caches
from fastretrieve._common.needs import remedy

DOWNLOAD_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
DOWNLOAD_MB = 30
MAX_BYTES = 64 << 20  # of a file, packed or not: the largest has 47 MB
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
    """Read an IDX file of unsigned bytes: magic, big-endian sizes, then the bytes."""
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise DatasetError(f"not an IDX file of bytes: it begins with {data[:4].hex(' ')}")
    n_dims = data[3]
    header = 4 + 4 * n_dims
    if len(data) < header:
        raise DatasetError(f"an IDX header of {n_dims} sizes needs {header} bytes, got {len(data)}")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", count=n_dims, offset=4))
    wanted = header + int(np.prod(shape, dtype=np.int64))
    if len(data) != wanted:
        raise DatasetError(f"an IDX file of shape {shape} has {wanted} bytes, got {len(data)}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


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


def download_fashion_mnist(
    folder: Path | None = None, *, url: str | None = None, timeout: float = 10.0
) -> Path:
    """Fetch the four files into ``folder`` (the user's cache); each is verified, then renamed."""
    url = url or DOWNLOAD_URL
    folder = folder or cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for name in CHECKSUMS:
        target = folder / f"{name}{SUFFIX}"
        if target.is_file():
            continue
        try:
            with urllib.request.urlopen(f"{url}/{target.name}", timeout=timeout) as response:
                compressed = response.read(MAX_BYTES)
        except (OSError, urllib.error.URLError) as error:
            raise DatasetError(f"cannot download {url}/{target.name}: {error}") from error
        verified(compressed, name=name)
        partial = target.with_suffix(f".{os.getpid()}.part")
        partial.write_bytes(compressed)
        partial.replace(target)
    return folder


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


def main(argv: list[str] | None = None) -> int:
    """Say where Fashion-MNIST is, downloading it if needed: ``python -m`` this module."""
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
        download_fashion_mnist()
    except (DatasetError, OSError) as error:
        print(f"Fashion-MNIST: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
