"""What a search asks with: the query or a part of it, as it is or in the gallery's style, what is
imagined beside it, and words.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data.modalities import kind_of
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup import finding, imagining, translating, wording
from fastretrieve.gallery.lookup.cluster_results import Cluster
from fastretrieve.gallery.lookup.imagining import Drawn
from fastretrieve.gallery.lookup.opened import Opened
from fastretrieve.gallery.lookup.queries import Query, cluster_query, item_query, worded_query
from fastretrieve.gallery.lookup.regions import Region, pictured
from fastretrieve.gallery.lookup.styles import PictureStyle, Translation, VectorStyle
from fastretrieve.gallery.lookup.words import WEIGHT, Words, asked_words


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
    """A query as it is; a path that is in the gallery is the item there. In a gallery of texts a
    ``str`` is no path.
    """
    is_words = kind_of(opened.storage.manifest.modality).is_words
    if isinstance(what, os.PathLike if is_words else (str, os.PathLike)):
        with contextlib.suppress(GalleryError):
            known = finding.ids_named(opened.storage, os.fspath(what))
            what = known[0] if len(known) == 1 else what
    return plain(opened, what)


def question(
    opened: Opened,
    query: Any = None,
    *,
    text: Any = None,
    weight: float = WEIGHT,
    imagine: Any = None,
    translate: Any = None,
    region: Region | None = None,
) -> Question:
    """Pictures, words, or words mixed into the vector of every picture."""
    words = asked_words(text, weight=weight, query=query)
    pictures = {"imagine": imagine, "translate": translate, "region": region}
    if words is None:
        return _pictured_question(opened, query, **pictures)
    if query is None:
        return _worded_question(opened, words, pictures)
    said = wording.vector_of(opened, words.text)  # first: an encoder without words says so at once
    asked, vectors, drawn = _pictured_question(opened, query, **pictures)
    asked = asked._replace(title=f"{asked.title}, {words}", words=words)
    return Question(asked, wording.mixed(vectors, said, float(weight)), drawn)


def _worded_question(opened: Opened, words: Words, pictures: dict[str, Any]) -> Question:
    """Words alone."""
    unused = [name for name, value in pictures.items() if value is not None]
    if unused:
        raise GalleryError(
            f"{' and '.join(unused)}: words have no picture that this could be made of; leave it "
            "out, or give a query beside the words"
        )
    vector = wording.vector_of(opened, words.text)
    return Question(worded_query(words, vector), np.asarray(vector)[None], Drawn([]))


def _pictured_question(
    opened: Opened, query: Any, *, imagine: Any, translate: Any, region: Region | None
) -> Question:
    """The region of the query, carried into the gallery's style, and pictures imagined like it."""
    if isinstance(query, Cluster) and not (imagine is translate is region is None):
        raise GalleryError(
            "a cluster asks by its centre, which is no picture: leave imagine, translate and "
            "region out, or search with cluster.item"
        )
    style = None if translate is None else translating.style_of(opened, translate)
    artists = imagining.artists_for(opened, imagine)
    painter = style if isinstance(style, PictureStyle) else None
    seen = repainted = None
    if artists or painter or region is not None:  # else an item's vector is there already
        least = max(each.side if each else 0 for each in (artists, painter))
        seen = pictured(opened, query, region, least=least)
    if seen and painter:
        repainted = painter.picture(seen.content)
    if seen and (painter or region is not None):
        asked = opened.queries.of_content(seen.content, seen.title, instead=repainted)
        asked = asked._replace(item_id=None if seen.item is None else seen.item.id)
    else:
        asked = plain(opened, query)
    drawn = Drawn([])
    if seen and artists:
        drawn = artists.drawn(seen.content if repainted is None else repainted)
    vectors = imagining.with_query(opened, asked.vector, drawn)
    if isinstance(style, VectorStyle):
        vectors = style.vectors(vectors)
    if style is not None:
        asked = asked._replace(translation=Translation(style.name, style.how, repainted))
    return Question(asked, vectors, drawn)
