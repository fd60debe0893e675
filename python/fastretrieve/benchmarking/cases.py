"""The data of the benchmarks, the same bits on every machine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.metric import Metric
from fastretrieve.data import fashion_mnist as datasets

Matrix = NDArray[np.float32]

N_QUERIES = 1024
SEED = 20240131


class Data(NamedTuple):
    rows: Matrix  # [n_rows, dim]
    queries: Matrix  # [n_queries, dim]


class CaseUnavailable(Exception):
    """The data of a case is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Case:
    name: str
    about: str
    metric: Metric
    n_rows: int
    dim: int
    make: Callable[[int, int], Data]  # n_rows, dim

    def load(self) -> Data:
        """Make the data: seconds for the large cases."""
        return self.make(self.n_rows, self.dim)

    def smaller(self, n_rows: int) -> "Case":
        """The same case with at most ``n_rows`` rows."""
        if n_rows >= self.n_rows:
            return self
        return Case(self.name, self.about, self.metric, n_rows, self.dim, self.make)


def gaussian(n_rows: int, dim: int) -> Data:
    """Independent normal components: the least structure a search can meet."""
    rng = np.random.default_rng(SEED)
    queries = rng.standard_normal((N_QUERIES, dim), dtype=np.float32)
    return Data(rng.standard_normal((n_rows, dim), dtype=np.float32), queries)


def clustered(n_rows: int, dim: int) -> Data:
    """Unit vectors around 1,000 centres, as embeddings of classes are."""
    rng = np.random.default_rng(SEED)
    centres = rng.standard_normal((1000, dim), dtype=np.float32)

    def draw(n: int) -> Matrix:
        vectors = rng.standard_normal((n, dim), dtype=np.float32)
        vectors *= np.float32(0.6)
        vectors += centres[rng.integers(0, len(centres), n)]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    return Data(rows=draw(n_rows), queries=draw(N_QUERIES))


def fashion_mnist(n_rows: int, dim: int) -> Data:
    """Raw pixels of Fashion-MNIST: the training images searched by the test images."""
    folder = datasets.find_fashion_mnist()
    if folder is None:
        raise CaseUnavailable(
            "Fashion-MNIST is not on this machine; install the Debian package "
            "dataset-fashion-mnist or run `python -m fastretrieve.data.fashion_mnist`"
        )
    pictures = datasets.load_fashion_mnist(folder)
    rows = pictures.gallery.images.reshape(-1, dim)[:n_rows].astype(np.float32)
    queries = pictures.queries.images.reshape(-1, dim)[:N_QUERIES].astype(np.float32)
    return Data(rows, queries)


GAUSSIAN = Case("gaussian", "1M x 128, normal", "ip", 1_000_000, 128, gaussian)
CLUSTERED = Case("clustered", "200k x 768, 1,000 clusters", "cosine", 200_000, 768, clustered)
FASHION = Case("fashion-mnist", "60k x 784, raw pixels", "l2", 60_000, 784, fashion_mnist)
TINY = Case("tiny", "1,000 x 128, normal", "ip", 1_000, 128, gaussian)

CASES = {case.name: case for case in (GAUSSIAN, CLUSTERED, FASHION, TINY)}
QUICK_ROWS = 20_000
