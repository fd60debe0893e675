"""What is learned about all rows of a state: named arrays, such as a basis or lists of rows.

They hold for the rows of one state, and entries for rows come in the order of ``index.ids``. One
rule says what a change does to them. A change of the rows drops them all: ``add``, ``extend``,
``remove``, ``update``. A change that leaves the rows as they are keeps them: ``reserve``,
``compact``, ``save`` and ``load``, pickling. ``_files/parts.py`` says which of them files know.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

Learned = Mapping[str, NDArray[Any]]


def frozen(arrays: Mapping[str, NDArray[Any]]) -> Learned:
    """The arrays under names that stay, as views that refuse to be written."""
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.setflags(write=False)
    return MappingProxyType(views)


NOTHING = frozen({})
