"""Save and load the state of an index: to a file, and back.

``indexfile.py`` says what such a file holds, ``tensorfile.py`` owns the bytes and the checksums.
A file holds no removed rows. It holds codes and the screen unless the caller declines them; if it
has no codes, or those of another backend, loading computes them again.
"""

from __future__ import annotations

import contextlib
import io
import mmap as mmap_module
import os
from collections.abc import Iterator
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._backends.memory import HOST
from fastretrieve._common.atomic import replacing
from fastretrieve._common.errors import StorageError
from fastretrieve._common.ordering import order_of
from fastretrieve._common.progress import Progress
from fastretrieve._files import formats, indexfile, parts, screens
from fastretrieve._files.indexfile import IndexFacts
from fastretrieve._files.tensorfile import (
    ALIGNMENT,
    PART_BYTES,
    NewTensor,
    array,
    copied,
    read_header,
    verify,
    write,
)
from fastretrieve._state.changes import consecutive, live_rows
from fastretrieve._state.checking import first_fault
from fastretrieve._state.ids import IdMap
from fastretrieve._state.locating import ids_as_added
from fastretrieve._state.segments import Segment
from fastretrieve._state.slabs import STRIP_ROWS, Format, Slab, new_slab
from fastretrieve._state.state import State


class Read(NamedTuple):
    """An opened file: the facts of its header, and its bytes."""

    facts: IndexFacts
    buffer: Any
    is_mapped: bool

    @property
    def n_bytes(self) -> int:
        """Bytes of its tensors."""
        return sum(tensor.end - tensor.begin for tensor in self.facts.header.tensors.values())


def save(path: str, state: State, *, codes: bool, progress: Progress | None) -> None:
    """Write a state to a file, whole or not at all."""
    with replacing(path) as file:
        write(file, *_contents(state, codes), progress)


def as_bytes(state: State) -> bytes:
    """The bytes of a file of this state."""
    file = io.BytesIO()
    write(file, *_contents(state, True))
    return file.getbuffer().tobytes()


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Let errors about a file begin with its name, and end with the call that would read it."""
    try:
        yield
    except StorageError as error:
        is_vectors = path.lower().endswith(formats.SUFFIXES)
        hint = "; read_vectors() reads such a file, and add() takes what it returns" * is_vectors
        raise StorageError(f"{path}: {error}{hint}") from None


def opened(path: str, *, mmap: bool) -> Read:
    """Open an index file and check its header."""
    with open(path, "rb") as file:
        if mmap and os.fstat(file.fileno()).st_size:
            buffer: Any = mmap_module.mmap(file.fileno(), 0, access=mmap_module.ACCESS_READ)
        else:
            buffer = _read(file)
    return from_buffer(buffer, is_mapped=mmap)


def from_buffer(buffer: Any, *, is_mapped: bool) -> Read:
    """The same for bytes in memory."""
    return Read(IndexFacts(read_header(buffer)), buffer, is_mapped)


def load(
    read: Read, form: Format, *, check: bool | Literal["codes"], progress: Progress | None = None
) -> State:
    """The state that a file holds, checked as the caller asks."""
    facts = read.facts
    steps = _Steps((read.n_bytes if check else 0) + facts.n_rows * form.row_bytes, progress)
    if check:
        verify(read.buffer, facts.header, steps.add)
    state = _state(facts, form, read.buffer, copy=not read.is_mapped)
    for segment in state.segments:
        # Encoding reads all rows anyway. So does a device, and its results would come too late.
        if check or segment.slab.has_own_codes or form.memory is not HOST:
            _prove(facts, segment, check == "codes", steps)
    if check == "codes":
        screens.prove(facts, state)
    return state


def trust(state: State) -> None:
    """Take the codes and the screen of a state for those of its rows."""
    for segment in state.segments:
        segment.slab.has_own_codes = True
    if state.screen is not None:
        state.screen.is_proved = True


class _Steps:
    """Adds up the bytes that are done, for a progress bar."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, n: int) -> None:
        """Say that ``n`` more are done."""
        self._done += n
        if self._progress is not None:
            self._progress(self._done, self._total)


# --- writing --------------------------------------------------------------------------------------


