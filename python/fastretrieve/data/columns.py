"""Collect metadata by column while rows come in, and find the columns of numbers.

A column holds numbers only if each value is empty or written as JSON writes numbers (".5" goes
too). One "007", "+1", "1_000", "nan", " 5 " or "12e4567" makes the whole column text. So does a
whole number that overflows 64 bits, or that a float would round: no digit is lost.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
_NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_GAPS = 16 << 20  # values that are missing, beside one for each character of the table


class TableColumns:
    """Values by column. A row without a value leaves a gap, which takes memory; a column that
    would bring too many gaps is left out.
    """

    def __init__(self) -> None:
        self.left_out: set[str] = set()
        self._values: dict[str, list[Any]] = {}
        self._gaps = 0

    def put(self, name: str, value: Any, row: int, n_characters: int) -> None:
        """Put the value of one row; the rows of a column come in order."""
        if name in self.left_out:
            return
        values = self._values.setdefault(name, [])
        if self._fill(name, values, row, n_characters):
            values.append(value)

    def settle(self, n_rows: int, n_characters: int) -> None:
        """Fill the gaps after the last row, those of the fullest columns first."""
        for name in sorted(self._values, key=lambda name: -len(self._values[name])):
            self._fill(name, self._values[name], n_rows, n_characters)

    def _fill(self, name: str, values: list[Any], n_rows: int, n_characters: int) -> bool:
        gap = n_rows - len(values)
        self._gaps += gap
        if gap and self._gaps > _GAPS + n_characters:
            self._gaps -= gap
            self.left_out.add(name)
            del self._values[name]
            return False
        values.extend([None] * gap)
        return True

    def has(self, name: str) -> bool:
        return name in self._values

    @property
    def names(self) -> list[str]:
        return list(self._values)

    def take(self, name: str, n_rows: int) -> list[Any]:
        """Remove a column and return all its values."""
        values = self._values.pop(name, [])
        values.extend([None] * (n_rows - len(values)))
        return values

    def arrays(self, n_rows: int) -> dict[str, NDArray[Any]]:
        """All columns; those of numbers as numbers."""
        arrays = {}
        for name in list(self._values):
            values = self.take(name, n_rows)
            column = np.empty(n_rows, object)
            column[:] = numbers(values) or values
            arrays[name] = column
        return arrays


def numbers(values: list[Any]) -> list[Any] | None:
    """The values as numbers, or None if one is not; JSON's own types stay as they are.

    >>> numbers(["5", "", "-17"]), numbers(["5", "2.50"])
    ([5, None, -17], [5.0, 2.5])
    >>> [numbers(["5", text]) for text in ("007", "+1", "1_000", "nan", " 5 ", "12e4567")]
    [None, None, None, None, None, None]
    """
    kind: type[int] | type[float] = int
    for text in values:
        if text is None or text == "":
            continue
        if not isinstance(text, str):
            return None
        if not _WHOLE.fullmatch(text):
            if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
                return None
            kind = float
        elif len(text) > 18 and not -(2**63) <= int(text) < 2**63:
            return None
    if kind is float and any(_is_cut(text) for text in values if text):
        return None
    return [kind(text) if text else None for text in values]


def _is_cut(text: str) -> bool:
    """Whether a whole number loses digits as a float."""
    return len(text) > 15 and bool(_WHOLE.fullmatch(text)) and int(float(text)) != int(text)
