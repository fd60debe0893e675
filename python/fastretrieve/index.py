"""An exact top-k index.

``Index`` is the whole public class: it checks what the caller passes, publishes states, and
delegates. ``_state`` makes one state from another and owns memory and ids, ``_queries`` searches a
state, ``_files`` writes and reads one, ``_backends`` do the work. What "exact" means is written in
``docs/exactness.md``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve._backends.interface import Pair
from fastretrieve._backends.runtime import backend_for
from fastretrieve._common.arguments import file_name, one_of, shown, whole
from fastretrieve._common.arrays import DType, as_dtype, as_float
from fastretrieve._common.locks import ForkSafeLock
from fastretrieve._common.metric import METRICS, Metric
from fastretrieve._common.progress import Progress
from fastretrieve._files import faiss, saving
from fastretrieve._queries import joins, plans, searching
from fastretrieve._queries.joins import GRAPH_ROWS, PAIR_BATCH
from fastretrieve._queries.plans import SearchPlan
from fastretrieve._queries.results import (
    Graph,
    Hits,
    InRange,
    Pairs,
    ScoreDType,
    is_double,
)
from fastretrieve._queries.searching import Among, Searcher
from fastretrieve._state.changes import appended, compacted, extended, reserved, updated, without
from fastretrieve._state.ids import MAX_ID, IdMap, as_ids
from fastretrieve._state.locating import (
    ids_as_added,
    locate,
    refuse_known,
    refuse_twice,
    row_ids,
    stored_rows,
)
from fastretrieve._state.optimizing import Optimized, optimized
from fastretrieve._state.slabs import Format
from fastretrieve._state.state import State

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_ROWS = 2**40  # reserved at once: more than any machine holds


class Index:
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

    # --- properties -------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._form.dim

    @property
    def metric(self) -> str:
        """The metric: cosine, ip, l2 or sqeuclidean."""
        return self._form.metric

    @property
    def dtype(self) -> DType:
        """The type of stored numbers: float32, float16 or bfloat16."""
        return self._form.dtype

    @property
    def device(self) -> str:
        """The device that holds and searches the vectors."""
        return self._device

    @property
    def nbytes(self) -> int:
        """Bytes that the index holds: vectors, codes, ids and what :meth:`optimize` made."""
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
        """Totals over the searches of this index so far.

        ``rows_scored_per_query`` counts the rows that int8 codes could not rule out. ``overflows``
        counts queries that had more of them than their buffer holds, which costs time and never
        changes an answer. ``optimized_rows`` is how many rows :meth:`optimize` has seen and are
        still there.

        >>> index = fr.Index(2)
        >>> _ = index.add([[1, 0], [0, 1]]), index.search([[1, 1], [2, 1]], k=1)
        >>> index.stats()["queries"]
        2
        """
        counts: dict[str, float] = dict(self._counters.read())
        counts["optimized_rows"] = self._state.optimized_rows
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

    # --- searching --------------------------------------------------------------------------------

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        where: Any = None,
        exclude: Any = None,
        probes: int | None = None,
        recall: float | None = None,
        score_dtype: ScoreDType = "float32",
        out: Pair | None = None,
        check: bool = False,
    ) -> Hits:
        """Return the exact top ``k`` rows for each query.

        One vector gives one row of results, a matrix gives a matrix, in the kind of array that
        came. The scores are float64 inside; ``score_dtype`` says how they are returned.

        Only the rows of ``where`` are considered, and none of ``exclude``: booleans are a mask over
        ``index.ids``, integers are ids, two dimensions are one row of them for each query. Ids that
        are not in the index are ignored, and so is -1, with which rows of ids can be filled up.

        ``probes`` makes the search approximate, after :meth:`optimize`: of the rows that were there
        then, only those of so many leaves of 64 are considered, the ones nearest to the query, and
        the best of these rows are found exactly. ``hits.proven`` says how many of the best rows of
        each query are certain all the same. ``recall=0.95`` reads as many leaves as it took to find
        that share of the true neighbours of the queries on which :meth:`optimize` measured it. It
        is a statistic, not a promise; behind ``where`` or ``exclude`` it goes on until ``k`` rows
        are found.

        ``out`` is a pair of arrays (scores, ids) that receive the results, of their shape and type
        and where the queries are. Queries that are not finite are an error; those on a GPU come
        back as id -1 and NaN instead and are counted in :meth:`stats`, because a check would wait
        for the GPU. ``check=True`` waits and raises.

        >>> index = fr.Index(2, metric="ip")
        >>> ids = index.add([[1, 0], [0, 1]], ids=[7, 5])
        >>> index.search([[1, 1]], k=3)
        Hits(scores=array([[ 1.,  1., nan]], dtype=float32), ids=array([[ 5,  7, -1]]))
        >>> index.search([[1, 1]], k=1, exclude=[5]).ids
        array([[7]])
        """
        among = None if where is None and exclude is None else Among(where, exclude)
        return searching.search(
            self._state,
            self._counters,
            queries,
            k,
            among,
            score_dtype=score_dtype,
            out=out,
            check=check,
            probes=probes,
            recall=recall,
        )

    def search_ids(
        self,
        ids: Any,
        k: int = 10,
        *,
        include_self: bool = False,
        where: Any = None,
        exclude: Any = None,
        score_dtype: ScoreDType = "float32",
    ) -> Hits:
        """Return the exact top ``k`` neighbours of rows of the index, without the row itself unless
        ``include_self``.

        >>> index = fr.Index(1, metric="l2")
        >>> _ = index.add([[0], [1], [5]])
        >>> index.search_ids([2, 0], k=1).ids
        array([[1],
               [1]])
        """
        searcher, among = self._searcher(score_dtype), _among(where, exclude)
        return searching.search_ids(searcher, ids, k, among, include_self=include_self)

    def range_search(
        self,
        queries: Any,
        radius: float,
        *,
        where: Any = None,
        exclude: Any = None,
        score_dtype: ScoreDType = "float32",
    ) -> InRange:
        """Return all rows within ``radius`` of each query, exactly.

        Within means a score of at least the radius for similarities (cosine, ip) and of at most the
        radius for distances (l2, sqeuclidean); the float64 score decides. ``where`` and ``exclude``
        restrict the rows as they do in :meth:`search`.

        >>> index = fr.Index(1, metric="l2")
        >>> _ = index.add([[0], [3], [4], [9]])
        >>> index.range_search([[4], [100]], radius=1)
        InRange(offsets=array([0, 2, 2]), scores=array([0., 1.], dtype=float32), ids=array([2, 1]))
        """
        searcher, among = self._searcher(score_dtype), _among(where, exclude)
        return searching.range_search(searcher, queries, radius, among)

    def plan(
        self,
        batch: int,
        k: int = 10,
        *,
        where: Any = None,
        exclude: Any = None,
        score_dtype: ScoreDType = "float32",
    ) -> SearchPlan:
        """Prepare searches of up to ``batch`` queries over the index as it is now: workspace and
        results are allocated here, and a call of the plan is a search.

        On a GPU such a call can be captured in a CUDA graph. ``where`` and ``exclude`` are those of
        :meth:`search`, with one dimension.

        >>> index = fr.Index(2, metric="ip")
        >>> _ = index.add([[1, 0], [0, 1]])
        >>> plan = index.plan(8, k=1)
        >>> plan([[0, 1], [1, 0]]).ids
        array([[1],
               [0]])
        """
        return plans.plan(self._searcher(score_dtype), batch, k, _among(where, exclude))

    def pairs(
        self,
        radius: float,
        *,
        score_dtype: ScoreDType = "float32",
        progress: Progress | None = None,
    ) -> Pairs:
        """Return every pair of different rows within ``radius`` once, in order of their ids.

        Use :meth:`iter_pairs` if there may be more than memory holds.

        >>> index = fr.Index(1, metric="l2")
        >>> _ = index.add([[5], [1], [6], [1]])
        >>> index.pairs(radius=1)
        Pairs(scores=array([1., 0.], dtype=float32), ids=array([[0, 2],
               [1, 3]]))
        """
        return joins.pairs(self._searcher(score_dtype), radius, score_dtype, progress)

    def iter_pairs(
        self,
        radius: float,
        *,
        batch: int = PAIR_BATCH,
        score_dtype: ScoreDType = "float32",
        progress: Progress | None = None,
    ) -> Iterator[Pairs]:
        """Yield the pairs of :meth:`pairs` in parts of at most ``batch``, each in order of ids.

        A row with more than ``batch`` neighbours is found whole and handed over in several parts.
        ``progress`` is called with how many rows are done, and how many there are.

        >>> index = fr.Index(1, metric="l2")
        >>> _ = index.add([[5], [1], [6], [1]])
        >>> sum(len(part.ids) for part in index.iter_pairs(radius=1, batch=1))
        2
        """
        return joins.iter_pairs(self._searcher(score_dtype), radius, batch, progress)

    def knn_graph(
        self,
        k: int = 10,
        *,
        include_self: bool = False,
        score_dtype: ScoreDType = "float32",
        progress: Progress | None = None,
    ) -> Graph:
        """Return the exact ``k`` nearest rows of every row, in order of ``index.ids``.

        >>> index = fr.Index(1, metric="l2")
        >>> _ = index.add([[0], [1], [5]])
        >>> index.knn_graph(k=1).ids.ravel()
        array([1, 0, 1])
        """
        searcher = self._searcher(score_dtype)
        return joins.knn_graph(searcher, k, include_self, score_dtype, progress)

    def iter_knn_graph(
        self,
        k: int = 10,
        *,
        include_self: bool = False,
        batch: int = GRAPH_ROWS,
        score_dtype: ScoreDType = "float32",
        progress: Progress | None = None,
    ) -> Iterator[Graph]:
        """Yield the graph of :meth:`knn_graph` in parts of at most ``batch`` rows.

        >>> index = fr.Index(1, metric="l2")
        >>> _ = index.add([[0], [1], [5]])
        >>> [part.rows.tolist() for part in index.iter_knn_graph(k=1, batch=2)]
        [[0, 1], [2]]
        """
        searcher = self._searcher(score_dtype)
        return joins.iter_knn_graph(searcher, k, include_self, batch, progress)

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
            # One assignment publishes; a failure before it leaves the index as it was.
            self._state, added = appended(self._state, rows, given)
        return added

    def extend(self, other: Index) -> None:
        """Add the rows of another index under their ids, without copying them: both indexes use the
        same memory, which for a loaded index is its file. If both are optimized, it is the larger
        one that stays so: call :meth:`optimize` again for all rows.

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
        """Put all rows into one segment and free the memory of removed ones. Ids, their order and
        answers do not change.

        >>> index = fr.Index(2)
        >>> _ = index.add(np.eye(2), ids=[5, 3])
        >>> index.remove([5])
        >>> index.compact()
        >>> index.ids
        array([3])
        """
        with self._writing:
            self._state = compacted(self._state)

    def optimize(self, *, queries: Any = None, progress: Progress | None = None) -> Optimized:
        """Make searches of this index faster, with the same answers in every bit.

        It looks for a few numbers of each row, its *head*, which prove that most rows cannot place,
        and puts rows that lie close together into leaves that a search can skip. Data that such
        heads cannot tell apart, and few rows, get none: the result says why. It holds about
        ``dim`` bytes a row more. Ids and their order do not change.

        ``queries`` are some like those that will come. They measure, against the exact search, how
        many leaves ``search(recall=)`` must read; without them rows of the index do.

        Searches go on meanwhile; changes wait. Rows that are added later are searched as before,
        until the next call. Files keep what it made. ``progress`` is called with how much is done,
        and how much there is.

        >>> index = fr.Index(2)
        >>> _ = index.add(np.eye(2))
        >>> made = index.optimize()
        >>> made.rows, made.head
        (0, 0)
        """
        asked = None
        if queries is not None:
            asked = self._form.backend.as_rows(queries, name="queries", dim=self.dim)
            if not len(asked):
                raise ValueError("queries must hold at least one query, got none")
        with self._writing:
            self._state, made = optimized(self._state, asked, progress)
        return made

    # --- files ------------------------------------------------------------------------------------

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        codes: bool = True,
        progress: Progress | None = None,
    ) -> None:
        """Write the index to a file, whole or not at all: an older file stays until the new one is
        complete on the disk.

        Others may change the index meanwhile; the file holds it as it was when the call began.
        Without ``codes`` the file is a fifth smaller and loading computes them; what
        :meth:`optimize` made is then left out too. ``progress`` is called with how many bytes are
        done, and how many there are.
        """
        saving.save(file_name(path), self._state, codes=codes, progress=progress)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        mmap: bool = True,
        device: str = "cpu",
        verify: bool | Literal["codes"] = False,
        progress: Progress | None = None,
    ) -> Self:
        """Read an index from a file.

        With ``mmap`` the rows stay in the file, are read when they are needed and shared by all
        processes that load it; the index can be changed, the file is not.

        Sizes, the header and ids are always checked. ``verify=True`` compares every byte with its
        checksum, which finds damage, and refuses rows that are not finite. ``verify="codes"`` also
        encodes all rows again and compares every bit, and what :meth:`optimize` made: a file from
        somebody else may have matching checksums and wrong codes, so that searches miss rows.
        ``progress`` is called with how many bytes of these checks are done, and how many there are.

        >>> import tempfile
        >>> index = fr.Index(2)
        >>> _ = index.add([[1, 0], [0, 1]])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index.save(f"{folder}/a.index")
        ...     fr.Index.load(f"{folder}/a.index")
        Index(dim=2, metric='cosine', dtype='float32', device='cpu', rows=2)
        """
        name = file_name(path)
        if verify not in (False, True, "codes"):
            raise ValueError(f"verify must be False, True or 'codes', got {shown(verify)}")
        with saving.naming(name):
            read = saving.opened(name, mmap=mmap)
            return cls._from_read(read, device, check=verify, progress=progress)

    @classmethod
    def from_faiss(cls, flat: Any, *, device: str = "cpu") -> Self:
        """Return an index with the vectors and ids of FAISS's ``IndexFlatL2``, ``IndexFlatIP`` or
        an ``IndexIDMap`` of one. FAISS's L2 is ``sqeuclidean``.
        """
        held = faiss.read_flat(flat)
        made = cls(held.dim, metric=held.metric, device=device)
        made.add(held.vectors, ids=held.ids)
        return made

    def to_faiss(self) -> Any:
        """Return FAISS's ``IndexFlatIP`` or ``IndexFlatL2`` with these vectors, in an
        ``IndexIDMap2`` where the ids are not 0, 1, 2 and so on.
        """
        return faiss.make_flat(self._state)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the bytes of a file. To share memory, let processes load one file."""
        return _unpickled, (type(self), saving.as_bytes(self._state), self._device)

    # --- inside -----------------------------------------------------------------------------------

    def _searcher(self, score_dtype: ScoreDType) -> Searcher:
        return Searcher(self._state, self._counters, is_double(score_dtype))

    @classmethod
    def _from_read(
        cls,
        read: saving.Read,
        device: str,
        *,
        check: bool | Literal["codes"],
        progress: Progress | None = None,
    ) -> Self:
        facts = read.facts
        made = cls(facts.dim, metric=facts.metric, dtype=facts.dtype, device=device)
        made._state = saving.load(read, made._form, check=check, progress=progress)
        return made


def _among(where: Any, exclude: Any) -> Among | None:
    return None if where is None and exclude is None else Among(where, exclude)


def _unpickled(kind: type[Index], data: bytes, device: str) -> Index:
    made = kind._from_read(saving.from_buffer(data, is_mapped=False), device, check=True)
    saving.trust(made._state)  # a pickle may run code, so its writer is trusted already
    return made
