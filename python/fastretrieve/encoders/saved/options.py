"""Check the types of the options in a file against a constructor's annotations.

Networks accept some wrong types, such as a list for a truth value, and fail later.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any


def refuse_other_kinds(cls: type[Any], config: Mapping[str, Any]) -> None:
    """Raise where an option is not of the kind that the constructor's annotation names."""
    hints = typing.get_type_hints(cls.__init__)
    for name, value in config.items():
        if name in hints and not fits(value, hints[name]):
            raise ValueError(f"option {name} is {value!r}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON is what an annotation says, as far as it is plain.

    >>> fits(3, int), fits(True, int), fits([8, 9], int | typing.Sequence[int]), fits([], bool)
    (True, False, True, False)
    """
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return is_number and float(value).is_integer()
    if hint is float:
        return is_number
    if hint in (bool, str, type(None)):
        return isinstance(value, hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict)
    if isinstance(origin, type) and issubclass(origin, typing.Sequence):
        is_list = isinstance(value, list)
        return is_list and all(fits(one, typing.get_args(hint)[0]) for one in value)
    return True
