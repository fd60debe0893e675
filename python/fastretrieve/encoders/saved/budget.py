"""Limit what a constructor allocates when its options come from a file.

``dim: 1000000000000`` in a config asks for too much memory. A network that fits its weights file
asks for about as much as the file holds, so the file's size bounds what the options may ask for,
before it is allocated.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastretrieve.encoders.saved.weights import Entry

SHARE = 8  # times the file: float16 weights in a float32 network, and what initialising needs
_OBJECT_BYTES = 16 << 10  # that Python takes for the modules around a tensor, at most about
_PER_TENSOR_BYTES = 64 << 10  # allowed per tensor of the file, where that is more


class MemoryBudget(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses new tensors once they would take more than the budget together."""

    def __init__(self, entries: dict[str, Entry], *, file_bytes: int, unsaved_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n_bytes = SHARE * file_bytes + _PER_TENSOR_BYTES * len(entries) + unsaved_bytes
        self._spent = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((args, kwargs))):
            result = func(*args, **kwargs)
            self._refuse_beyond(_bytes_of(result))  # a tensor that grows is found one step late
            return result
        if "device" in {argument.name for argument in func._schema.arguments}:
            rehearsal = {**kwargs, "device": "meta"}
            if "generator" in kwargs:
                rehearsal["generator"] = None  # one for the CPU is of no use there
            self._spent += _OBJECT_BYTES + _bytes_of(func(*args, **rehearsal))
            self._refuse_beyond(self._spent)
        return func(*args, **kwargs)

    def _refuse_beyond(self, n_bytes: int) -> None:
        if n_bytes > self.n_bytes:
            raise ValueError(
                f"its options ask for {n_bytes:,} bytes of weights, and what the file holds allows "
                f"{self.n_bytes:,}"
            )


def _bytes_of(result: Any) -> int:
    tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
