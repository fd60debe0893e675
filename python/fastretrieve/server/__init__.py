"""A page and a JSON API on which a gallery is searched. Needs FastAPI and what goes with it.

``app.py`` puts it together; ``routes.py`` is what can be asked, ``description.py`` says so;
``service.py`` answers, without HTTP: ``filters.py`` knows what may be shown and compared,
``pictures.py`` opens files of strangers. ``connections.py`` keeps slow clients in bounds, and
``guard.py`` refuses what is too large or too much, ``visitors.py`` who may not enter; ``limits.py``
has the numbers. ``static/`` is the page; ``commands.py`` is the verb ``serve``, which must load
where FastAPI is missing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastretrieve._common.needs import wanting

if TYPE_CHECKING:
    from fastretrieve.server.app import create_app, run, settings
    from fastretrieve.server.limits import Limits

__all__ = ["Limits", "create_app", "run", "settings"]

_HOMES = {"Limits": "limits", "create_app": "app", "run": "app", "settings": "app"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with wanting("serve", "serve"):
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
