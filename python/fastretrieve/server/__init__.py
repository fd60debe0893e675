"""A page and a JSON API on which a gallery is searched. Needs FastAPI and what goes with it.

``app.py`` puts it together; ``routes.py`` is what can be asked; ``service.py`` answers, without
HTTP; ``guard.py`` refuses what is too large, too much or not allowed; ``static/`` is the page;
``commands.py`` is the verb ``serve``, which must load where FastAPI is missing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastretrieve.needs import wanting

if TYPE_CHECKING:
    from fastretrieve.server.app import create_app, run
    from fastretrieve.server.service import Limits

__all__ = ["Limits", "create_app", "run"]

_HOMES = {"Limits": "service", "create_app": "app", "run": "app"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with wanting("serve", "serve"):
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
