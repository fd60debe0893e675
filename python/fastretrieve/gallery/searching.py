"""What can be asked of a gallery; the part of ``Gallery`` that changes nothing."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arguments import shown, whole
from fastretrieve._common.metric import is_distance
from fastretrieve.gallery import database as db
from fastretrieve.gallery import exporting, parts, recommending
from fastretrieve.gallery.conditions import Conditions, Filter, Where
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.items import Item
from fastretrieve.gallery.matches import Match, Matches, Seconds
from fastretrieve.gallery.progress import progress_of
from fastretrieve.gallery.queries import Query, QueryEncoder, item_query
from fastretrieve.gallery.recommending import Label
from fastretrieve.gallery.storage import Storage

MAX_RESULTS = 100_000


class _Moment(NamedTuple):
    """A time, and how long the encoder had been loading by then."""

    at: float
    loading: float


class Searching:
    """Items by id, by condition and by likeness, for :class:`fastretrieve.Gallery`."""

    _storage: Storage
    _queries: QueryEncoder
    _conditions: Conditions

    def item(self, item_id: int) -> Item:
        """The item with this id."""
        if not isinstance(item_id, (int, np.integer)):
            raise TypeError(f"an item's id is a whole number, got {shown(item_id)}")
        return self._item(item_id, hidden=False)

    def _item(self, item_id: int, *, hidden: bool) -> Item:
        with self._storage.database.reading() as connection:
            found = db.fetch(connection, [item_id]).get(item_id)
        if found is None or (found.deleted and not hidden):
            raise GalleryError(f"{self._storage.folder} has no item {item_id}")
        return found

    def items(
        self, where: Where = None, *, offset: int = 0, limit: int | None = None
    ) -> list[Item]:
        """Items in order of id: all of them, or ``limit`` after the first ``offset``."""
        with self._view() as view:
            mask = self._conditions.mask(where, view)
            if mask is None:
                part = view.connection.execute(
                    "SELECT id FROM items ORDER BY id LIMIT ? OFFSET ?",
                    (-1 if limit is None else limit, offset),
                )
                ids = [row[0] for row in part]
            else:
                end = None if limit is None else offset + limit
                ids = np.sort(view.index.ids[mask])[offset:end].tolist()
            return db.fetch_all(view.connection, ids)

    def file_of(self, item: Item) -> Path:
        """Where the file of an item is: anywhere, or among the pictures that the gallery keeps."""
        return parts.item_file(self._storage.folder, item.path)

    def _path_of(self, item: Item) -> Path:
        return parts.item_path(self._storage.folder, item.path)

    def vectors(self, ids: Sequence[int] | None = None) -> NDArray[Any]:
        """The stored vectors of these items, or of all in order of id."""
        with self._view() as view:
            wanted = np.sort(view.index.ids) if ids is None else np.asarray(ids, np.int64)
            found: NDArray[Any] = view.index.get(wanted)
            return found

    # --- searching --------------------------------------------------------------------------------

    def search(
        self,
        query: Any,
        *,
        k: int = 12,
        where: Where = None,
        offset: int = 0,
        include_self: bool = False,
    ) -> Matches:
        """The ``k`` nearest items among those that meet the condition, exactly.

        ``query`` is a path, a PIL image, an array or tensor, the bytes of an image file, a
        sequence where the encoder takes sequences, or an item of the gallery or its id.
        ``offset`` leaves out the first ones, to page through.
        """
        began = self._now()
        asked = self._query(query)
        encoded = self._now()
        leave_out = [] if include_self or asked.item_id is None else [asked.item_id]
        found = self._nearest(asked.vector, k=k, where=where, offset=offset, leave_out=leave_out)
        return self._matches(found, asked, _seconds(began, encoded))

    def recommend(
        self,
        *,
        like: Any,
        unlike: Any = (),
        k: int = 12,
        diversity: float = 0.0,
        where: Where = None,
    ) -> Matches:
        """Items near to those that are liked and far from those that are not.

        Both are items, ids, paths or pictures, one or several. ``diversity`` between 0 and 1 makes
        the recommendations differ from each other.
        """
        if not 0 <= diversity <= 1:
            raise GalleryError(f"diversity is between 0 (none) and 1, got {diversity}")
        began = self._now()
        liked, unliked = [
            [self._tasted(each) for each in _several(what)] for what in (like, unlike)
        ]
        if not liked:
            raise GalleryError("like names at least one item or picture, got none")
        wanted = recommending.taste(
            np.stack([each.vector for each in liked]),
            np.array([each.vector for each in unliked]).reshape(-1, self._storage.manifest.dim),
            is_direction=self._storage.manifest.metric == "cosine",
        )
        encoded = self._now()
        known = [each.item_id for each in (*liked, *unliked) if each.item_id is not None]
        n = k if diversity == 0 else k * recommending.CANDIDATES
        found = self._nearest(wanted, k=n, where=where, offset=0, leave_out=known)
        if diversity > 0 and found:
            picked = recommending.diverse(
                np.array([match.score for match in found]),
                self.vectors([match.item.id for match in found]),
                k=k,
                diversity=diversity,
                is_similarity=self._is_similarity,
            )
            found = [found[i] for i in picked]
        asked = liked[0]._replace(title=", ".join(each.title for each in liked[:3]))
        return self._matches(found, asked, _seconds(began, encoded))

    def classify(self, query: Any, *, k: int = 10, where: Where = None) -> Label:
        """A label by vote of the ``k`` nearest labelled items, and what the encoder's head says."""
        labelled: Where
        if isinstance(where, str) and where.strip():
            labelled = f"({where}\n) AND label IS NOT NULL"
        else:
            labelled = [*(where or ()), Filter("label", "is not empty")]
        matches = self.search(query, k=k, where=labelled)
        shares = recommending.vote(matches)
        own = self.file_of(self.item(self._ids(query)[0])) if _is_item(query) else query
        return Label(next(iter(shares), None), shares, self._queries.probabilities(own), matches)

    def duplicates(
        self, threshold: float = 0.98, *, progress: bool | None = None
    ) -> list[list[Item]]:
        """Groups of items that are linked by scores of at least ``threshold`` (at most, for a
        metric that is a distance), the largest group first.
        """
        with self._view() as view, progress_of("comparing", progress) as done:
            groups = exporting.groups(view.index, threshold, done)
            items = iter(db.fetch_all(view.connection, [i for group in groups for i in group]))
        return [list(islice(items, len(group))) for group in groups]

    # --- inside ---

    def _now(self) -> _Moment:
        return _Moment(time.perf_counter(), self._queries.load_seconds)

    @property
    def _is_similarity(self) -> bool:
        return not is_distance(self._storage.manifest.metric)

    def _view(self) -> Any:
        return self._storage.vectors.view()

    def _nearest(
        self, vector: NDArray[Any], *, k: int, where: Where, offset: int, leave_out: list[int]
    ) -> list[Match]:
        k = whole(k, "k")
        if not 0 <= offset <= MAX_RESULTS - k:
            raise GalleryError(
                f"offset is at least 0, and k + offset at most {MAX_RESULTS}; got {offset}, k={k}"
            )
        with self._view() as view:
            mask = self._conditions.mask(where, view)
            wanted = min(k + offset + len(leave_out), max(len(view.index), 1))
            hits = view.index.search(vector, k=wanted, where=mask)
            pairs = [
                (int(item_id), float(score))
                for item_id, score in zip(hits.ids.tolist(), hits.scores.tolist(), strict=True)
                if item_id >= 0 and item_id not in leave_out
            ][offset : offset + k]
            items = db.fetch_all(view.connection, [item_id for item_id, _ in pairs])
        return [
            Match(item, score, self._path_of(item))
            for item, (_, score) in zip(items, pairs, strict=True)
        ]

    def _matches(self, found: list[Match], asked: Query, seconds: Seconds) -> Matches:
        return Matches(
            found,
            query=asked.picture,
            title=asked.title,
            modality=self._storage.manifest.modality,
            seconds=seconds,
        )

    def _query(self, query: Any) -> Query:
        if not _is_item(query):
            return self._queries.query(query)
        (item_id,) = self._ids(query)
        item = self.item(item_id)
        try:
            vector = self.vectors([item_id])[0]
        except KeyError as error:
            raise GalleryError(
                f"{self._storage.folder}: item {item_id} has no vector; restore the gallery, or "
                "index the images again"
            ) from error
        return item_query(item, vector, self._path_of(item), self._storage.manifest.modality)

    def _tasted(self, what: Any) -> Query:
        """As a query; a path that is in the gallery is the item there."""
        if isinstance(what, (str, os.PathLike)):
            with contextlib.suppress(GalleryError):
                known = exporting.ids_of(self._storage, os.fspath(what))
                what = known[0] if len(known) == 1 else what
        return self._query(what)

    def _ids(self, what: Any, *, hidden: bool = False) -> list[int]:
        """The ids of items, ids, paths, folders or URLs; each must be in the gallery. With
        ``hidden`` removed ones count too.
        """
        ids: list[int] = []
        for each in _several(what):
            if isinstance(each, (str, os.PathLike)):
                ids += exporting.ids_of(self._storage, os.fspath(each), hidden=hidden)
            else:
                item_id = each.id if isinstance(each, Item) else int(each)
                ids.append(self._item(item_id, hidden=hidden).id)
        return list(dict.fromkeys(ids))


def _seconds(began: _Moment, encoded: _Moment) -> Seconds:
    """Where the time went of a search that ends now."""
    loading = encoded.loading - began.loading
    return Seconds(encoded.at - began.at - loading, time.perf_counter() - encoded.at, loading)


def _is_item(query: Any) -> bool:
    return isinstance(query, (Item, int, np.integer)) and not isinstance(query, bool)


def _several(what: Any) -> Iterator[Any]:
    """One thing, or each of several."""
    if isinstance(what, (list, tuple, set, frozenset)) and not isinstance(what, Item):
        yield from what
    else:
        yield what
