"""Libraries for approximate search, each built as its manual says, each with one number to tune.

Every library searches by L2; unit vectors rank alike under cosine. ``faiss-pq`` has a second
number, how many candidates it refines, and is measured with two values of it.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench_screen import HNSW, Rows
from fastretrieve.benchmarking.peers import version_of

K = 10
PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WIDTHS = (10, 16, 24, 32, 64, 128, 256, 512)
REFINED = (4, 16)  # times k candidates that a product quantizer hands to float32

Ids = NDArray[np.int64]
Search = Callable[[Rows], Ids]


class Setting(NamedTuple):
    """One value of what is tuned, and a search with it."""

    value: str
    use: Callable[[], Search]


class Contender(NamedTuple):
    """Something that answers queries, at several settings."""

    name: str
    about: str
    version: str
    build_seconds: float  # of CPU
    n_bytes: int  # that it holds, its copy of the rows too
    settings: list[Setting]


class Built(NamedTuple):
    about: str
    settings: list[Setting]


def lists_for(n_rows: int) -> int:
    """How many lists FAISS's guide takes for so many rows."""
    return max(1, min(int(4 * math.sqrt(n_rows)), n_rows // 39))


def hnswlib(rows: Rows, threads: int) -> Built:
    import hnswlib as library

    graph = library.Index("l2", rows.shape[1])
    graph.init_index(len(rows), M=HNSW["M"], ef_construction=HNSW["ef_construction"])
    graph.set_num_threads(threads)
    graph.add_items(rows)

    def use(ef: int) -> Search:
        graph.set_num_threads(1)
        graph.set_ef(ef)
        return lambda queries: graph.knn_query(queries, K)[0].astype(np.int64)

    about = f"M={HNSW['M']}, ef_construction={HNSW['ef_construction']}, ef"
    return Built(about, [Setting(f"ef={ef}", lambda ef=ef: use(ef)) for ef in WIDTHS])


def faiss_ivf(rows: Rows, threads: int) -> Built:
    import faiss

    faiss.omp_set_num_threads(threads)
    n_lists = lists_for(len(rows))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(rows.shape[1]), rows.shape[1], n_lists)
    index.train(rows)
    index.add(rows)

    def use(nprobe: int) -> Search:
        index.nprobe = nprobe
        return lambda queries: index.search(queries, K)[1]

    probes = [n for n in PROBES if n <= n_lists]
    settings = [Setting(f"nprobe={n}", lambda n=n: use(n)) for n in probes]
    return Built(f"IVF{n_lists},Flat, nprobe", settings)


def faiss_pq(rows: Rows, threads: int) -> Built:
    import faiss

    faiss.omp_set_num_threads(threads)
    dim, n_lists = rows.shape[1], lists_for(len(rows))
    n_parts = next(n for n in range(dim // (2 if dim <= 256 else 4), 0, -1) if dim % n == 0)
    name = f"IVF{n_lists},PQ{n_parts}x4fs,RFlat"
    index = faiss.index_factory(dim, name)
    index.train(rows)
    index.add(rows)
    lists = faiss.extract_index_ivf(index.base_index)

    def use(nprobe: int, refined: int) -> Search:
        lists.nprobe, index.k_factor = nprobe, refined
        return lambda queries: index.search(queries, K)[1]

    pairs = [(n, factor) for factor in REFINED for n in PROBES if n <= n_lists]
    settings = [
        Setting(f"nprobe={n}, k_factor={factor}", lambda n=n, factor=factor: use(n, factor))
        for n, factor in pairs
    ]
    return Built(f"{name}, nprobe", settings)


def at_least_64(vectors: Rows) -> Rows:
    """RaBitQLib takes no fewer dimensions; zeros change no distance."""
    missing = 64 - vectors.shape[1]
    if missing <= 0:
        return vectors
    return np.concatenate([vectors, np.zeros((len(vectors), missing), np.float32)], axis=1)


def rabitq_ivf(rows: Rows, threads: int) -> Built:
    import rabitqlib

    rows = at_least_64(rows)
    dim, n_lists = rows.shape[1], lists_for(len(rows))
    kmeans = rabitqlib.QGKMeans(dim, n_lists, num_threads=threads)
    kmeans.train(rows)
    index = rabitqlib.IvfIndex(
        dim=dim, max_elements=len(rows), num_clusters=n_lists, nbits=7, metric="l2"
    )
    index.build(rows, kmeans.centroids, kmeans.assignments, num_threads=threads)

    def use(nprobe: int) -> Search:
        return lambda queries: index.search(at_least_64(queries), K, nprobe=nprobe)[0].astype(int)

    probes = [n for n in PROBES if n <= n_lists]
    settings = [Setting(f"nprobe={n}", lambda n=n: use(n)) for n in probes]
    return Built(f"IvfIndex, {n_lists} clusters, 7 bits, nprobe", settings)


def rabitq_graph(rows: Rows, threads: int) -> Built:
    import rabitqlib

    rows = at_least_64(rows)
    index = rabitqlib.SymqgIndex(rows.shape[1], 32, metric="l2")
    index.build(rows, ef_construction=100, num_threads=threads)

    def use(ef: int) -> Search:
        return lambda queries: index.search(at_least_64(queries), K, ef=ef)[0].astype(int)

    settings = [Setting(f"ef={ef}", lambda ef=ef: use(ef)) for ef in WIDTHS]
    return Built("SymqgIndex, degree 32, ef_construction=100, ef", settings)


def svs_vamana(rows: Rows, threads: int) -> Built:
    import svs

    build = svs.VamanaBuildParameters(alpha=1.2, graph_max_degree=32, window_size=64)
    index = svs.Vamana.build(build, rows, svs.DistanceType.L2, num_threads=threads)

    def use(window: int) -> Search:
        index.num_threads, index.search_window_size = 1, window
        return lambda queries: index.search(queries, K)[0].astype(np.int64)

    settings = [Setting(f"window={n}", lambda n=n: use(n)) for n in WIDTHS]
    # Its compressed vectors (LVQ, LeanVec) end the process where the CPU is not Intel's.
    return Built("Vamana, degree 32, window 64, float32, search window", settings)


# The package that each comes from, and what builds it.
PEERS: dict[str, tuple[str, Callable[[Rows, int], Built]]] = {
    "hnswlib": ("hnswlib", hnswlib),
    "faiss-ivf": ("faiss-cpu", faiss_ivf),
    "faiss-pq": ("faiss-cpu", faiss_pq),
    "rabitq-ivf": ("rabitqlib", rabitq_ivf),
    "rabitq-graph": ("rabitqlib", rabitq_graph),
    "svs": ("scalable-vs", svs_vamana),
}


def built(name: str, rows: Rows, threads: int) -> Contender:
    """Build a peer; its bytes are by how much the process grew."""
    before, begin = held_bytes(), time.process_time()
    package, build = PEERS[name]
    made = build(rows, threads)
    seconds, n_bytes = time.process_time() - begin, held_bytes() - before
    version = f"{package} {version_of(package)}"
    return Contender(name, made.about, version, seconds, n_bytes, made.settings)


def held_bytes() -> int:
    """Bytes of this process in memory, after what is free was given back (on Linux)."""
    gc.collect()
    if os.name != "posix" or not os.path.exists("/proc/self/statm"):
        return 0
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
