"""Searches prepared beforehand, with memory of their own: ``Index.plan``.

On a GPU a plan neither allocates nor waits, so that a search can be captured in a CUDA graph and
replayed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastretrieve._backends.snapshot import Snapshot
from fastretrieve._common.arguments import whole
from fastretrieve._common.arrays import like
from fastretrieve._queries.doubting import refuse_doubtful
from fastretrieve._queries.filters import masked
from fastretrieve._queries.results import Hits
from fastretrieve._queries.searching import Among, Searcher


def plan(searcher: Searcher, batch: int, k: int, among: Among | None) -> SearchPlan:
    """Prepare searches of up to ``batch`` queries."""
    batch, k, snapshot = whole(batch, "batch"), whole(k, "k"), searcher.state.snapshot
    if among is not None:
        for given, name in zip(among, Among._fields, strict=True):
            if np.ndim(given) > 1:
                raise ValueError(f"{name} of a plan must have one dimension, got {np.ndim(given)}")
        (_, _, snapshot), *_ = masked(searcher.state, among.where, among.exclude, 1)
    return SearchPlan(searcher, snapshot, batch=batch, k=k)


class SearchPlan:
    """Searches of one size over an index as it was when the plan was made.

    The plan keeps that state alive, and owns workspace and results: every call writes the same
    arrays, so copy results that must outlast the next call. On a GPU, a search of device queries
    neither allocates nor waits, on torch's current stream, and ``torch.cuda.graph`` may capture it.
    Two threads must not call one plan at the same time.
    """

    def __init__(
        self,
        searcher: Searcher,
        snapshot: Snapshot,
        *,
        batch: int,
        k: int,
    ) -> None:
        self.batch = batch
        self.k = k
        form = searcher.form
        self._searcher = searcher
        self._snapshot = snapshot
        kind = np.float64 if searcher.float64 else np.float32
        self.scores = form.memory.empty((batch, k), kind)
        self.ids = form.memory.empty((batch, k), np.int64)
        self._workspace = form.backend.workspace(snapshot, batch, k)
        form.backend.prepare(snapshot)

    @property
    def nbytes(self) -> int:
        """Bytes that the plan holds besides the index."""
        return sum(int(own.nbytes) for own in (self._workspace, self.scores, self.ids))

    def __repr__(self) -> str:
        n_rows = self._snapshot.native.n_rows
        what = f"batch={self.batch}, k={self.k}, rows={n_rows}, nbytes={self.nbytes}"
        how = self._searcher.form.backend.plan(self._snapshot, self.batch, self.k)
        return f"SearchPlan({what}, {how})"

    def __call__(self, queries: Any) -> Hits:
        """Search for up to ``batch`` queries. The results are the plan's own arrays, or copies in
        the kind of array that came.
        """
        form, counters, float64 = (
            self._searcher.form,
            self._searcher.counters,
            self._searcher.float64,
        )
        rows = form.backend.as_rows(queries, name="queries", dim=form.dim)
        n = len(rows)
        if n > self.batch:
            raise ValueError(f"the plan is for up to {self.batch} queries, got {n}")
        asked = (rows, self._snapshot, self.k, counters, float64)
        out = (self.scores[:n], self.ids[:n])
        scores, ids = form.backend.search(*asked, workspace=self._workspace, out=out)
        if self._snapshot.is_doubtful:
            refuse_doubtful(self._snapshot, form.memory.to_host(scores), form.memory.to_host(ids))
        if np.ndim(queries) == 1:
            scores, ids = scores[0], ids[0]
        return Hits(like(scores, queries), like(ids, queries), metric=form.metric)
