"""The other libraries that find nearest vectors by brute force, each used as its manual says.

A peer is built once (its copy of the rows, its norms) and then called: queries in, ids out.
Queries of a cosine case are unit vectors already, so that a peer's inner product is the cosine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.metric import is_distance
from fastretrieve.benchmarking.cases import Data, Matrix

Ids = NDArray[np.int64]
Search = Callable[[Matrix, int], Ids]  # queries, k -> ids [n_queries, k]

SCORE_MATRIX_BYTES = 1 << 30  # torch scores the queries in parts, so that its matrix stays below


def version_of(distribution: str) -> str | None:
    """The installed version, found without importing it; None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


class NotApplicable(Exception):
    """The peer has no such metric."""


@dataclass(frozen=True)
class Peer:
    name: str
    distribution: str
    also_single: bool  # measure it with one thread too, and let the better one count
    build: Callable[[Data, str, int], Search]  # data, metric, threads


def faiss_flat(data: Data, metric: str, threads: int) -> Search:
    import faiss

    index = (faiss.IndexFlatL2 if is_distance(metric) else faiss.IndexFlatIP)(data.rows.shape[1])
    index.add(data.rows)

    def search(queries: Matrix, k: int) -> Ids:
        faiss.omp_set_num_threads(threads)
        ids: Ids = index.search(queries, k)[1]
        return ids

    return search


def usearch_exact(data: Data, metric: str, threads: int) -> Search:
    from usearch.index import search as exact_search

    kind = "l2sq" if is_distance(metric) else "ip"

    def search(queries: Matrix, k: int) -> Ids:
        found = exact_search(data.rows, queries, k, kind, exact=True, threads=threads)
        return np.asarray(found.keys).astype(np.int64).reshape(len(queries), -1)

    return search


def torch_matmul(data: Data, metric: str, threads: int) -> Search:
    import torch

    rows = torch.from_numpy(data.rows)
    # Larger is nearer: |q - x|^2 = |q|^2 - 2 (q.x - |x|^2 / 2).
    bias = -(rows.double() ** 2).sum(1).float() / 2 if is_distance(metric) else None
    part = max(1, SCORE_MATRIX_BYTES // (4 * len(rows)))

    def search(queries: Matrix, k: int) -> Ids:
        torch.set_num_threads(threads)
        found = []
        for start in range(0, len(queries), part):
            some = torch.from_numpy(queries[start : start + part])
            scores = some @ rows.T if bias is None else torch.addmm(bias, some, rows.T)
            found.append(scores.topk(k).indices)
        ids: Ids = torch.cat(found).numpy()
        return ids

    return search


def sklearn_brute(data: Data, metric: str, threads: int) -> Search:
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    if metric == "ip":
        raise NotApplicable("scikit-learn has no inner product")
    name = "sqeuclidean" if is_distance(metric) else "cosine"
    neighbours = NearestNeighbors(algorithm="brute", metric=name).fit(data.rows)

    def search(queries: Matrix, k: int) -> Ids:
        with threadpool_limits(threads):
            ids: Ids = neighbours.kneighbors(queries, k, return_distance=False)
        return ids

    return search


PEERS = {
    peer.name: peer
    for peer in (
        # FAISS answers few queries in a loop of its own and many with a matrix product.
        Peer("faiss", "faiss-cpu", True, faiss_flat),
        Peer("usearch", "usearch", False, usearch_exact),
        Peer("torch", "torch", False, torch_matmul),
        Peer("scikit-learn", "scikit-learn", False, sklearn_brute),
    )
}
