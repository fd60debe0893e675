"""``Opened``: a gallery as the functions that answer questions take it."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from fastretrieve.gallery.lookup.clusters import Clusters
from fastretrieve.gallery.lookup.conditions import Conditions
from fastretrieve.gallery.lookup.queries import QueryEncoder
from fastretrieve.gallery.lookup.styles import Styles
from fastretrieve.gallery.store.storage import Storage
from fastretrieve.gallery.store.vectors import View


class Opened(NamedTuple):
    """An open gallery."""

    storage: Storage
    queries: QueryEncoder
    conditions: Conditions
    clusters: Clusters
    styles: Styles

    def view(self) -> contextlib.AbstractContextManager[View]:
        """The last commit, held still while it is used."""
        return self.storage.vectors.view()
