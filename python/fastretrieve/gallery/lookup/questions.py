"""What a search asks with: the query or a part of it, and what is imagined beside it."""

from __future__ import annotations

import contextlib
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup import finding, imagining
from fastretrieve.gallery.lookup.cluster_results import Cluster
from fastretrieve.gallery.lookup.imagining import Drawn
from fastretrieve.gallery.lookup.opened import Opened
from fastretrieve.gallery.lookup.queries import Query, cluster_query, item_query
from fastretrieve.gallery.lookup.regions import Region, pictured


class Question(NamedTuple):
    """A query and what was made of it."""

    query: Query
    vectors: NDArray[Any]  # [1 + n, dim]: the query's, then those of what was imagined
    drawn: Drawn


def plain(opened: Opened, query: Any) -> Query:
    """A query as it is."""
    if isinstance(query, Cluster):
        return cluster_query(query, opened.storage.manifest.modality)
    if not finding.is_item(query):
        return opened.queries.query(query)
    storage = opened.storage
    (item_id,) = finding.ids_of(storage, query)
    item = finding.item(storage, item_id)
    try:
        vector = finding.vectors(opened, [item_id])[0]
    except KeyError as error:
        raise GalleryError(
            f"{storage.folder}: item {item_id} has no vector; restore the gallery, or "
            "index the images again"
        ) from error
    return item_query(item, vector, finding.path_of(storage, item), storage.manifest.modality)


def tasted(opened: Opened, what: Any) -> Query:
    """A query as it is; a path that is in the gallery is the item there."""
    if isinstance(what, (str, os.PathLike)):
        with contextlib.suppress(GalleryError):
            known = finding.ids_named(opened.storage, os.fspath(what))
            what = known[0] if len(known) == 1 else what
    return plain(opened, what)


def question(opened: Opened, query: Any, *, imagine: Any, region: Region | None) -> Question:
    """The region of the query, then pictures imagined near to that."""
    artists = imagining.artists_for(opened, imagine)
    if artists is None and region is None:
        asked = plain(opened, query)
        return Question(asked, np.asarray(asked.vector)[None], Drawn([]))
    seen = pictured(opened, query, region, least=artists.side if artists else 0)
    if region is None:
        asked = plain(opened, query)
    else:
        item_id = None if seen.item is None else seen.item.id
        asked = opened.queries.of_content(seen.content, seen.title)._replace(item_id=item_id)
    drawn = Drawn([])
    if artists is not None:
        drawn = Drawn(artists.draw(seen.content), artists.imagine.fusion)
    return Question(asked, imagining.with_query(opened, asked.vector, drawn), drawn)
