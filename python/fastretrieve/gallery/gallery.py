"""``Gallery``: a directory of items, their vectors and the encoder that made them.

This is the front: it checks what the caller asks and brings the parts together (``__init__.py``
says which part owns what).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve.arrays import whole
from fastretrieve.encoders import as_encoder, create_encoder, files, load_encoder
from fastretrieve.encoders.encoding import refuse_untrained
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.gallery import database as db
from fastretrieve.gallery import exporting, recommending
from fastretrieve.gallery.adding import Added, Addition, Options, show_progress
from fastretrieve.gallery.conditions import Conditions, Where
from fastretrieve.gallery.database import Item
from fastretrieve.gallery.downloads import Limits, remove_part_files
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.listing import Candidate, Listing
from fastretrieve.gallery.manifest import Manifest
from fastretrieve.gallery.matches import Match, Matches, Seconds
from fastretrieve.gallery.queries import Query, QueryEncoder, item_query
from fastretrieve.gallery.recommending import Label
from fastretrieve.gallery.storage import ENCODER, PICTURES, Storage

MAX_RESULTS = 100_000


class Gallery:
    """Items that can be searched by what they look like.

    >>> import tempfile
    >>> gallery = Gallery.create(tempfile.mkdtemp() + "/my.gallery", encoder="pixels")
    >>> images = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)
    >>> gallery.add(images, labels=["odd", "even"] * 10).added
    20
    >>> [match.item.label for match in gallery.search(images[4], k=1, where="label = 'odd'")]
    ['odd']
    """

    def __init__(self, storage: Storage, encoder: QueryEncoder) -> None:
        self._storage = storage
        self._queries = encoder
        self._conditions = Conditions(storage.database)

    # --- making and opening -----------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        encoder: Any = "pixels",
        metric: str = "cosine",
        dtype: str = "float32",
        device: str = "cpu",
        **config: Any,
    ) -> Gallery:
        """Make a gallery. ``encoder`` is a saved encoder's directory, a name (its options follow
        as keywords: ``image_size=64``), or an encoder. It is copied into the gallery.
        """
        folder = Path(path)
        made = as_encoder(create_encoder(encoder, **config) if config else encoder, device=device)
        refuse_untrained(made)
        weights = _Weights(made)
        import fastretrieve as fr

        fr.Index(made.dim, metric=metric, dtype=dtype, device=device)  # type: ignore[arg-type]
        Storage.create(folder, weights.manifest(metric, dtype), weights.save)
        return cls.open(folder, encoder=made, device=device)

    @classmethod
    def open(cls, path: str | Path, *, encoder: Any = None, device: str = "cpu") -> Gallery:
        """Open a gallery. Its encoder is loaded when it is first needed.

        ``encoder`` is only wanted where the gallery cannot load its own: ``./my.py:MyEncoder`` or
        ``module:...``, since a directory is data and is never run.
        """
        storage = Storage.open(Path(path), device=device)

        def load() -> Encoder:
            if encoder is not None and not isinstance(encoder, str):
                return _fitting(as_encoder(encoder, device=device), storage)
            saved = files.read_encoder(storage.folder / ENCODER)
            if saved.weights_sha256 != storage.manifest.weights_sha256:
                raise GalleryError(
                    f"{saved.directory} is not the encoder that made the vectors of this gallery; "
                    "restore it"
                )
            loaded = load_encoder(storage.folder / ENCODER, device=device, encoder=encoder)
            return _fitting(loaded, storage)

        return cls(storage, QueryEncoder(load))

    def close(self) -> None:
        """Close the database."""
        self._storage.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what it is -------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        return self._storage.folder

    @property
    def manifest(self) -> Manifest:
        return self._storage.manifest

    @property
    def encoder(self) -> Encoder:
        return self._queries.encoder

    @property
    def columns(self) -> list[str]:
        """The columns of metadata beside the fixed ones."""
        with self._storage.database.reading() as connection:
            return db.columns(connection)

    def __len__(self) -> int:
        with self._view() as view:
            return len(view.index)

    def __repr__(self) -> str:
        return f"Gallery({str(self.path)!r}, encoder={self.manifest.encoder!r}, items={len(self)})"

    def info(self) -> dict[str, Any]:
        """Facts about the gallery, for people and programs."""
        return exporting.info(self._storage)

    def check(self) -> list[str]:
        """Read every byte and verify every checksum; returns what is wrong."""
        return exporting.check(self._storage)

    def item(self, item_id: int) -> Item:
        """The item with this id."""
        with self._storage.database.reading() as connection:
            found = db.fetch(connection, [item_id]).get(item_id)
        if found is None or found.deleted:
            raise GalleryError(f"{self.path} has no item {item_id}")
        return found

    def items(self, where: Where = None, *, offset: int = 0, limit: int = 100) -> list[Item]:
        """Items in order of id."""
        with self._view() as view:
            ids = view.index.ids
            mask = self._conditions.mask(where, view)
            ids = np.sort(ids if mask is None else ids[mask])[offset : offset + limit].tolist()
            found = db.fetch(view.connection, ids)
        return [found[item_id] for item_id in ids]

    def file_of(self, item: Item) -> Path:
        """Where the file of an item is."""
        return self.path / item.path  # an absolute path stays as it is

    def unreadable(self) -> list[Item]:
        """The items that could not be read; ``error`` says why."""
        return exporting.unreadable(self._storage)

    # --- changing ---------------------------------------------------------------------------------

    def add(
        self,
        *sources: Any,
        labels: Any = None,
        recursive: bool = True,
        labels_from_folders: bool = True,
        batch_size: int = 128,
        workers: int | None = None,
        progress: bool | None = None,
        commit_seconds: float = 5.0,
        restore: bool = False,
        retry: bool = False,
        limits: Limits = Limits(),  # noqa: B008  (never changed)
        wait: float = 0.0,
    ) -> Added:
        """Add folders, files, tables (.csv, .jsonl), lists of URLs (.txt), or pictures in memory.

        Only new and changed files are encoded. What is done is committed every
        ``commit_seconds``: killed or interrupted, the same call goes on where it stopped.
        ``labels_from_folders`` takes the first folder under an added one as the label. Items that
        were removed before come back when they are named themselves, or with ``restore``;
        unreadable ones are tried again when they change, or with ``retry``. ``wait`` is how many
        seconds to wait for another process that changes the gallery.
        """
        listing = Listing(
            self.path,
            modality=self.manifest.modality,
            recursive=recursive,
            labels_from_folders=labels_from_folders,
        )
        if not sources:
            raise GalleryError("nothing to add; give folders, files, tables or pictures")
        listed = (listing.candidates(source, labels=labels) for source in sources)
        options = Options(batch_size, workers, progress, commit_seconds, restore, retry, limits)
        result = self._run(chain.from_iterable(listed), options, wait)
        result.unreadable += listing.skipped
        return result

    def update(self, *, progress: bool | None = None, wait: float = 0.0) -> Added:
        """Look at the file of every item again: changed ones are encoded, vanished ones removed,
        unreadable ones tried once more.
        """
        vanished: list[int] = []
        candidates = exporting.candidates(self._storage, vanished)
        result = self._run(candidates, Options(progress=progress, retry=True), wait)
        if vanished:
            self.remove(vanished)
        return result

    def remove(self, what: Any = None, *, where: Where = None, wait: float = 0.0) -> int:
        """Remove items: one or several items, ids or paths, or all that meet a condition.

        Their files stay where they are. Returns how many were removed.
        """
        if (what is None) == (where is None):
            raise GalleryError("remove(items) or remove(where=...): give one of them")
        ids = self._ids_where(where) if where is not None else self._ids(what)

        def change(connection: Any, generation: int) -> None:
            connection.executemany(
                "UPDATE item SET deleted = ? WHERE id = ? AND deleted = 0",
                [(generation, item_id) for item_id in ids],
            )

        if ids:
            with self._storage.writing(wait=wait) as writer:
                writer.commit(change)
                writer.merge(ended=True)
        return len(ids)

    def label(self, what: Any, label: str | None, *, wait: float = 0.0) -> int:
        """Give items another label. Returns how many."""
        ids = self._ids(what)

        def change(connection: Any, generation: int) -> None:
            connection.executemany(
                "UPDATE item SET label = ? WHERE id = ?", [(label, item_id) for item_id in ids]
            )

        with self._storage.writing(wait=wait) as writer:
            writer.commit(change)
        return len(ids)

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
        started = time.perf_counter()
        asked = self._query(query)
        encoded = time.perf_counter()
        leave_out = [] if include_self or asked.item_id is None else [asked.item_id]
        found = self._nearest(asked.vector, k=k, where=where, offset=offset, leave_out=leave_out)
        seconds = Seconds(encoded - started, time.perf_counter() - encoded)
        return self._matches(found, asked, seconds)

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
        started = time.perf_counter()
        liked, unliked = [
            [self._tasted(each) for each in _several(what)] for what in (like, unlike)
        ]
        if not liked:
            raise GalleryError("like names at least one item or picture, got none")
        wanted = recommending.taste(
            np.stack([each.vector for each in liked]),
            np.array([each.vector for each in unliked]).reshape(-1, self.manifest.dim),
            is_direction=self.manifest.metric == "cosine",
        )
        encoded = time.perf_counter()
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
        seconds = Seconds(encoded - started, time.perf_counter() - encoded)
        asked = liked[0]._replace(title=", ".join(each.title for each in liked[:3]))
        return self._matches(found, asked, seconds)

    def classify(self, query: Any, *, k: int = 10, where: Where = None) -> Label:
        """A label by vote of the ``k`` nearest labelled items, and what the encoder's head says."""
        labelled = "label IS NOT NULL"
        if isinstance(where, str) and where.strip():
            labelled = f"({where}\n) AND {labelled}"
        elif where:
            raise GalleryError("classify takes where as SQL, not as filters")
        matches = self.search(query, k=k, where=labelled)
        shares = recommending.vote(matches)
        own = self.file_of(self.item(self._ids(query)[0])) if _is_item(query) else query
        return Label(next(iter(shares), None), shares, self._queries.probabilities(own), matches)

    def duplicates(self, threshold: float = 0.98) -> list[list[Item]]:
        """Groups of items that are linked by scores of at least ``threshold`` (at most, for a
        metric that is a distance), the largest group first.
        """
        with self._view() as view:
            groups = exporting.groups(view.index, threshold)
            found = db.fetch(view.connection, [i for group in groups for i in group])
        return [[found[i] for i in group] for group in groups]

    # --- taking out -------------------------------------------------------------------------------

    def vectors(self, ids: Sequence[int] | None = None) -> NDArray[Any]:
        """The stored vectors of these items, or of all in order of id."""
        with self._view() as view:
            wanted = np.sort(view.index.ids) if ids is None else np.asarray(ids, np.int64)
            found: NDArray[Any] = view.index.get(wanted)
            return found

    def export(self, vectors: str | Path | None = None, items: str | Path | None = None) -> int:
        """Write the vectors as .npy and the items as .csv or .jsonl, both in order of id.

        Returns how many items there are.
        """
        with self._view() as view:
            return exporting.export(
                view,
                None if vectors is None else Path(vectors),
                None if items is None else Path(items),
            )

    def evaluate(self, queries: Any = None, **options: Any) -> Any:
        """How well labels are found again: of labelled queries, or of the gallery's own items.

        Takes the options of ``fastretrieve.evaluation.evaluate``.
        """
        return exporting.evaluation(self, self._storage, queries, options)

    # --- inside -----------------------------------------------------------------------------------

    @property
    def _is_similarity(self) -> bool:
        return self.manifest.metric in ("cosine", "ip")

    def _view(self) -> Any:
        return self._storage.vectors.view()

    def _run(self, candidates: Iterable[Candidate], options: Options, wait: float) -> Added:
        report, end = show_progress(options.progress)
        try:
            with self._storage.writing(wait=wait) as writer:
                remove_part_files(self.path / PICTURES)
                addition = Addition(self._storage, lambda: self.encoder, options, report)
                return addition.run(writer, candidates)
        finally:
            end()

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
            items = db.fetch(view.connection, [item_id for item_id, _ in pairs])
        return [Match(items[i], score, self.file_of(items[i])) for i, score in pairs]

    def _matches(self, found: list[Match], asked: Query, seconds: Seconds) -> Matches:
        return Matches(
            found,
            query=asked.picture,
            title=asked.title,
            modality=self.manifest.modality,
            seconds=seconds,
        )

    def _query(self, query: Any) -> Query:
        if not _is_item(query):
            return self._queries.query(query)
        (item_id,) = self._ids(query)
        item = self.item(item_id)
        vector = self.vectors([item_id])[0]
        return item_query(item, vector, self.file_of(item), self.manifest.modality)

    def _tasted(self, what: Any) -> Query:
        """As a query; a path that is in the gallery is the item there."""
        if isinstance(what, (str, os.PathLike)):
            known = exporting.ids_of_path(self._storage, os.path.abspath(what))
            what = known[0] if len(known) == 1 else what
        return self._query(what)

    def _ids(self, what: Any) -> list[int]:
        """The ids of items, ids or paths, each of which must be in the gallery."""
        ids: list[int] = []
        for each in _several(what):
            if isinstance(each, (str, os.PathLike)):
                found = exporting.ids_of_path(self._storage, os.path.abspath(each))
                if not found:
                    raise GalleryError(f"{self.path} has no item {os.path.abspath(each)}")
                ids += found
            else:
                ids.append(self.item(each.id if isinstance(each, Item) else int(each)).id)
        return list(dict.fromkeys(ids))

    def _ids_where(self, where: Where) -> list[int]:
        with self._view() as view:
            return [int(i) for i in self._conditions.ids(where, view.connection)]


