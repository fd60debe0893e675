"""FAISS's functions around flat indexes."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastretrieve as fr
from fastretrieve.compat.flat.idmap import IndexIDMap, IndexIDMap2
from fastretrieve.compat.flat.indexes import (
    METRIC_INNER_PRODUCT,
    METRIC_L2,
    METRICS,
    Floats,
    Index,
    IndexFlat,
    IndexFlatIP,
    IndexFlatL2,
)
from fastretrieve.compat.flat.lists import IndexIVFFlat
from fastretrieve.compat.flat.selectors import Ids

_IVF = re.compile(r"IVF([1-9]\d{0,11}),Flat")


def index_factory(d: int, description: str, metric: int = METRIC_L2) -> Index:
    """The indexes by name: ``Flat``, ``IDMap,Flat``, ``IDMap2,Flat``, ``IVF256,Flat``.

    >>> type(index_factory(8, "IDMap,Flat")).__name__
    'IndexIDMap'
    >>> index_factory(8, "IVF256,Flat").nlist
    256
    """
    flat = IndexFlat(d, metric)
    if lists := _IVF.fullmatch(description):
        return IndexIVFFlat(flat_index(d, metric), d, int(lists[1]), metric)
    made: dict[str, type[IndexIDMap]] = {"IDMap,Flat": IndexIDMap, "IDMap2,Flat": IndexIDMap2}
    if description == "Flat":
        return flat
    if description not in made:
        raise RuntimeError(
            f"description must be Flat, IDMap,Flat, IDMap2,Flat or IVF256,Flat, got "
            f"{description!r}; IVF256,Flat takes ids of your own without IDMap"
        )
    return made[description](flat)


def flat_index(d: int, metric: int) -> IndexFlat:
    """The class that FAISS gives an index of this metric."""
    named: dict[int, type[IndexFlatL2 | IndexFlatIP]] = {
        METRIC_L2: IndexFlatL2,
        METRIC_INNER_PRODUCT: IndexFlatIP,
    }
    return named[metric](d) if metric in named else IndexFlat(d, metric)


def clone_index(index: Index) -> Index:
    """A copy that shares nothing with the original."""
    return copy.deepcopy(index)


def downcast_index(index: Index) -> Index:
    """The index itself: here an index always has its own class."""
    return index


def extract_index_ivf(index: Index) -> IndexIVFFlat:
    """The index itself, which must be an ``IndexIVFFlat``."""
    if not isinstance(index, IndexIVFFlat):
        raise RuntimeError(f"wants an IndexIVFFlat of this module, got {index!r}")
    return index


class ParameterSpace:
    """Sets ``nprobe`` by name.

    >>> index = index_factory(2, "IVF16,Flat")
    >>> ParameterSpace().set_index_parameter(index, "nprobe", 8)
    >>> index.nprobe
    8
    """

    def set_index_parameter(self, index: Index, name: str, val: float) -> None:
        """Set a parameter of an index."""
        if name != "nprobe" or not isinstance(index, IndexIVFFlat):
            raise RuntimeError(f"could not set parameter {name} of {index!r}; an IVF has nprobe")
        index.nprobe = int(val)

    def set_index_parameters(self, index: Index, description_in: str) -> None:
        """Set parameters in one text: ``"nprobe=8"``."""
        for part in description_in.split(","):
            name, _, value = part.partition("=")
            self.set_index_parameter(index, name.strip(), float(value))


def is_similarity_metric(metric: int) -> bool:
    """Whether larger scores are better."""
    return metric == METRIC_INNER_PRODUCT


def get_num_gpus() -> int:
    """None that this module would use: ``fastretrieve.Index(device="cuda")`` searches on one."""
    return 0


def vector_to_array(v: Any) -> NDArray[Any]:
    """A copy of what is an array here already: ``vector_to_array(index.id_map)``."""
    return np.array(v)


def knn(xq: Any, xb: Any, k: int, metric: int = METRIC_L2) -> tuple[Floats, Ids]:
    """The ``k`` nearest of ``xb`` for each query, without an index.

    >>> knn(np.array([[1.0]]), np.array([[4.0], [2.0]]), 1)
    (array([[1.]], dtype=float32), array([[1]]))
    """
    base = np.asarray(xb)
    index = IndexFlat(base.shape[1], metric)
    index.add(base)
    return index.search(xq, k)


def pairwise_distances(xq: Any, xb: Any, metric: int = METRIC_L2) -> Floats:
    """Every query with every vector."""
    matrix: Floats = fr.scores(np.asarray(xq), np.asarray(xb), metric=METRICS[metric])
    return matrix


def normalize_L2(x: NDArray[Any]) -> None:
    """Divide the rows of a contiguous float32 matrix by their norms, in place."""
    fr.normalize(x, out=x)


def omp_set_num_threads(n: int) -> None:
    """Let every call use up to ``n`` threads."""
    fr.set_num_threads(n)


def omp_get_max_threads() -> int:
    """The threads that a call may use."""
    return fr.num_threads()
