"""Flat FAISS indexes: their rows, and an index of FAISS's that holds ours."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arrays import as_float
from fastretrieve._common.metric import Metric
from fastretrieve._common.needs import wanting
from fastretrieve._state.changes import consecutive
from fastretrieve._state.locating import ids_as_added, stored_rows
from fastretrieve._state.state import State

# faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2
_FLAT_METRICS: dict[int, Metric] = {0: "ip", 1: "sqeuclidean"}


class FlatRows(NamedTuple):
    """The contents of a flat index."""

    dim: int
    metric: Metric
    vectors: NDArray[Any]  # [n_rows, dim]
    ids: NDArray[np.int64] | None  # None: 0, 1, 2 and so on


def read_flat(flat: Any) -> FlatRows:
    """The contents of a flat FAISS index, or of an IndexIDMap of one."""
    faiss = _faiss()
    ids = None
    if isinstance(flat, (faiss.IndexIDMap, faiss.IndexIDMap2)):
        ids = faiss.vector_to_array(flat.id_map)
        flat = flat.index
    flat = faiss.downcast_index(flat)
    if not isinstance(flat, faiss.IndexFlat) or flat.metric_type not in _FLAT_METRICS:
        raise TypeError(
            f"only FAISS's IndexFlatL2, IndexFlatIP and an IndexIDMap of them can be converted, "
            f"got {type(flat).__name__}"
        )
    vectors = flat.reconstruct_n(0, flat.ntotal)
    return FlatRows(flat.d, _FLAT_METRICS[flat.metric_type], vectors, ids)


def make_flat(state: State) -> Any:
    """The flat FAISS index with the rows of a state, in an IndexIDMap2 unless the ids are 0, 1, 2
    and so on.
    """
    faiss, form, ids = _faiss(), state.form, ids_as_added(state)
    if form.metric == "cosine":
        raise ValueError(
            "FAISS has no cosine: make an index of fr.normalize(vectors) with metric='ip' instead"
        )
    flat = (faiss.IndexFlatIP if form.metric == "ip" else faiss.IndexFlatL2)(form.dim)
    vectors = np.ascontiguousarray(as_float(stored_rows(state, ids)), dtype=np.float32)
    if consecutive(ids) and (len(ids) == 0 or ids[0] == 0):
        flat.add(vectors)
        return flat
    mapped = faiss.IndexIDMap2(flat)
    mapped.add_with_ids(vectors, ids)
    flat.this.disown()
    mapped.own_fields = True
    return mapped


def _faiss() -> Any:
    with wanting("faiss", "a FAISS index"):
        import faiss
    return faiss
