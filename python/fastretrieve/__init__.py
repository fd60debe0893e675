"""Exact nearest neighbours at the price of a compressed scan, on GPU and CPU.

>>> import numpy as np
>>> import fastretrieve as fr
>>> index = fr.Index(128, metric="cosine")
>>> ids = index.add(np.random.default_rng(0).standard_normal((1000, 128)))
>>> hits = index.search(index.get([42]), k=3)
>>> int(hits.ids[0, 0])
42
"""

from __future__ import annotations

from importlib import import_module

# Each public name with the module that defines it; importing the package loads none of them.
# Type checkers and editors read the same table in __init__.pyi.
_PUBLIC = {
    "Index": "index",
    "Hits": "_queries.results",
    "InRange": "_queries.results",
    "Pairs": "_queries.results",
    "Graph": "_queries.results",
    "Optimized": "_state.optimizing",
    "Searchable": "_queries.searchable",
    "merge": "_queries.searchable",
    "StorageError": "_common.errors",
    "read_vectors": "_files.formats",
    "write_vectors": "_files.formats",
    "topk": "ops.topk",
    "scores": "ops.topk",
    "normalize": "ops.fusion",
    "fuse": "ops.fusion",
    "kmeans": "ops.clustering",
    "Clusters": "ops.clustering",
    "backends": "_backends.runtime",
    "BackendInfo": "_backends.runtime",
    "BackendUnavailable": "_backends.interface",
    "num_threads": "_backends.runtime",
    "set_num_threads": "_backends.runtime",
    "train": "training",
    "TrainingResult": "training",
    "create_encoder": "encoders",
    "load_encoder": "encoders",
    "list_encoders": "encoders",
    "EncoderError": "encoders",
    "open_dataset": "data",
    "Dataset": "data",
    "DataError": "data",
    "evaluate": "evaluation",
    "Evaluation": "evaluation",
    "classify": "evaluation",
    "Classification": "evaluation",
    "Gallery": "gallery",
    "GalleryError": "gallery",
    "Matches": "gallery",
    "Clustering": "gallery",
    "Explanation": "gallery",
    "Imagine": "gallery",
    "Translate": "gallery",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("fastretrieve")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fastretrieve' has no attribute {name!r}")
    from fastretrieve._common.needs import wanting

    with wanting("networks", f"fastretrieve.{name}"):
        value = getattr(import_module(f"fastretrieve.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
