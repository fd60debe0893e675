"""Save and load an index: from a state to a file, and back.

``indexfile.py`` says what such a file holds, ``tensorfile.py`` owns the bytes and the checksums.
Removed rows are not written. Codes are, unless they are not wanted; where a file has none, or those
of another backend, they are computed again.
"""

from __future__ import annotations

import io
import mmap as mmap_module
import os
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from fastretrieve import formats, indexfile
from fastretrieve.arguments import file_name, shown
from fastretrieve.atomic import replacing
from fastretrieve.changes import consecutive, live_rows
from fastretrieve.checking import first_fault
from fastretrieve.ids import IdMap
from fastretrieve.indexfile import Facts
from fastretrieve.locating import ids_as_added
from fastretrieve.memory import HOST, empty
from fastretrieve.ordering import order_of
from fastretrieve.segments import STRIP_ROWS, Block, Format, State, View, new_block
from fastretrieve.tensorfile import (
    Progress,
    Source,
    StorageError,
    array,
    read_header,
    verify,
    write,
)

if TYPE_CHECKING:
    from typing_extensions import Self

PART_BYTES = 16 << 20


class Files:
    """Saving, loading and pickling, for :class:`fastretrieve.Index`."""

    _form: Format
    _state: State
    _device: str

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
        Without ``codes`` the file is a fifth smaller and loading computes them. ``progress`` is
        called with how many bytes are done, and how many there are.
        """
        state = self._state
        with replacing(file_name(path)) as file:
            write(file, *_contents(state, codes), progress)

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
        encodes all rows again and compares every bit: a file from somebody else may have checksums
        that fit and codes that lie, so that searches miss rows. ``progress`` is called with how
        many bytes of these checks are done, and how many there are.

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
        try:
            with open(name, "rb") as file:
                if mmap and os.fstat(file.fileno()).st_size:
                    buffer: Any = mmap_module.mmap(file.fileno(), 0, access=mmap_module.ACCESS_READ)
                else:
                    buffer = _read(file)
            return cls._from_buffer(buffer, device, copy=not mmap, check=verify, progress=progress)
        except StorageError as error:
            raise StorageError(f"{name}: {error}{_hint(name)}") from None

    @classmethod
    def _from_buffer(
        cls,
        buffer: Any,
        device: str,
        *,
        copy: bool,
        check: bool | Literal["codes"],
        progress: Progress | None = None,
    ) -> Self:
        header = read_header(buffer)
        facts = Facts(header)
        made = cls(facts.dim, metric=facts.metric, dtype=facts.dtype, device=device)  # type: ignore[call-arg]
        form = made._form
        n_bytes = sum(tensor.end - tensor.begin for tensor in header.tensors.values())
        steps = _Steps((n_bytes if check else 0) + facts.n_rows * form.row_bytes, progress)
        if check:
            verify(buffer, header, steps.add)
        made._state = _state(facts, form, buffer, copy=copy)
        for view in made._state.views:
            # Encoding reads all rows anyway, and so does a device, whose results would be too late.
            if check or view.block.has_own_codes or form.memory is not HOST:
                _prove(facts, view, check == "codes", steps)
        return made

    @classmethod
    def from_faiss(cls, flat: Any, *, device: str = "cpu") -> Self:
        """Return an index with the vectors and ids of FAISS's ``IndexFlatL2``, ``IndexFlatIP`` or
        an ``IndexIDMap`` of one. FAISS's L2 is ``sqeuclidean``.
        """
        return cast("Self", formats.from_faiss(flat, cast(Any, cls), device))

    def to_faiss(self) -> Any:
        """Return FAISS's ``IndexFlatIP`` or ``IndexFlatL2`` with these vectors, in an
        ``IndexIDMap2`` where the ids are not 0, 1, 2 and so on.
        """
        return formats.to_faiss(cast(Any, self))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the bytes of a file. Processes of one machine had better share a saved one."""
        file = io.BytesIO()
        write(file, *_contents(self._state, True))
        return _from_bytes, (type(self), file.getbuffer().tobytes(), self._device)


def _hint(name: str) -> str:
    """What else would read a file of this name."""
    is_vectors = name.lower().endswith(formats.SUFFIXES)
    return "; read_vectors() reads such a file, and add() takes what it returns" * is_vectors


def _from_bytes(kind: type[Files], data: bytes, device: str) -> Files:
    made = kind._from_buffer(data, device, copy=True, check=True)
    for view in made._state.views:
        view.block.has_own_codes = True  # whoever unpickles trusts the writer with more
    return made


