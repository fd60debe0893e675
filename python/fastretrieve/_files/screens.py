"""The screen in index files: written with places in the file's rows, read back and checked.

A file holds nothing of removed rows, so the heads and records of positions without a row are
written as those of no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve._files.indexfile import IndexFacts
from fastretrieve._files.parts import PARTS
from fastretrieve._files.tensorfile import PART_BYTES, NewTensor, array, copied
from fastretrieve._state.checking import screen_fault
from fastretrieve._state.locating import new_slots
from fastretrieve._state.screen import HEADS, PLACES, RECORDS, Screen
from fastretrieve._state.slabs import STRIP_ROWS
from fastretrieve._state.state import State

Places = NDArray[np.int32]  # [positions]
NEVER = -(1 << 29)  # csrc/core/screen.hpp: the start of a head that never survives


def tensors(state: State) -> list[NewTensor]:
    """The screen as tensors of a file; none if the state has none."""
    if state.screen is None:
        return []
    places = state.screen.places_after(new_slots(state))
    if not bool((places >= 0).any()):
        return []
    return [_tensor(name, state.screen.arrays[name], places) for name in PARTS]


def read(facts: IndexFacts, buffer: Any, *, copy: bool) -> Screen | None:
    """The screen of a file, whose header was checked; None if it has none. ``prove`` checks the
    heads and records.
    """
    if not facts.parts:
        return None
    arrays = {name: array(buffer, facts.header, name) for name in facts.parts}
    if copy:
        arrays = {name: copied(part) for name, part in arrays.items()}
    for name, part in arrays.items():
        # A box is infinite where its leaf has a row that every query reads.
        is_good = np.isfinite if name != "screen_boxes" else lambda numbers: ~np.isnan(numbers)
        if part.dtype.kind == "f" and not (good := is_good(part)).all():
            at = int(np.argmin(good)) * part.itemsize
            raise facts.wrong_numbers(name, f"finite numbers in {name}", "others", at)
    _check_places(facts, arrays[PLACES])
    try:
        screen = Screen(facts.metric, facts.dim, arrays, is_proved=False)
    except ValueError as error:
        name = _named(str(error))
        raise facts.wrong_numbers(name, f"{name} as optimize() writes it", str(error)) from None
    return screen if screen.n_rows else None


def prove(facts: IndexFacts, state: State) -> None:
    """Compare every head and record with what its row gives, where searches read them."""
    if state.screen is None or not state.form.backend.reads_screens:
        return
    position = screen_fault(state)
    if position >= 0:
        row = int(state.screen.places[position])
        wanted = f"the head and the record that the vector of row {row} gives"
        found = "others; load it without verify and optimize() makes them anew"
        offset = position * state.screen.arrays[RECORDS].shape[1]
        raise facts.wrong_numbers(RECORDS, wanted, found, offset)


def _named(text: str) -> str:
    """The tensor that a complaint of the core names first."""
    words = {name: text.find(name.removeprefix("screen_")) for name in PARTS}
    return min(words, key=lambda name: words[name] if words[name] >= 0 else len(text))


def _check_places(facts: IndexFacts, places: Places) -> None:
    """Each is -1 or another row of the file that has codes."""
    n_rows = facts.n_rows // STRIP_ROWS * STRIP_ROWS
    wrong = np.flatnonzero((places < -1) | (places >= n_rows))
    if len(wrong):
        wanted, found = f"-1 or a row number below {n_rows}", str(places[wrong[0]])
        raise facts.wrong_numbers(PLACES, f"{PLACES} to be {wanted}", found, int(wrong[0]) * 4)
    rows, is_named = places[places >= 0], np.zeros(n_rows, dtype=bool)
    is_named[rows] = True
    if np.count_nonzero(is_named) < len(rows):
        raise facts.wrong_numbers(PLACES, f"{PLACES} to name different rows", "one of them twice")


def _tensor(name: str, found: NDArray[Any], places: Places) -> NewTensor:
    clear = {HEADS: _cleared_heads, RECORDS: _cleared_records}.get(name)
    whole = [places] if name == PLACES else [found]
    return NewTensor(
        name,
        PARTS[name].dtype,
        found.shape,
        lambda: whole if clear is None else _parts(found, places, clear),
    )


def _parts(
    found: NDArray[Any],
    places: Places,
    clear: Callable[[NDArray[np.uint8], NDArray[np.bool_]], None],
) -> Iterator[NDArray[Any]]:
    """An array a part at a time, cleared at positions without a row."""
    positions = len(places) // len(found)  # of an entry: 64 of a strip, one of a record
    step = max(PART_BYTES // found[0].nbytes, 1)
    for begin in range(0, len(found), step):
        part = found[begin : begin + step]
        empty = places[begin * positions : (begin + step) * positions] < 0
        if empty.any():
            part = part.copy()
            clear(part, empty)
        yield part


def _cleared_records(records: NDArray[np.uint8], empty: NDArray[np.bool_]) -> None:
    records[empty] = 0


def _cleared_heads(strips: NDArray[np.uint8], empty: NDArray[np.bool_]) -> None:
    """Codes lie in four blocks of groups of 16 rows x 4 numbers; starts behind them."""
    n_codes = strips.shape[1] - 4 * STRIP_ROWS
    strip, row = np.nonzero(empty.reshape(-1, STRIP_ROWS))
    codes = strips[:, :n_codes].reshape(len(strips), 4, -1, 16, 4)  # a view, and so is this:
    codes[strip, row // 16, :, row % 16] = 0
    strips[:, n_codes:].view(np.int32)[strip, row] = NEVER
