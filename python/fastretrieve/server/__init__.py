"""A page and a JSON API on which a gallery is searched. Needs ``fastretrieve[serve]``.

``app.py`` puts it together; ``routes.py`` is what can be asked; ``service.py`` answers, without
HTTP; ``guard.py`` refuses what is too large, too much or not allowed; ``static/`` is the page.
"""

from fastretrieve.server.app import create_app, run
from fastretrieve.server.service import Limits

__all__ = ["Limits", "create_app", "run"]