class _Steps:
    """Adds up how many bytes are done, for a progress bar."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, n: int) -> None:
        """Say that ``n`` more are done."""
        self._done += n
        if self._progress is not None:
            self._progress(self._done, self._total)


# --- writing --------------------------------------------------------------------------------------


def _contents(state: State, codes: bool) -> tuple[dict[str, str], list[Source]]:
    """What a file of this state says and holds."""
    form, n, ids = state.form, len(state), ids_as_added(state)
    layout = form.backend.layout if codes else None
    first_id = (int(ids[0]) if n else 0) if consecutive(ids) else None
    sources = []
    if layout is not None:
        shape = (n // STRIP_ROWS, form.strip_bytes)
        sources.append(Source("codes", "U8", shape, lambda: _code_parts(state)))
    if first_id is None:
        sources.append(Source("ids", "I64", (n,), lambda: [ids]))
        if not bool((ids[1:] > ids[:-1]).all()):
            order = order_of(ids)
            sources.append(Source("id_order", "I64", (n,), lambda: [order]))
    kind = indexfile.TYPES[form.dtype]
    sources.append(Source("rows", kind, (n, form.dim), lambda: _row_parts(state)))
    said = indexfile.metadata(
        dim=form.dim,
        metric=form.metric,
        dtype=form.dtype,
        next_id=state.next_id,
        first_id=first_id,
        codes=layout,
    )
    return said, sources


def _row_parts(state: State) -> Iterator[NDArray[Any]]:
    for part in live_rows(state, PART_BYTES):
        yield state.form.memory.to_host(part)


def _code_parts(state: State) -> Iterator[NDArray[np.uint8]]:
    """The codes of all whole strips: those in memory, or where rows were removed or updated those
    of the rows as they are written.
    """
    to_host = state.form.memory.to_host
    views = [view for view in state.views if view.n_rows]
    if len(views) == 1 and views[0].live is None and state.order is None:
        step = max(PART_BYTES // state.form.strip_bytes, 1)
        for begin in range(0, views[0].n_strips, step):
            yield to_host(views[0].block.codes[begin : min(begin + step, views[0].n_strips)])
        return
    n_rows = max(PART_BYTES // state.form.row_bytes // STRIP_ROWS, 1) * STRIP_ROWS
    staging = new_block(state.form, n_rows, slot=0, first_id=0, own_ids=False)
    no_ids, filled = np.zeros(0, np.int64), 0
    for part in live_rows(state, PART_BYTES):
        begin = 0
        while begin < len(part):
            end = min(begin + n_rows - filled, len(part))
            staging.write(part[begin:end], no_ids, filled)
            begin, filled = end, filled + end - begin
            if filled == n_rows:
                yield to_host(staging.codes[: staging.encode(0, filled)])
                filled = 0
    yield to_host(staging.codes[: staging.encode(0, filled)])


# --- reading --------------------------------------------------------------------------------------


def _state(facts: Facts, form: Format, buffer: Any, *, copy: bool) -> State:
    """The state that a file holds; with ``copy`` nothing of it stays in the buffer."""
    n_rows, n_strips = facts.n_rows, facts.n_rows // STRIP_ROWS
    if n_rows == 0:
        return State(form, (), IdMap(), facts.next_id)

    def taken(name: str) -> Any:
        part = array(buffer, facts.header, name)
        placed = form.memory.placed(part)
        return _copied(part) if copy and placed is part else placed

    ids, id_map = (None, IdMap()) if facts.first_id is not None else _ids(facts, buffer, copy=copy)
    has_codes = facts.layout == form.backend.layout
    if has_codes:
        facts.require("codes", "U8", (n_strips, form.strip_bytes))
    codes = taken("codes") if has_codes else form.memory.empty((n_strips, form.strip_bytes), "u1")
    block = Block(form, taken("rows"), codes, slot=0, first_id=facts.first_id or 0, ids=ids)
    if not has_codes:
        block.encode(0, n_rows)
    block.is_finite, block.has_own_codes = False, not has_codes
    view = View(block, n_rows, n_strips, None, n_rows)
    return State(form, (view,), id_map, facts.next_id)


def _prove(facts: Facts, view: View, codes: bool, steps: _Steps) -> None:
    """Look at all rows of the file and, with ``codes``, at the codes that are taken from it."""
    block, form = view.block, view.block.form
    codes = codes and not block.has_own_codes
    fault = first_fault(view, codes=codes, tell=lambda n: steps.add(n * form.row_bytes))
    if fault.row >= 0:
        row_id = int(view.row_ids()[fault.row])
        wanted = f"finite numbers in the row with id {row_id}"
        raise facts.wrong_numbers("rows", wanted, "others", fault.row * form.row_bytes)
    if fault.code >= 0:
        first = fault.code // form.strip_bytes * STRIP_ROWS
        wanted = f"the codes that the vectors of rows {first} to {first + STRIP_ROWS - 1} give"
        found = "others; load it without verify and compact() makes them anew"
        raise facts.wrong_numbers("codes", wanted, found, fault.code)
    block.is_finite, block.has_own_codes = True, block.has_own_codes or codes


def _ids(facts: Facts, buffer: Any, *, copy: bool) -> tuple[NDArray[np.int64], IdMap]:
    """The ids, which must be different, in range and below the next one; and where they are."""
    ids = array(buffer, facts.header, "ids")
    ids = _copied(ids) if copy else ids
    order: NDArray[np.int64] = np.arange(facts.n_rows)
    ascending = ids
    if "id_order" in facts.header.tensors:
        order = array(buffer, facts.header, "id_order")
        if int(order.min()) < 0 or int(order.max()) >= facts.n_rows:
            wanted = f"row numbers below {facts.n_rows}"
            raise facts.wrong_numbers("id_order", wanted, "others")
        order = _copied(order) if copy else order
        ascending = ids[order]
    if not bool((ascending[1:] > ascending[:-1]).all()):
        wanted = "different ids, in order of id_order if there is one"
        raise facts.wrong_numbers("ids", wanted, "others")
    if ascending[0] < 0 or ascending[-1] >= facts.next_id:
        wanted = f"ids from 0 to below the next, {facts.next_id}"
        raise facts.wrong_numbers("ids", wanted, f"{ascending[0]} to {ascending[-1]}")
    return ids, IdMap(((ascending, order),))


def _copied(part: NDArray[Any]) -> NDArray[Any]:
    result = empty(part.shape, part.dtype)
    step = max(PART_BYTES // max(part[:1].nbytes, 1), 1)
    for begin in range(0, len(part), step):
        result[begin : begin + step] = part[begin : begin + step]
    return result


def _read(file: IO[bytes]) -> bytearray:
    """All of a file, in parts between which Ctrl-C is heard."""
    data = bytearray(os.fstat(file.fileno()).st_size)
    view, at = memoryview(data), 0
    while n := file.readinto(view[at : at + PART_BYTES]):  # type: ignore[attr-defined]
        at += n
    return data[:at] if at < len(data) else data
