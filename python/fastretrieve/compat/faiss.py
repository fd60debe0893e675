"""FAISS's flat indexes and ``IndexIVFFlat``, so that a script runs by changing ``import faiss``.

    import fastretrieve.compat.faiss as faiss

Shapes, types, padding, the shifting of numbers on removal and the files are FAISS's; answers are
exact (those of ``IndexIVFFlat`` within the leaves that ``nprobe`` lets it read), and equal scores
come in the order in which vectors were added, which FAISS does not promise.
FAISS itself is not needed. What differs: see ``docs/adapters.md``. The parts are in
``compat/flat``.
"""

from typing import NoReturn

from fastretrieve.compat.flat.files import (
    IO_FLAG_MMAP,
    IO_FLAG_READ_ONLY,
    deserialize_index,
    read_index,
    serialize_index,
    write_index,
)
from fastretrieve.compat.flat.functions import (
    ParameterSpace,
    clone_index,
    downcast_index,
    extract_index_ivf,
    get_num_gpus,
    index_factory,
    is_similarity_metric,
    knn,
    normalize_L2,
    omp_get_max_threads,
    omp_set_num_threads,
    pairwise_distances,
    vector_to_array,
)
from fastretrieve.compat.flat.idmap import IndexIDMap, IndexIDMap2
from fastretrieve.compat.flat.indexes import (
    METRIC_INNER_PRODUCT,
    METRIC_L2,
    Index,
    IndexFlat,
    IndexFlatIP,
    IndexFlatL2,
)
from fastretrieve.compat.flat.lists import DirectMap, IndexIVFFlat, SearchParametersIVF
from fastretrieve.compat.flat.selectors import (
    IDSelector,
    IDSelectorAll,
    IDSelectorAnd,
    IDSelectorArray,
    IDSelectorBatch,
    IDSelectorBitmap,
    IDSelectorNot,
    IDSelectorOr,
    IDSelectorRange,
    IDSelectorXOr,
    SearchParameters,
)


def __getattr__(name: str) -> NoReturn:
    """Say what takes the place of a name of FAISS that is not here."""
    advice = "docs/adapters.md lists what there is"
    if "gpu" in name.lower():
        advice = "fastretrieve.Index(dim, device='cuda') searches on a GPU"
    elif name == "Kmeans":
        advice = "fastretrieve.kmeans(x, k) clusters"
    elif name.startswith("Index"):
        advice = (
            "IndexFlatL2 or IndexFlatIP takes its place, exact and with nothing to train, or "
            "IndexIVFFlat where speed counts more"
        )
    raise AttributeError(
        f"module {__name__!r} holds FAISS's flat indexes and IndexIVFFlat and has no {name!r}; "
        f"{advice}"
    )


__all__ = [
    "IO_FLAG_MMAP",
    "IO_FLAG_READ_ONLY",
    "METRIC_INNER_PRODUCT",
    "METRIC_L2",
    "DirectMap",
    "IDSelector",
    "IDSelectorAll",
    "IDSelectorAnd",
    "IDSelectorArray",
    "IDSelectorBatch",
    "IDSelectorBitmap",
    "IDSelectorNot",
    "IDSelectorOr",
    "IDSelectorRange",
    "IDSelectorXOr",
    "Index",
    "IndexFlat",
    "IndexFlatIP",
    "IndexFlatL2",
    "IndexIDMap",
    "IndexIDMap2",
    "IndexIVFFlat",
    "ParameterSpace",
    "SearchParameters",
    "SearchParametersIVF",
    "clone_index",
    "deserialize_index",
    "downcast_index",
    "extract_index_ivf",
    "get_num_gpus",
    "index_factory",
    "is_similarity_metric",
    "knn",
    "normalize_L2",
    "omp_get_max_threads",
    "omp_set_num_threads",
    "pairwise_distances",
    "read_index",
    "serialize_index",
    "vector_to_array",
    "write_index",
]
