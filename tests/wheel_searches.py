"""A hundred searches of an installed wheel beside the oracle: ``wheel_searches.py [TABLE]``.

Run by the Python of any machine or emulator that has the wheel and NumPy. TABLE is the instruction
set that must have been chosen.
"""

from __future__ import annotations

import sys

import numpy as np

import fastretrieve as fr
import oracle

SHAPES = ((1, 70, 3), (7, 300, 5), (64, 500, 1), (130, 257, 9), (400, 200, 4))  # dim, rows, queries
TYPES = ("float32", "float16")


def main() -> None:
    chosen = next(each.instruction_set for each in fr.backends() if each.name == "cpu")
    if sys.argv[1:] and chosen != sys.argv[1]:
        raise SystemExit(f"wanted the instruction set {sys.argv[1]}, got {chosen}")
    searches = 0
    for seed, (dim, n_rows, n_queries) in enumerate(SHAPES):
        for metric in oracle.METRICS:
            for dtype in TYPES:
                searches += equal(seed, dim, n_rows, n_queries, metric, dtype)
    print(f"{searches} searches equal the oracle on {chosen}")


def equal(seed: int, dim: int, n_rows: int, n_queries: int, metric: str, dtype: str) -> int:
    """One index, searched with several k and behind a mask."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((n_rows, dim), dtype=np.float32).astype(dtype)
    queries = random.standard_normal((n_queries, dim), dtype=np.float32)
    index = fr.Index(dim, metric=metric, dtype=dtype)
    index.add(rows)
    some = random.random(n_rows) < 0.3
    asked = [(1, None), (10, None), (5, some)]
    for k, where in asked:
        hits = index.search(queries, k=k, where=where, score_dtype="float64")
        best = oracle.topk(queries, rows.astype(np.float32), k, metric, allowed=where)
        if not (np.array_equal(hits.ids, best.ids) and np.array_equal(hits.scores, best.scores)):
            raise SystemExit(f"{metric}, {dtype}, {dim} dimensions, k={k}: another answer")
    return len(asked)


if __name__ == "__main__":
    main()
