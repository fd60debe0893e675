"""An exact top-k index.

``Index`` checks what the caller passes and publishes states, which ``changes.py`` makes one from
another. ``searching.py`` and ``joins.py`` search them, ``storage.py`` saves them, ``segments.py``
owns the memory, ``locating.py`` and ``ids.py`` the ids. What "exact" means is written in
``docs/exactness.md``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve.arguments import one_of, whole
from fastretrieve.arrays import DType, as_dtype, as_float
from fastretrieve.changes import appended, compacted, extended, reserved, updated, without
from fastretrieve.ids import MAX_ID, IdMap, as_ids
from fastretrieve.joins import Joins
from fastretrieve.locating import (
    ids_as_added,
    locate,
    refuse_known,
    refuse_twice,
    row_ids,
    stored_rows,
)
from fastretrieve.locks import ForkSafeLock
from fastretrieve.metric import METRICS, Metric
from fastretrieve.runtime import backend_for
from fastretrieve.searching import Searches
from fastretrieve.segments import Format, State
from fastretrieve.storage import Files

MAX_ROWS = 2**40  # reserved at once: more than any machine holds


class Index(Searches, Joins, Files):
    """Vectors of one dimension, searched exactly.

    Any number of threads may search while others add, remove or update: a search sees the index as
    it was when it began. ``dtype`` is how vectors are stored; scores are those of the stored
    values.

    >>> index = fr.Index(2, metric="l2")
    >>> index.add([[0, 0], [3, 4], [6, 8]])
    array([0, 1, 2])
    >>> index.search([3, 4], k=2)
    Hits(scores=array([0., 5.], dtype=float32), ids=array([1, 0]))
    """

    def __init__(
        self, dim: int, *, metric: Metric = "cosine", dtype: DType = "float32", device: str = "cpu"
    ) -> None:
        one_of(metric, METRICS, "metric")
        dim = whole(dim, "dim", most=_core.MAX_DIM)
        self._form = Format(dim, metric, as_dtype(dtype), backend_for(device))
        self._device = device
        self._state = State(self._form, (), IdMap(), 0)
        self._writing = ForkSafeLock()
        self._counters = self._form.backend.counters()

    # --- what it is -------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._form.dim

    @property
    def metric(self) -> str:
        """How rows are compared."""
        return self._form.metric

    @property
    def dtype(self) -> DType:
        """How vectors are stored."""
        return self._form.dtype

    @property
    def device(self) -> str:
        """Where vectors are kept and searched."""
        return self._device

    @property
    def nbytes(self) -> int:
        """Bytes that the index holds: vectors, codes and ids."""
        return self._state.nbytes

    @property
    def ids(self) -> NDArray[np.int64]:
        """The ids of all rows, in the order in which they were first added and in which a mask over
        them is read. Updating, compacting, saving and loading keep it; removing drops ids, and one
        that is added again comes last.
        """
        return ids_as_added(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def __contains__(self, row_id: object) -> bool:
        if not isinstance(row_id, (int, np.integer)) or not 0 <= row_id <= MAX_ID:
            return False
        return bool(locate(self._state, as_ids([int(row_id)]))[0] >= 0)

    def __repr__(self) -> str:
        what = f"dim={self.dim}, metric={self.metric!r}, dtype={self.dtype!r}"
        return f"Index({what}, device={self.device!r}, rows={len(self)})"

    def stats(self) -> dict[str, float]:
        """What the searches of this index did so far.

        ``rows_scored_per_query`` is how many rows int8 codes could not rule out; ``overflows``
        counts how often a query had more of them than its buffer holds, which costs time and never
        changes an answer.

        >>> index = fr.Index(2)
        >>> _ = index.add([[1, 0], [0, 1]]), index.search([[1, 1], [2, 1]], k=1)
        >>> index.stats()["queries"]
        2
        """
        counts: dict[str, float] = dict(self._counters.read())
        counts["rows_scored_per_query"] = counts["rows_scored"] / max(counts["queries"], 1)
        return counts

    def get(self, ids: Any) -> NDArray[Any]:
        """Return the stored vectors of these ids, bit for bit (bfloat16 comes as the float32 of the
        same value).

        >>> index = fr.Index(2)
        >>> _ = index.add([[1, 2], [3, 4]])
        >>> index.get([1])
        array([[3., 4.]], dtype=float32)
        """
        return as_float(stored_rows(self._state, as_ids(ids)))

    # --- changing ---------------------------------------------------------------------------------

    def add(self, vectors: Any, ids: Any = None) -> NDArray[np.int64]:
        """Copy vectors into the index and return their ids: the given ones, or the next unused.

        Either all of them are in afterwards or, after an error, none.

        >>> index = fr.Index(2)
        >>> index.add([[1, 2], [3, 4]])
        array([0, 1])
        >>> index.add([[5, 6], [7, 8]], ids=[40, 30])
        array([40, 30])
        >>> index.add([9, 9])
        array([41])
        """
        rows = self._form.backend.as_rows(vectors, name="vectors", dim=self.dim)
        given = None if ids is None else as_ids(ids)
        if given is not None and len(given) != len(rows):
            raise ValueError(
                f"there must be one id for each vector, "
                f"got {len(given)} ids for {len(rows)} vectors"
            )
        with self._writing:
            if given is not None:
                refuse_known(self._state, given)
            # One assignment publishes; what fails before it leaves the index as it was.
            self._state, added = appended(self._state, rows, given)
        return added

    def extend(self, other: Index) -> None:
        """Add the rows of another index under the ids that they have there, without copying them:
        both indexes use the same memory, which for one that was loaded is its file.

        >>> old, new = fr.Index(2, metric="ip"), fr.Index(2, metric="ip")
        >>> _ = old.add([[1, 0], [0, 1]]), new.add([[2, 2]], ids=[9])
        >>> old.extend(new)
        >>> old.search([1, 1], k=1).ids
        array([9])
        """
        if not isinstance(other, Index):
            raise TypeError(
                f"extend() takes an Index to share the rows of, got {type(other).__name__}; "
                f"add() takes vectors"
            )
        theirs = other._state
        if theirs.form != self._form:
            raise ValueError(
                f"an index is extended by one of the same dim, metric, dtype and device, got "
                f"{other!r} for {self!r}"
            )
        with self._writing:
            refuse_known(self._state, row_ids(theirs), remedy="remove them from one of the two")
            self._state = extended(self._state, theirs)

    def remove(self, ids: Any) -> None:
        """Remove the rows with these ids. An unknown id is an error, and then nothing is removed.

        Searches that are running still see the rows. Their memory is freed by :meth:`compact`.

        >>> index = fr.Index(1, metric="l2")
        >>> _ = index.add([[0], [1], [2]])
        >>> index.remove([0, 2])
        >>> index.ids
        array([1])
        >>> index.remove([7])
        Traceback (most recent call last):
        ...
        KeyError: '1 of 1 ids are not in the index: 7'
        """
        gone = as_ids(ids)
        refuse_twice(gone)
        with self._writing:
            self._state = without(self._state, gone)

    def update(self, ids: Any, vectors: Any) -> None:
        """Give the rows with these ids new vectors, in one step for every search. The order of
        ``index.ids`` stays.

        >>> index = fr.Index(1, metric="l2")
        >>> _ = index.add([[0], [1]])
        >>> index.update([0], [[9]])
        >>> index.get([0, 1])
        array([[9.],
               [1.]], dtype=float32)
        """
        changed = as_ids(ids)
        rows = self._form.backend.as_rows(vectors, name="vectors", dim=self.dim)
        if len(changed) != len(rows):
            raise ValueError(
                f"there must be one vector for each id, "
                f"got {len(rows)} vectors for {len(changed)} ids"
            )
        refuse_twice(changed)
        with self._writing:
            self._state = updated(self._state, changed, rows)

    def reserve(self, n_rows: int) -> None:
        """Make room for ``n_rows`` more rows at once, so that adding them one by one allocates
        nothing.

        >>> index = fr.Index(2)
        >>> index.reserve(10_000)
        >>> len(index)
        0
        """
        n_rows = whole(n_rows, "n_rows", most=MAX_ROWS)
        with self._writing:
            self._state = reserved(self._state, n_rows)

    def compact(self) -> None:
        """Put all rows into one block and give the memory of removed ones back. Ids, their order
        and answers do not change.

        >>> index = fr.Index(2)
        >>> _ = index.add(np.eye(2), ids=[5, 3])
        >>> index.remove([5])
        >>> index.compact()
        >>> index.ids
        array([3])
        """
        with self._writing:
            self._state = compacted(self._state)