class _Weights:
    """An encoder on its way into a gallery."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def manifest(self, metric: str, dtype: str) -> Manifest:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            self.encoder.save(folder)
            saved = files.read_encoder(folder)
        return Manifest(
            encoder=saved.encoder,
            weights_sha256=saved.weights_sha256,
            dim=self.encoder.dim,
            modality=self.encoder.modality,
            metric=metric,
            dtype=dtype,
            made_by=version("fastretrieve"),
        )

    def save(self, folder: Path) -> None:
        self.encoder.save(folder)


def _fitting(encoder: Encoder, storage: Storage) -> Encoder:
    manifest = storage.manifest
    if (encoder.dim, encoder.modality) != (manifest.dim, manifest.modality):
        raise GalleryError(
            f"encoder {encoder.name!r} makes {encoder.dim} numbers of a {encoder.modality}, but "
            f"the gallery {storage.folder} holds {manifest.dim} of a {manifest.modality}; open it "
            f"with {manifest.encoder!r}"
        )
    return encoder


def _is_item(query: Any) -> bool:
    return isinstance(query, (Item, int, np.integer)) and not isinstance(query, bool)


def _several(what: Any) -> Iterator[Any]:
    """One thing, or each of several."""
    if isinstance(what, (list, tuple, set, frozenset)) and not isinstance(what, Item):
        yield from what
    else:
        yield what
