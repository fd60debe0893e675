"""From a folder of images to something that can be searched.

``gallery.py`` is the front: ``Gallery``. Underneath, ``storage.py`` owns the directory and its one
commit point, ``database.py`` and ``items.py`` the items in SQLite, ``vectors.py`` the index files,
``manifest.py`` what a gallery is. ``parts.py`` reaches all of these without following links,
``connections.py`` and ``access.py`` open the database, ``schema.py`` says what it may hold,
``locking.py`` who may change it, ``forking.py`` what a forked child finds. ``checking.py``,
``copying.py`` and ``forgetting.py`` are what they say. ``listing.py`` finds items, ``comparing.py``
says which are new, ``reading.py`` reads them, ``adding.py`` encodes and commits them.
``searching.py`` asks,
``queries.py`` encodes what is asked with, ``conditions.py`` turns ``where`` into allowed ids,
``matches.py`` and ``pictures.py`` show what was found. ``commands.py`` and ``asking.py`` are the
verbs of the command line.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastretrieve._common.needs import wanting
from fastretrieve.gallery.errors import GalleryError

if TYPE_CHECKING:
    from fastretrieve.gallery.added import Added
    from fastretrieve.gallery.forgetting import Forgotten
    from fastretrieve.gallery.gallery import Gallery
    from fastretrieve.gallery.items import Item
    from fastretrieve.gallery.matches import Match, Matches

__all__ = ["Added", "Forgotten", "Gallery", "GalleryError", "Item", "Match", "Matches"]

_HOMES = {
    "Added": "added",
    "Forgotten": "forgetting",
    "Gallery": "gallery",
    "Item": "items",
    "Match": "matches",
    "Matches": "matches",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with wanting("networks", "a gallery"):
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
