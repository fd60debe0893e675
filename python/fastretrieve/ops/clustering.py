"""k-means by exact searches, so that its result is equal on every machine.

Distances come from the search and sums of rows from the backend; seeding is here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._backends.devices import rows_on
from fastretrieve._backends.memory import Array, HostMemory
from fastretrieve._backends.runtime import backend_for
from fastretrieve._common.arguments import whole
from fastretrieve._common.arrays import Rows, as_float, device_of, is_tensor, like
from fastretrieve._common.progress import Progress
from fastretrieve.ops.topk import topk

MIN_SAMPLE = 4096  # rows that seeding draws from, and at least this many for each cluster:
SAMPLE_PER_CLUSTER = 32


class Clusters(NamedTuple):
    """The result of :func:`kmeans`."""

    centroids: Any  # [k, dim] float32
    assignments: Any  # [n_rows] int64
    inertia: float  # sum of the squared distances to the assigned centroids
    iterations: int


def kmeans(
    x: Any, k: int, *, seed: int = 0, max_iterations: int = 25, progress: Progress | None = None
) -> Clusters:
    """Cluster the rows of ``x`` into ``k`` groups by Lloyd's algorithm, with exact assignments.

    The result depends on ``x``, ``k`` and ``seed`` only: not on threads, machine or backend.
    Seeding is k-means++ on a sample; a cluster that loses all rows moves to the row that is
    farthest from its centroid. ``progress`` is called with the iterations that are done and
    the most that there will be; it may raise to stop.

    >>> labels = fr.kmeans([[0.0], [0.1], [9.0], [9.2]], 2).assignments
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """
    device = device_of(x)
    rows = _float32_rows(device, x)
    k = _checked_k(k, rows)
    random = np.random.default_rng(whole(seed, "seed", least=0, most=2**64 - 1))
    max_iterations = whole(max_iterations, "max_iterations")
    backend = backend_for(device)
    memory = backend.memory
    centroids = _seed_centroids(rows, k, random, memory)
    assignments = np.full(len(rows), -1, dtype=np.int64)
    for iteration in range(1, max_iterations + 1):
        here = memory.placed(centroids)
        hits = topk(rows, here, 1, metric="sqeuclidean", score_dtype="float64")
        distances, nearest = (memory.to_host(part)[:, 0] for part in hits)
        settled = bool((nearest == assignments).all())
        assignments = nearest
        if progress is not None:
            progress(iteration, max_iterations)
        if settled or iteration == max_iterations:
            break
        sums, counts = backend.cluster_sums(rows, assignments, k)
        centroids = _moved(centroids, sums, counts)
        _refill(centroids, np.flatnonzero(counts == 0), rows, distances, memory)
    inertia = float(np.cumsum(distances)[-1])  # a fixed order of additions
    found = (centroids, assignments)
    if memory.holds(rows):
        found = (memory.placed(centroids), memory.placed(assignments))
    return Clusters(like(found[0], x), like(found[1], x), inertia, iteration)


def _checked_k(k: Any, rows: Any) -> int:
    n_rows, dim = rows.shape
    if dim == 0:
        raise ValueError("x must have at least one column")
    if whole(k, "k") > n_rows:
        raise ValueError(
            f"k must be in [1, {n_rows}], the number of rows of x (shape {tuple(rows.shape)}), "
            f"got {k}"
        )
    return int(k)


def _float32_rows(device: str, x: Any) -> Any:
    """Finite float32 rows, where ``x`` is."""
    rows = rows_on(device, x, "x")
    if is_tensor(rows):
        rows = rows.float()
        finite = rows.double().sum(dim=1).isfinite().cpu().numpy()
    else:
        rows = as_float(rows).astype(np.float32, copy=False)
        finite = np.isfinite(rows.sum(axis=1, dtype=np.float64))
    if not finite.all():
        raise ValueError(
            f"x holds a value that is not finite in row {np.argmin(finite)}; "
            f"remove NaN and infinity first"
        )
    return rows


def _moved(
    centroids: NDArray[np.float32], sums: NDArray[np.float64], counts: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Each centroid at the mean of its rows; those without rows stay."""
    moved: NDArray[np.float32] = centroids.copy()
    filled = counts > 0
    moved[filled] = sums[filled] / counts[filled, None]
    return moved


def _refill(
    centroids: NDArray[np.float32],
    empty: NDArray[np.int64],
    rows: Array,
    distances: NDArray[np.float64],
    memory: HostMemory,
) -> None:
    """Put these centroids, which have no rows, at the rows that are farthest from theirs."""
    if len(empty):
        farthest = np.lexsort((np.arange(len(rows)), -distances))[: len(empty)]
        centroids[empty] = memory.to_host(memory.taken(rows, farthest))


def _seed_centroids(
    rows: Any, k: int, random: np.random.Generator, memory: HostMemory
) -> NDArray[np.float32]:
    """k-means++: each next centroid is a row drawn with probability proportional to its squared
    distance so far.
    """
    n_sample = min(len(rows), max(SAMPLE_PER_CLUSTER * k, MIN_SAMPLE))
    chosen_rows = np.sort(random.choice(len(rows), n_sample, replace=False))
    sample = memory.to_host(memory.taken(rows, chosen_rows))
    chosen = np.empty((k, rows.shape[1]), dtype=np.float32)
    chosen[0] = sample[random.integers(n_sample)]
    distances = _squared_distances(sample, chosen[0])
    for i in range(1, k):
        total = np.cumsum(distances)
        if total[-1] > 0:
            pick = int(np.searchsorted(total, random.random() * total[-1], side="right"))
        else:
            pick = int(random.integers(n_sample))
        chosen[i] = sample[min(pick, n_sample - 1)]
        distances = np.minimum(distances, _squared_distances(sample, chosen[i]))
    return chosen


def _squared_distances(rows: Rows, centre: NDArray[np.float32]) -> NDArray[np.float64]:
    scored: NDArray[np.float64] = backend_for("cpu").scores(
        centre[None], rows, metric="sqeuclidean"
    )
    return scored.reshape(-1)
