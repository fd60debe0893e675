"""Save and load an index: which tensors and facts its file holds.

``tensorfile.py`` owns the bytes and the checksums, ``docs/index-files.md`` describes them. Removed
rows are not written. Codes are, unless they are not wanted; where a file has none, or those of
another backend, they are computed again.
"""

from __future__ import annotations

import io
import mmap as mmap_module
import os
import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from fastretrieve import _core
from fastretrieve.arrays import DTYPES
from fastretrieve.atomic import replacing
from fastretrieve.changes import consecutive, live_rows
from fastretrieve.ids import MAX_ID, IdMap
from fastretrieve.locating import row_ids
from fastretrieve.segments import STRIP_ROWS, Block, Format, State, View, new_block
from fastretrieve.tensorfile import (
    Header,
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

FORMAT = "fastretrieve.index"
VERSION = 1
CPU_LAYOUT = "strip64.1"  # csrc/core/strip.hpp; another number when its bytes change
METRICS = ("cosine", "ip", "l2", "sqeuclidean")
PART_BYTES = 16 << 20
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


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
        with replacing(path) as file:
            write(file, *_contents(state, codes), progress)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        mmap: bool = True,
        device: str = "cpu",
        verify: bool = False,
    ) -> Self:
        """Read an index from a file.

        With ``mmap`` the rows stay in the file, are read when they are needed and shared by all
        processes that load it; the index can be changed, the file is not. ``verify`` compares all
        of it with its checksums first; sizes and the header are always checked.

        >>> import tempfile
        >>> index = fr.Index(2)
        >>> _ = index.add([[1, 0], [0, 1]])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index.save(f"{folder}/a.index")
        ...     fr.Index.load(f"{folder}/a.index")
        Index(dim=2, metric='cosine', dtype='float32', device='cpu', rows=2)
        """
        try:
            with open(path, "rb") as file:
                if mmap and os.fstat(file.fileno()).st_size:
                    buffer: Any = mmap_module.mmap(file.fileno(), 0, access=mmap_module.ACCESS_READ)
                else:
                    buffer = _read(file)
            return cls._from_buffer(buffer, device, copy=not mmap, check=verify)
        except StorageError as error:
            raise StorageError(f"{os.fspath(path)}: {error}") from None

    @classmethod
    def _from_buffer(cls, buffer: Any, device: str, *, copy: bool, check: bool) -> Self:
        header = read_header(buffer)
        facts = Facts(header)
        if check:
            verify(buffer, header)
        made = cls(facts.dim, metric=facts.metric, dtype=facts.dtype, device=device)  # type: ignore[call-arg]
        made._state = facts.state(buffer, made._form, copy=copy)
        return made

    @classmethod
    def from_faiss(cls, flat: Any, *, device: str = "cpu") -> Self:
        """Return an index with the vectors and ids of FAISS's ``IndexFlatL2``, ``IndexFlatIP`` or
        an ``IndexIDMap`` of one. FAISS's L2 is ``sqeuclidean``.
        """
        from fastretrieve.formats import from_faiss

        return cast("Self", from_faiss(flat, cast(Any, cls), device))

    def to_faiss(self) -> Any:
        """Return FAISS's ``IndexFlatIP`` or ``IndexFlatL2`` with these vectors, in an
        ``IndexIDMap2`` where the ids are not 0, 1, 2 and so on.
        """
        from fastretrieve.formats import to_faiss

        return to_faiss(cast(Any, self))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the bytes of a file. Processes of one machine had better share a saved one."""
        file = io.BytesIO()
        write(file, *_contents(self._state, True))
        return _from_bytes, (type(self), file.getbuffer().tobytes(), self._device)


def _from_bytes(kind: type[Files], data: bytes, device: str) -> Files:
    return kind._from_buffer(data, device, copy=True, check=True)


def layout_of(form: Format) -> str:
    """The name of the codes of this backend: files keep them for the backends that share it."""
    return getattr(form.backend, "layout", CPU_LAYOUT)


# --- writing --------------------------------------------------------------------------------------


def _contents(state: State, codes: bool) -> tuple[dict[str, str], list[Source]]:
    """What a file of this state says and holds."""
    form, n, ids = state.form, len(state), row_ids(state)
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "dim": str(form.dim),
        "metric": form.metric,
        "dtype": form.dtype,
        "next_id": str(state.next_id),
    }
    sources = []
    layout = layout_of(form)
    if codes:
        metadata["codes"] = layout
        shape = (n // STRIP_ROWS, form.strip_bytes)
        sources.append(Source("codes", "U8", shape, lambda: _code_parts(state)))
    if consecutive(ids):
        metadata["first_id"] = str(int(ids[0]) if n else 0)
    else:
        sources.append(Source("ids", "I64", (n,), lambda: [ids]))
        if not bool((ids[1:] > ids[:-1]).all()):
            order = np.argsort(ids, kind="stable").astype(np.int64)
            sources.append(Source("id_order", "I64", (n,), lambda: [order]))
    sources.append(Source("rows", _TYPES[form.dtype], (n, form.dim), lambda: _row_parts(state)))
    return metadata, sources


def _row_parts(state: State) -> Iterator[NDArray[Any]]:
    for part in live_rows(state, PART_BYTES):
        yield state.form.memory.to_host(part)


def _code_parts(state: State) -> Iterator[NDArray[np.uint8]]:
    """The codes of all whole strips: those in memory, or where rows were removed those of what is
    left.
    """
    to_host = state.form.memory.to_host
    views = [view for view in state.views if view.n_rows]
    if len(views) == 1 and views[0].live is None:
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


class Facts:
    """What the header of an index file says, checked."""

    def __init__(self, header: Header) -> None:
        self.header = header
        metadata = header.metadata
        if metadata.get("format") != FORMAT:
            raise _wrong("format", repr(FORMAT), metadata.get("format"))
        version = self._number("version", 1, 2**31)
        if version > VERSION:
            raise StorageError(
                f"the file has version {version} of the format and this fastretrieve reads up to "
                f"{VERSION}; load it with a newer one"
            )
        self.dim = self._number("dim", 1, _core.MAX_DIM)
        self.metric = self._one_of("metric", METRICS)
        self.dtype = self._one_of("dtype", DTYPES)
        self.next_id = self._number("next_id", 0, MAX_ID + 1)
        if "rows" not in header.tensors:
            raise _wrong("rows", "a tensor of that name", None)
        shape = header.tensors["rows"].shape
        self.n_rows = shape[0] if shape else 0
        self._check("rows", _TYPES[self.dtype], (self.n_rows, self.dim))
        known = {"rows"}
        if "ids" in header.tensors:
            known |= {"ids", "id_order"} & set(header.tensors)
            for name in known - {"rows"}:
                self._check(name, "I64", (self.n_rows,))
        else:
            self.first_id = self._number("first_id", 0, max(self.next_id - self.n_rows, 0))
            if self.n_rows > self.next_id:
                raise _wrong("next_id", f"at least {self.n_rows}", str(self.next_id))
        self.layout = metadata.get("codes")
        if self.layout is not None:
            known.add("codes")
        if set(header.tensors) != known:
            raise _wrong("tensors", ", ".join(sorted(known)), ", ".join(sorted(header.tensors)))

    def state(self, buffer: Any, form: Format, *, copy: bool) -> State:
        """The state that the file holds."""
        if self.n_rows == 0:
            return State(form, (), IdMap(), self.next_id)
        place = form.memory.placed

        def taken(name: str) -> Any:
            part = array(buffer, self.header, name)
            placed = place(part)
            return _copied(part) if copy and placed is part else placed

        ids, id_map = self._ids(buffer, copy)
        n_strips = self.n_rows // STRIP_ROWS
        kept = self.layout is not None and self.layout == layout_of(form)
        if kept:
            self._check("codes", "U8", (n_strips, form.strip_bytes))
        codes = taken("codes") if kept else form.memory.empty((n_strips, form.strip_bytes), "u1")
        first_id = 0 if ids is not None else self.first_id
        block = Block(form, taken("rows"), codes, slot=0, first_id=first_id, ids=ids)
        if not kept:
            block.encode(0, self.n_rows)
        view = View(block, self.n_rows, n_strips, None, self.n_rows)
        return State(form, (view,), id_map, self.next_id)

    def _ids(self, buffer: Any, copy: bool) -> tuple[NDArray[np.int64] | None, IdMap]:
        """The ids, which must be different, in range and below the next one; and where they are."""
        if "ids" not in self.header.tensors:
            return None, IdMap()
        ids = array(buffer, self.header, "ids")
        ids = _copied(ids) if copy else ids
        order: NDArray[np.int64] = np.arange(self.n_rows)
        ordered = ids
        if "id_order" in self.header.tensors:
            order = array(buffer, self.header, "id_order")
            if int(order.min()) < 0 or int(order.max()) >= self.n_rows:
                raise self._at("id_order", f"row numbers below {self.n_rows}", "others")
            order = _copied(order) if copy else order
            ordered = ids[order]
        if not bool((ordered[1:] > ordered[:-1]).all()):
            raise self._at("ids", "different ids, in order of id_order if there is one", "others")
        if ordered[0] < 0 or ordered[-1] >= self.next_id:
            found = f"{ordered[0]} to {ordered[-1]}"
            raise self._at("ids", f"ids from 0 to below the next, {self.next_id}", found)
        return ids, IdMap(((ordered, order),))

    def _at(self, name: str, expected: str, found: str) -> StorageError:
        at = self.header.data + self.header.tensors[name].begin
        return StorageError(f"at byte {at}: expected {expected}, found {found}")

    def _number(self, name: str, least: int, most: int) -> int:
        text = self.header.metadata.get(name)
        number = int(text) if text and re.fullmatch("0|[1-9][0-9]{0,18}", text, re.ASCII) else -1
        if not least <= number <= most:
            raise _wrong(name, f"a whole number from {least} to {most}", text)
        return number

    def _one_of(self, name: str, choices: tuple[str, ...]) -> Any:
        value = self.header.metadata.get(name)
        if value not in choices:
            raise _wrong(name, f"one of {', '.join(choices)}", value)
        return value

    def _check(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        if name not in self.header.tensors:
            raise _wrong(name, "a tensor of that name", None)
        tensor = self.header.tensors[name]
        if (tensor.dtype, tensor.shape) != (dtype, shape):
            raise _wrong(name, f"{dtype} {shape}", f"{tensor.dtype} {tensor.shape}")


def _copied(part: NDArray[Any]) -> NDArray[Any]:
    from fastretrieve.memory import empty

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


def _wrong(name: str, expected: str, found: str | None) -> StorageError:
    said = "none" if found is None else repr(found[:80])
    return StorageError(f"at byte 8: expected the header's {name} to be {expected}, found {said}")
