"""Cases of ``tests/cases.py`` as the file that ``compare`` reads.

Numbers are int64 and float32 of this machine: how many cases; of each the length of its name, its
name, how many queries, rows and dimensions, then queries and rows.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

import cases

QUERIES, ROWS = 9, 192  # of each case: kernels see a few strips, emulated ones are slow


def write(path: Path) -> None:
    chosen = {name: cases.case(name) for name in cases.MAKERS}
    chosen |= {f"gaussian, {dim}": cases.gaussian(ROWS, dim) for dim in cases.DIMS}
    with path.open("wb") as file:
        file.write(struct.pack("=q", len(chosen)))
        for name, (queries, rows) in chosen.items():
            title, some = name.encode(), rows[:: max(len(rows) // ROWS, 1)][:ROWS]
            sizes = (len(queries[:QUERIES]), len(some), some.shape[1])
            file.write(struct.pack("=q", len(title)) + title + struct.pack("=3q", *sizes))
            for part in (queries[:QUERIES], some):
                file.write(np.ascontiguousarray(part, np.float32).tobytes())
