"""A search with memory of its own, and results written where the caller wants them.

``Index.search(out=)`` and ``Index.plan`` end here. On a GPU a plan neither allocates nor waits, so
that a search can be captured in a CUDA graph and replayed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core, arrays
from fastretrieve.arrays import is_tensor, like
from fastretrieve.backend import Counters, Pair
from fastretrieve.results import Hits
from fastretrieve.segments import Format


def search_into(
    form: Format,
    rows: Any,
    segments: _core.Segments,
    k: int,
    counters: Counters,
    float64: bool,
    out: Pair | None,
) -> Pair:
    """The scores and ids of the best ``k`` rows, in ``out`` where that is given."""
    if out is None or form.memory.holds(out[0]):
        return form.backend.search(rows, segments, k, counters, float64, out=out)
    scores, ids = form.backend.search(rows, segments, k, counters, float64)
    as_array(out[0])[...] = scores
    as_array(out[1])[...] = ids
    return out


def as_array(out: Any) -> NDArray[Any]:
    """The memory of an array, or of a tensor on the CPU, as NumPy."""
    array: NDArray[Any] = out.detach().numpy() if is_tensor(out) else out
    return array


def checked_out(out: Any, shape: tuple[int, ...], float64: bool, form: Format, rows: Any) -> Pair:
    """``out`` if results of this shape can be written to it, else an error that says why not."""
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError(f"out must be a tuple (scores, ids), got {type(out).__name__}")
    kinds = ("float64" if float64 else "float32", "int64")
    for array, name, kind in zip(out, ("scores", "ids"), kinds, strict=True):
        dtype = str(getattr(array, "dtype", type(array).__name__)).removeprefix("torch.")
        got = tuple(getattr(array, "shape", ()))
        if dtype != kind or got != shape:
            raise ValueError(
                f"out must hold {name} of type {kind} and shape {shape}, got {dtype} {got}"
            )
        adjacent = array.is_contiguous() if is_tensor(array) else array.flags.c_contiguous
        if not adjacent or not (is_tensor(array) or array.flags.writeable):
            raise ValueError(f"out must hold {name} that are contiguous and writeable")
        wanted = arrays.device_of(rows) if form.memory.holds(rows) else "cpu"
        if arrays.device_of(array) != wanted:
            raise ValueError(
                f"out must be where the queries are, on {wanted}, got {name} on "
                f"{arrays.device_of(array)}"
            )
    return out


class SearchPlan:
    """Searches of one size over an index as it was when the plan was made.

    The plan keeps that state alive, and owns workspace and results: every call writes the same
    arrays, so copy what must outlast the next one. On a GPU, queries on the device are searched
    without an allocation and without waiting, on torch's current stream; ``torch.cuda.graph`` may
    capture the call. Two threads must not call one plan at the same time.
    """

    def __init__(
        self,
        form: Format,
        segments: _core.Segments,
        counters: Counters,
        *,
        batch: int,
        k: int,
        float64: bool,
    ) -> None:
        self.batch = batch
        self.k = k
        self._form = form
        self._segments = segments
        self._counters = counters
        self._float64 = float64
        kind = np.float64 if float64 else np.float32
        self.scores = form.memory.empty((batch, k), kind)
        self.ids = form.memory.empty((batch, k), np.int64)
        self._workspace = form.backend.workspace(segments, batch, k)
        form.backend.prepare(segments)

    @property
    def nbytes(self) -> int:
        """Bytes that the plan holds besides the index."""
        return sum(int(own.nbytes) for own in (self._workspace, self.scores, self.ids))

    def __repr__(self) -> str:
        what = f"batch={self.batch}, k={self.k}, rows={self._segments.n_rows}, nbytes={self.nbytes}"
        how = self._form.backend.plan(self._segments, self.batch, self.k)
        return f"SearchPlan({what}, {how})"

    def __call__(self, queries: Any) -> Hits:
        """Search for up to ``batch`` queries. The results are the plan's own arrays, or copies of
        the kind that the queries are.
        """
        rows = self._form.backend.as_rows(queries, name="queries", dim=self._form.dim)
        n = len(rows)
        if n > self.batch:
            raise ValueError(f"the plan is for up to {self.batch} queries, got {n}")
        out = (self.scores[:n], self.ids[:n])
        asked = (rows, self._segments, self.k, self._counters, self._float64)
        scores, ids = self._form.backend.search(*asked, workspace=self._workspace, out=out)
        if np.ndim(queries) == 1:
            scores, ids = scores[0], ids[0]
        return Hits(like(scores, queries), like(ids, queries))
