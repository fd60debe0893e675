"""Memory of a GPU as torch tensors: allocation, copies, and streams that share an index.

Torch's allocator hands a freed tensor to the next caller on the same stream at once. A search on
another stream may still be reading it, so :meth:`DeviceMemory.share` tells the allocator.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastretrieve import arrays
from fastretrieve.memory import HostMemory


class DeviceMemory(HostMemory):
    """Memory of a GPU. On ``cpu`` it is the process's own, for tests of the emulation."""

    def __init__(self, device: str) -> None:
        import torch

        self.device = torch.device(device)
        self._kinds = {
            np.dtype(np.float32): torch.float32,
            np.dtype(np.float64): torch.float64,
            np.dtype(np.float16): torch.float16,
            np.dtype(np.uint16): torch.bfloat16,  # as arrays.py keeps it
            np.dtype(np.uint8): torch.uint8,
            np.dtype(np.int64): torch.int64,
        }

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """An uninitialised tensor on the device."""
        import torch

        return torch.empty(shape, dtype=self._kinds[np.dtype(dtype)], device=self.device)

    def placed(self, array: Any) -> Any:
        """The array on the device, copied there if it is not."""
        import torch

        if arrays.is_tensor(array):
            return array.to(self.device)
        if array.dtype == np.uint64:
            array = array.view(np.int64)
        if array.dtype == np.uint16:
            return torch.from_numpy(array.view(np.int16)).to(self.device).view(torch.bfloat16)
        array = np.ascontiguousarray(array)
        writeable = array if array.flags.writeable else array.copy()  # torch warns of the others
        return torch.from_numpy(writeable).to(self.device)

    def to_host(self, array: Any) -> NDArray[Any]:
        """The tensor as NumPy; waits for the device."""
        import torch

        if not arrays.is_tensor(array):
            return np.asarray(array)
        if array.dtype == torch.bfloat16:
            bits: NDArray[Any] = array.cpu().view(torch.int16).numpy().view(np.uint16)
            return bits
        values: NDArray[Any] = array.cpu().numpy()
        return values

    def taken(self, rows: Any, which: NDArray[Any]) -> Any:
        """These rows of a tensor, by number or by a mask."""
        import torch

        return rows[torch.from_numpy(np.ascontiguousarray(which)).to(self.device)]

    def holds(self, array: Any) -> bool:
        """Whether the array is a tensor on this device."""
        return arrays.is_tensor(array) and arrays.device_of(array) != "cpu"

    @property
    def stream(self) -> int:
        """The stream of the caller: torch's current one."""
        if self.device.type == "cpu":
            return 0
        import torch

        return int(torch.cuda.current_stream(self.device).cuda_stream)

    def synchronize(self) -> None:
        """Wait for the current stream."""
        if self.device.type == "cpu":
            return
        import torch

        torch.cuda.current_stream(self.device).synchronize()

    def share(self, tensors: Iterable[Any]) -> None:
        """The current stream reads these tensors, whichever stream they were made on."""
        if self.device.type == "cpu":
            return
        import torch

        stream = torch.cuda.current_stream(self.device)
        for tensor in tensors:
            if arrays.is_tensor(tensor):
                tensor.record_stream(stream)
