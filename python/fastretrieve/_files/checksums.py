"""CRC-32 checksums of tensors, one for every 16 MiB, and of the header that holds them."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 16 << 20  # of a tensor that share a checksum
HEADER_SUM = "crc32.header"
NO_SUM = "0" * 8


class Checksums:
    """A checksum for every CHUNK_BYTES of what is added."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self._sums: list[int] = []

    def add(self, data: NDArray[np.uint8]) -> None:
        """Continue with these bytes."""
        begin = 0
        while begin < len(data):
            used = self.n_bytes % CHUNK_BYTES
            if used == 0:
                self._sums.append(0)
            part = data[begin : begin + CHUNK_BYTES - used]
            self._sums[-1] = zlib.crc32(part.data, self._sums[-1])
            begin += len(part)
            self.n_bytes += len(part)

    def text(self) -> str:
        """The checksums so far, joined."""
        return "".join(map(_hexadecimal, self._sums))


def checksum(data: memoryview | bytes) -> str:
    """Eight hexadecimal digits for these bytes."""
    return _hexadecimal(zlib.crc32(data))


def header_sum(header: dict[str, Any]) -> str:
    """The checksum of a header in which that of the header is ``NO_SUM``."""
    return checksum(dumped(header))


def dumped(header: dict[str, Any]) -> bytes:
    """A header as files hold it."""
    return json.dumps(header, separators=(",", ":")).encode()


def sum_name(tensor: str) -> str:
    """The key under which the metadata holds the checksums of a tensor."""
    return f"crc32.{tensor}"


def _hexadecimal(number: int) -> str:
    return f"{number:08x}"
