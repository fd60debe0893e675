"""Other libraries that search by brute force on a GPU, on the same tensors. Any may be missing.

FAISS, cuVS, FlashLib and KeOps have a stream, an order of arguments and a metric of their own; the
calls follow their documentation (faiss 1.15, cuvs 26.6, flashlib 0.4, pykeops 2.3). FlashLib knows
squared distances only, so its answers are compared with those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

Search = Callable[[], Any]  # ids [n_queries, k]
Prepare = Callable[[torch.Tensor, torch.Tensor, int], Search]


class Peer(NamedTuple):
    """How a library is prepared for a search, and the metric that it ranks by."""

    prepare: Prepare
    metric: str = "ip"
    has_score_matrix: bool = False  # of batch x rows float32


def torch_matmul(queries: torch.Tensor, rows: torch.Tensor, k: int) -> Search:
    return lambda: torch.topk(queries @ rows.T, k)[1]


def torch_half(queries: torch.Tensor, rows: torch.Tensor, k: int) -> Search:
    q, x = queries.bfloat16(), rows.bfloat16()
    return lambda: torch.topk(q @ x.T, k)[1]


def faiss_knn(use_cuvs: bool) -> Prepare:
    def prepare(queries: torch.Tensor, rows: torch.Tensor, k: int) -> Search:
        import faiss
        import faiss.contrib.torch_utils

        if not hasattr(faiss, "StandardGpuResources"):
            raise ImportError("this faiss has no GPU part")
        resources = faiss.StandardGpuResources()
        resources.setDefaultNullStreamAllDevices()  # torch's default stream, which the events time
        ip = faiss.METRIC_INNER_PRODUCT
        return lambda: faiss.knn_gpu(resources, queries, rows, k, metric=ip, use_cuvs=use_cuvs)[1]

    return prepare


def cuvs_flat(queries: torch.Tensor, rows: torch.Tensor, k: int) -> Search:
    import cupy
    from cuvs.common import Resources
    from cuvs.neighbors import brute_force

    # Resources(stream=0) would make a stream of its own, which no event of ours would time: cuVS
    # works on a stream that waits for torch's, and torch's waits for it.
    own = torch.cuda.Stream()
    handle = Resources(stream=own.cuda_stream)
    with torch.cuda.stream(own):
        q, x = cupy.from_dlpack(queries), cupy.from_dlpack(rows)
        index = brute_force.build(x, metric="inner_product", resources=handle)
    handle.sync()

    def search() -> Any:
        own.wait_stream(torch.cuda.current_stream())
        _, ids = brute_force.search(index, q, k, resources=handle)
        torch.cuda.current_stream().wait_stream(own)
        return ids

    return search


def flashlib_knn(dtype: torch.dtype) -> Prepare:
    def prepare(queries: torch.Tensor, rows: torch.Tensor, k: int) -> Search:
        from flashlib import flash_knn

        q, x = queries.to(dtype), rows.to(dtype)
        return lambda: flash_knn(q, x, k, return_distances=False)

    return prepare


def keops(queries: torch.Tensor, rows: torch.Tensor, k: int) -> Search:
    from pykeops.torch import LazyTensor

    q, x = LazyTensor(queries[:, None, :]), LazyTensor(rows[None, :, :])
    return lambda: (-(q | x)).argKmin(k, dim=1)


PEERS = {
    "torch float32": Peer(torch_matmul, has_score_matrix=True),
    "torch bfloat16": Peer(torch_half, has_score_matrix=True),
    "faiss": Peer(faiss_knn(use_cuvs=False)),
    "faiss with cuvs": Peer(faiss_knn(use_cuvs=True)),
    "cuvs": Peer(cuvs_flat),
    "flashlib float32": Peer(flashlib_knn(torch.float32), metric="l2"),
    "flashlib bfloat16": Peer(flashlib_knn(torch.bfloat16), metric="l2"),
    "keops": Peer(keops),
}


def as_ids(found: Any) -> torch.Tensor:
    """The ids that a peer returned in an array of its own kind, as a tensor."""
    if not isinstance(found, torch.Tensor):
        found = torch.as_tensor(found, device="cuda" if torch.cuda.is_available() else "cpu")
    return found.to(torch.int64)