def _contents(state: State, codes: bool) -> tuple[dict[str, str], list[NewTensor]]:
    """The metadata and tensors of a file of this state."""
    form, n, ids = state.form, len(state), ids_as_added(state)
    layout = form.backend.layout if codes else None
    first_id = (int(ids[0]) if n else 0) if consecutive(ids) else None
    sources = []
    if layout is not None:
        shape = (n // STRIP_ROWS, form.strip_bytes)
        sources.append(NewTensor("codes", "U8", shape, lambda: _code_parts(state)))
    screen = screens.tensors(state) if codes else []
    sources.extend(tensor for tensor in screen if tensor.n_bytes % ALIGNMENT == 0)
    if first_id is None:
        sources.append(NewTensor("ids", "I64", (n,), lambda: [ids]))
        if not bool((ids[1:] > ids[:-1]).all()):
            order = order_of(ids)
            sources.append(NewTensor("id_order", "I64", (n,), lambda: [order]))
    kind = indexfile.TYPES[form.dtype]
    sources.append(NewTensor("rows", kind, (n, form.dim), lambda: _row_parts(state)))
    sources.extend(tensor for tensor in screen if tensor.n_bytes % ALIGNMENT)
    said = indexfile.Said(
        version=parts.version_of(tensor.name for tensor in screen),
        dim=form.dim,
        metric=form.metric,
        dtype=form.dtype,
        next_id=state.next_id,
        first_id=first_id,
        codes=layout,
    )
    return said.metadata(), sources


def _row_parts(state: State) -> Iterator[NDArray[Any]]:
    for part in live_rows(state, PART_BYTES):
        yield state.form.memory.to_host(part)


def _code_parts(state: State) -> Iterator[NDArray[np.uint8]]:
    """The codes of all whole strips: those in memory, or new ones for the rows as they are written
    if some were removed or updated.
    """
    to_host = state.form.memory.to_host
    segments = [segment for segment in state.segments if segment.n_rows]
    if len(segments) == 1 and segments[0].live is None and state.order is None:
        step = max(PART_BYTES // state.form.strip_bytes, 1)
        for begin in range(0, segments[0].n_strips, step):
            yield to_host(segments[0].slab.codes[begin : min(begin + step, segments[0].n_strips)])
        return
    n_rows = max(PART_BYTES // state.form.row_bytes // STRIP_ROWS, 1) * STRIP_ROWS
    staging = new_slab(state.form, n_rows, slot=0, first_id=0, own_ids=False)
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


def _state(facts: IndexFacts, form: Format, buffer: Any, *, copy: bool) -> State:
    """The state that a file holds; with ``copy`` nothing of it stays in the buffer."""
    n_rows, n_strips = facts.n_rows, facts.n_rows // STRIP_ROWS
    screen = screens.read(facts, buffer, copy=copy)
    if n_rows == 0:
        return State(form, (), IdMap(), facts.next_id)

    def taken(name: str) -> Any:
        part = array(buffer, facts.header, name)
        placed = form.memory.placed(part)
        return copied(part) if copy and placed is part else placed

    ids, id_map = (None, IdMap()) if facts.first_id is not None else _ids(facts, buffer, copy=copy)
    has_codes = facts.layout == form.backend.layout
    if has_codes:
        facts.require("codes", "U8", (n_strips, form.strip_bytes))
    codes = taken("codes") if has_codes else form.memory.empty((n_strips, form.strip_bytes), "u1")
    slab = Slab(form, taken("rows"), codes, slot=0, first_id=facts.first_id or 0, ids=ids)
    if not has_codes:
        slab.encode(0, n_rows)
    slab.is_finite, slab.has_own_codes = False, not has_codes
    segment = Segment(slab, n_rows, n_strips, None, n_rows)
    return State(form, (segment,), id_map, facts.next_id, screen)


def _prove(facts: IndexFacts, segment: Segment, codes: bool, steps: _Steps) -> None:
    """Check all rows of the file and, with ``codes``, the codes that came from it."""
    slab, form = segment.slab, segment.slab.form
    codes = codes and not slab.has_own_codes
    fault = first_fault(segment, codes=codes, tell=lambda n: steps.add(n * form.row_bytes))
    if fault.row >= 0:
        row_id = int(segment.row_ids()[fault.row])
        wanted = f"finite numbers in the row with id {row_id}"
        raise facts.wrong_numbers("rows", wanted, "others", fault.row * form.row_bytes)
    if fault.code >= 0:
        first = fault.code // form.strip_bytes * STRIP_ROWS
        wanted = f"the codes that the vectors of rows {first} to {first + STRIP_ROWS - 1} give"
        found = "others; load it without verify and compact() makes them anew"
        raise facts.wrong_numbers("codes", wanted, found, fault.code)
    slab.is_finite, slab.has_own_codes = True, slab.has_own_codes or codes


def _ids(facts: IndexFacts, buffer: Any, *, copy: bool) -> tuple[NDArray[np.int64], IdMap]:
    """The ids, which must be different, in range and below the next one; and where they are."""
    ids = array(buffer, facts.header, "ids")
    ids = copied(ids) if copy else ids
    order: NDArray[np.int64] = np.arange(facts.n_rows)
    ascending = ids
    if "id_order" in facts.header.tensors:
        order = array(buffer, facts.header, "id_order")
        if int(order.min()) < 0 or int(order.max()) >= facts.n_rows:
            wanted = f"row numbers below {facts.n_rows}"
            raise facts.wrong_numbers("id_order", wanted, "others")
        order = copied(order) if copy else order
        ascending = ids[order]
    if not bool((ascending[1:] > ascending[:-1]).all()):
        wanted = "different ids, in order of id_order if there is one"
        raise facts.wrong_numbers("ids", wanted, "others")
    if ascending[0] < 0 or ascending[-1] >= facts.next_id:
        wanted = f"ids from 0 to below the next, {facts.next_id}"
        raise facts.wrong_numbers("ids", wanted, f"{ascending[0]} to {ascending[-1]}")
    return ids, IdMap(((ascending, order),))


def _read(file: IO[bytes]) -> bytearray:
    """All of a file, read in parts, so that Ctrl-C need not wait for the end."""
    data = bytearray(os.fstat(file.fileno()).st_size)
    view, at = memoryview(data), 0
    while n := file.readinto(view[at : at + PART_BYTES]):  # type: ignore[attr-defined]
        at += n
    return data[:at] if at < len(data) else data
