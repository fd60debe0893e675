"""The device of the arrays of a call, and their rows as its backend reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastretrieve._backends.runtime import backend_for
from fastretrieve._common.arrays import device_of


def common_device(parts: Sequence[Any], names: Sequence[str]) -> str:
    """The device of all parts; different ones are an error."""
    devices = [device_of(part) for part in parts]
    for device, name in zip(devices, names, strict=True):
        if device != devices[0]:
            raise ValueError(
                f"{names[0]} are on {devices[0]} but {name} are on {device}; put them on one device"
            )
    return devices[0]


def rows_on(device: str, array: Any, name: str) -> Any:
    """Rows where the backend of the device reads them: NumPy on the CPU, else a tensor there."""
    return backend_for(device).as_rows(array, name=name)
