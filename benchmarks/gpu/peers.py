"""Who else searches by brute force on a GPU: each takes the same tensors, each may be missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Search = Callable[[], Any]  # ids [n_queries, k]


def torch_matmul(queries: torch.Tensor, rows: torch.Tensor, k: int) -> Search:
    return lambda: torch.topk(queries @ rows.T, k)[1]


def torch_half(queries: torch.Tensor, rows: torch.Tensor, k: int) -> Search:
    q, x = queries.bfloat16(), rows.bfloat16()
    return lambda: torch.topk(q @ x.T, k)[1]


def faiss_flat(queries: torch.Tensor, rows: torch.Tensor, k: int) -> Search:
    import faiss
    import faiss.contrib.torch_utils

    resources = faiss.StandardGpuResources()
    resources.setDefaultNullStreamAllDevices()
    metric = faiss.METRIC_INNER_PRODUCT
    return lambda: faiss.knn_gpu(resources, queries, rows, k, metric=metric, use_cuvs=False)[1]


def cuvs_flat(queries: torch.Tensor, rows: torch.Tensor, k: int) -> Search:
    import cupy
    from cuvs.common import Resources
    from cuvs.neighbors import brute_force

    # Resources(stream=0) would make a stream of its own, which the events would not time.
    handle = Resources(stream=torch.cuda.current_stream().cuda_stream)
    q, x = cupy.from_dlpack(queries), cupy.from_dlpack(rows)
    index = brute_force.build(x, metric="inner_product", resources=handle)
    return lambda: brute_force.search(index, q, k, resources=handle)[1]


def flashlib(queries: torch.Tensor, rows: torch.Tensor, k: int) -> Search:
    from flashlib import knn

    return lambda: knn(queries, rows, k)[1]


def keops(queries: torch.Tensor, rows: torch.Tensor, k: int) -> Search:
    from pykeops.torch import LazyTensor

    q, x = LazyTensor(queries[:, None, :]), LazyTensor(rows[None, :, :])
    return lambda: (-(q | x)).argKmin(k, dim=1)


PEERS = {
    "torch float32": torch_matmul,
    "torch bfloat16": torch_half,
    "faiss": faiss_flat,
    "cuvs": cuvs_flat,
    "flashlib": flashlib,
    "keops": keops,
}
