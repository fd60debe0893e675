"""``Gallery``: a directory of items, their vectors and the encoder that made them.

This is the front: it checks what the caller asks and brings the parts together (``__init__.py``
says which part owns what).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from fastretrieve.encoders import as_encoder, create_encoder
from fastretrieve.encoders.encoding import refuse_untrained
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.encoders.saved import files
from fastretrieve.gallery import checking, copying, exporting, forgetting
from fastretrieve.gallery import database as db
from fastretrieve.gallery.added import Added, Options
from fastretrieve.gallery.adding import Addition
from fastretrieve.gallery.conditions import Conditions, Where
from fastretrieve.gallery.downloads import Limits
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.fitting import kept_encoder, refuse_other_options
from fastretrieve.gallery.forgetting import Forgotten
from fastretrieve.gallery.items import Item
from fastretrieve.gallery.listing import Candidate, Listing
from fastretrieve.gallery.manifest import Manifest
from fastretrieve.gallery.progress import progress_of, show_progress
from fastretrieve.gallery.queries import QueryEncoder
from fastretrieve.gallery.searching import Searching
from fastretrieve.gallery.storage import Storage


class Gallery(Searching):
    """Items that can be searched by what they look like.

    >>> import tempfile
    >>> gallery = Gallery.create(tempfile.mkdtemp() + "/my.gallery", encoder="pixels")
    >>> images = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)
    >>> gallery.add(images, labels=["odd", "even"] * 10).added
    20
    >>> [match.item.label for match in gallery.search(images[4], k=1, where="label = 'odd'")]
    ['odd']
    """

    def __init__(self, storage: Storage, encoder: QueryEncoder | None = None) -> None:
        if encoder is None:
            raise TypeError(
                "Gallery.open(path) opens a gallery, Gallery.create(path, encoder=...) makes one"
            )
        self._storage = storage
        self._queries = encoder
        self._conditions = Conditions()

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
        is_name = isinstance(encoder, str) and not files.is_saved_encoder(encoder)
        if config and is_name:
            made = create_encoder(encoder, device=device, **config)
        else:
            made = as_encoder(encoder, device=device)
            refuse_other_options(made, config)
        refuse_untrained(made)
        import fastretrieve as fr

        fr.Index(made.dim, metric=metric, dtype=dtype, device=device)  # type: ignore[arg-type]

        def manifest(saved: files.SavedEncoder) -> Manifest:
            return Manifest(
                encoder=saved.encoder,
                weights_sha256=saved.weights_sha256,
                dim=made.dim,
                modality=made.modality,
                metric=metric,
                dtype=dtype,
                made_by=version("fastretrieve"),
            )

        Storage.create(folder, made.save, manifest)
        return cls.open(folder, encoder=made, device=device)

    @classmethod
    def open(cls, path: str | Path, *, encoder: Any = None, device: str = "cpu") -> Gallery:
        """Open a gallery. Its encoder is loaded when it is first needed.

        ``encoder`` is only wanted where the gallery cannot load its own: ``./my.py:MyEncoder`` or
        ``module:...``, since a directory is data and is never run.
        """
        storage = Storage.open(Path(path), device=device)
        checking.refuse_torn_copy(storage)
        return cls(storage, QueryEncoder(partial(kept_encoder, storage, encoder, device=device)))

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

    def check(self, *, progress: bool | None = None) -> list[str]:
        """Read every byte and verify every checksum; returns what is wrong."""
        with progress_of("checking files", progress) as done:
            return checking.check(self._storage, done)

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
        result = self._run(chain.from_iterable(listed), options.checked(), wait)
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
            result.removed = self.remove(vanished, wait=wait)
        return result

    def remove(self, what: Any = None, *, where: Where = None, wait: float = 0.0) -> int:
        """Remove items: one or several items, ids, URLs or paths, or all that meet a condition.

        A folder means all items in it. Files stay where they are. Returns how many were removed.
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

    def forget(
        self,
        what: Any = None,
        *,
        where: Where = None,
        removed: bool = False,
        progress: bool | None = None,
        wait: float = 0.0,
    ) -> Forgotten:
        """Erase items for good: rows, vectors, and the pictures that the gallery keeps of them.

        ``what`` and ``where`` are as for ``remove``, and ``what`` may name removed items too;
        ``removed`` means all that were removed or could not be read. When this returns, no byte
        of them is left in the directory. Their ids are never used again; added again they are new.
        The files of items that lie elsewhere stay, and so do copies, exports and backups.
        """
        if (what is None) + (where is None) + (not removed) != 2:
            raise GalleryError(
                "forget(items), forget(where=...) or forget(removed=True): give one of them"
            )
        if where is not None:
            ids = self._ids_where(where)
        else:
            ids = exporting.hidden(self._storage) if removed else self._ids(what, hidden=True)
        with progress_of("erasing", progress) as done, self._storage.writing(wait=wait) as writer:
            return forgetting.forget(writer, ids, done)

    # --- taking out -------------------------------------------------------------------------------

    def export(
        self,
        vectors: str | Path | None = None,
        items: str | Path | None = None,
        *,
        progress: bool | None = None,
    ) -> int:
        """Write the vectors as .npy and the items as .csv or .jsonl, both in order of id.

        Returns how many items there are.
        """
        if vectors is None and items is None:
            raise GalleryError(
                "export(vectors='....npy', items='....csv'): give one of them, or both"
            )
        with self._view() as view, progress_of("writing vectors", progress) as done:
            return exporting.export(
                view,
                None if vectors is None else Path(vectors),
                None if items is None else Path(items),
                done,
            )

    def copy(self, path: str | Path, *, progress: bool | None = None) -> Gallery:
        """Copy the gallery to a directory that is not there yet, while others may change it.

        The copy is the last commit, verified; it appears whole or not at all.
        """
        with progress_of("copying, MB", progress) as done:
            copying.copy(self._storage, Path(path), lambda n, total: done(n >> 20, total >> 20))
        return type(self).open(path)

    def evaluate(self, queries: Any = None, **options: Any) -> Any:
        """How well labels are found again: of labelled queries, or of the gallery's own items.

        Takes the options of ``fastretrieve.evaluation.evaluate``.
        """
        return exporting.evaluation(self, self._storage, queries, options)

    # --- inside -----------------------------------------------------------------------------------

    def _run(self, candidates: Iterable[Candidate], options: Options, wait: float) -> Added:
        report, end = show_progress(options.progress)
        try:
            with self._storage.writing(wait=wait) as writer:
                addition = Addition(self._storage, lambda: self.encoder, options, report)
                return addition.run(writer, candidates)
        finally:
            end()

    def _ids_where(self, where: Where) -> list[int]:
        with self._view() as view:
            return [int(i) for i in self._conditions.ids(where, view.connection)]
