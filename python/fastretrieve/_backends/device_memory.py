"""Memory of a GPU as torch tensors: allocation, copies, and streams that share an index.

Torch's allocator gives the memory of a freed tensor to the next caller on the same stream at once.
A search on another stream may still be reading it, so :meth:`DeviceMemory.share` tells the
allocator.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastretrieve._backends.interface import BackendUnavailable
from fastretrieve._backends.memory import Array, HostMemory
from fastretrieve._common.arrays import device_of, is_tensor

COPY_BYTES = 16 << 20  # of read-only memory are copied to the device at a time


def usable_device(device: str) -> str:
    """The full name of the GPU, if torch and this thread work on it; else an error says why."""
    import torch

    if not torch.cuda.is_available():
        raise BackendUnavailable(
            f"cuda: torch {torch.__version__} finds no GPU; install torch with CUDA, "
            f"or use device='cpu'"
        )
    wanted, current = torch.device(device).index, torch.cuda.current_device()
    if wanted not in (None, current):
        raise ValueError(
            f"device must be cuda or cuda:{current}, torch's current one, got {device!r}; "
            f"choose another with torch.cuda.set_device or CUDA_VISIBLE_DEVICES"
        )
    return f"cuda:{current}"


def device_rows(tensor: Array, name: str) -> Array:
    """A matrix of float32, float16 or bfloat16 on the device, adjacent within a row."""
    import torch

    if tensor.ndim == 1:
        tensor = tensor[None, :]
    if tensor.ndim != 2:
        raise ValueError(f"{name} must have one or two dimensions, got shape {tuple(tensor.shape)}")
    if tensor.dtype == torch.float64:
        tensor = tensor.to(torch.float32)
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(
            f"{name} on a device must be floating point, got {tensor.dtype}; "
            f"convert them to float32"
        )
    return tensor if tensor.shape[1] <= 1 or tensor.stride(1) == 1 else tensor.contiguous()


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
            np.dtype(np.int16): torch.int16,
            np.dtype(np.int64): torch.int64,
        }

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An uninitialised tensor on the device."""
        import torch

        return torch.empty(shape, dtype=self._kinds[np.dtype(dtype)], device=self.device)

    def placed(self, array: Array) -> Array:
        """The array on the device, copied there if it is not."""
        import torch

        if is_tensor(array):
            return array.to(self.device)
        if array.dtype == np.uint64:
            array = array.view(np.int64)
        if array.dtype == np.uint16:
            return self.placed(array.view(np.int16)).view(torch.bfloat16)
        array = np.ascontiguousarray(array)
        if array.flags.writeable:
            return torch.from_numpy(array).to(self.device)
        # Memory of a file: torch would warn, and all of it may not fit a second time.
        result = torch.empty(array.shape, dtype=self._kinds[array.dtype], device=self.device)
        step = max(COPY_BYTES // max(array[:1].nbytes, 1), 1)
        for begin in range(0, len(array), step):
            result[begin : begin + step] = torch.from_numpy(array[begin : begin + step].copy())
        return result

    def to_host(self, array: Array) -> NDArray[Any]:
        """The tensor as NumPy; waits for the device."""
        import torch

        if not is_tensor(array):
            return np.asarray(array)
        if array.dtype == torch.bfloat16:
            bits: NDArray[Any] = array.cpu().view(torch.int16).numpy().view(np.uint16)
            return bits
        values: NDArray[Any] = array.cpu().numpy()
        return values

    def taken(self, rows: Array, which: NDArray[Any]) -> Array:
        """These rows of a tensor, by number or by a mask."""
        import torch

        return rows[torch.from_numpy(np.ascontiguousarray(which)).to(self.device)]

    def holds(self, array: Array) -> bool:
        """Whether the array is a tensor on this device."""
        return is_tensor(array) and device_of(array) != "cpu"

    @property
    def device_number(self) -> int:  # type: ignore[override]
        """Which GPU."""
        return int(self.device.index or 0)

    @property
    def stream(self) -> int:  # type: ignore[override]
        """The stream of the caller: torch's current one."""
        if self.device.type == "cpu":
            return 0
        import torch

        current = torch.cuda.current_device()
        if current != self.device.index:
            raise RuntimeError(
                f"the index is on {self.device} but this thread's current device is "
                f"cuda:{current}; call it inside `with torch.cuda.device({self.device.index}):`"
            )
        return int(torch.cuda.current_stream(self.device).cuda_stream)

    def synchronize(self) -> None:
        """Wait for the current stream."""
        if self.device.type == "cpu":
            return
        import torch

        torch.cuda.current_stream(self.device).synchronize()

    def share(self, arrays: Iterable[Array]) -> None:
        """Tell the allocator that the current stream reads these tensors."""
        if self.device.type == "cpu":
            return
        import torch

        stream = torch.cuda.current_stream(self.device)
        for tensor in arrays:
            if is_tensor(tensor):
                tensor.record_stream(stream)
