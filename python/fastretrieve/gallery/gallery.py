"""``Gallery``: a directory of items, their vectors and the encoder that made them.

The whole public class is here: its methods check what the caller asks and delegate to ``store``
(the directory), ``intake`` (additions) and ``lookup`` (questions).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fastretrieve.encoders.encoding import knows_words
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.intake import adding, refitting, revisiting
from fastretrieve.gallery.intake.added import Added, AddOptions
from fastretrieve.gallery.intake.downloads import DownloadLimits
from fastretrieve.gallery.intake.listing import Listing
from fastretrieve.gallery.lookup import (
    evaluating,
    explaining,
    finding,
    searching,
    translating,
)
from fastretrieve.gallery.lookup.cluster_results import Clustering
from fastretrieve.gallery.lookup.clusters import Clusters
from fastretrieve.gallery.lookup.conditions import Conditions, Where
from fastretrieve.gallery.lookup.heat import Explanation
from fastretrieve.gallery.lookup.matches import Matches
from fastretrieve.gallery.lookup.opened import Opened
from fastretrieve.gallery.lookup.queries import QueryEncoder
from fastretrieve.gallery.lookup.recommending import Label
from fastretrieve.gallery.lookup.regions import Region
from fastretrieve.gallery.lookup.styles import Style, Styles, VectorStyle
from fastretrieve.gallery.lookup.words import WEIGHT
from fastretrieve.gallery.progress import progress_of, show_progress
from fastretrieve.gallery.store import (
    changing,
    checking,
    clustering,
    copying,
    exporting,
    facts,
    fitting,
    forgetting,
    making,
    parts,
    written,
)
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store.forgetting import Forgotten
from fastretrieve.gallery.store.items import Item
from fastretrieve.gallery.store.manifest import Manifest
from fastretrieve.gallery.store.storage import Storage


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

    def __init__(self, storage: Storage, encoder: QueryEncoder | None = None) -> None:
        if encoder is None:
            raise TypeError(
                "Gallery.open(path) opens a gallery, Gallery.create(path, encoder=...) makes one"
            )
        self._storage = storage
        self._opened = Opened(storage, encoder, Conditions(), Clusters(storage.folder), Styles())

    # --- making and opening -----------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        encoder: Any = None,
        metric: str = "cosine",
        dtype: str = "float32",
        device: str = "cpu",
        **config: Any,
    ) -> Gallery:
        """Make a gallery. ``encoder`` is a saved encoder's directory, a name (its options follow
        as keywords: ``image_size=64``), or an encoder. It is copied into the gallery. None takes
        ``pretrained``, fitted to what is added first, where ``fastretrieve[pretrained]`` is
        installed, else ``pixels``.
        """
        made = fitting.chosen_encoder(encoder, config, device=device)
        making.make(Path(path), made, metric=metric, dtype=dtype, device=device)
        return cls.open(path, encoder=made, device=device)

    @classmethod
    def open(cls, path: str | Path, *, encoder: Any = None, device: str = "cpu") -> Gallery:
        """Open a gallery. Its encoder is loaded when it is first needed.

        Give ``encoder`` only if the gallery cannot load its own: ``./my.py:MyEncoder``,
        ``module:...`` or ``clip:/models/my-clip``. A directory is data and is never run.
        """
        storage = Storage.open(Path(path), device=device)
        checking.refuse_torn_copy(storage)
        load = partial(fitting.kept_encoder, storage, encoder, device=device)
        return cls(storage, QueryEncoder(load, kept=storage.kept_weights))

    def close(self) -> None:
        """Close the database."""
        self._storage.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- facts ------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        return self._storage.folder

    @property
    def manifest(self) -> Manifest:
        return self._storage.manifest

    @property
    def encoder(self) -> Encoder:
        return self._opened.queries.encoder

    @property
    def knows_words(self) -> bool:
        """Whether the encoder answers words, so that ``search(text=...)`` works."""
        return knows_words(self.encoder)

    @property
    def indexes_words(self) -> bool:
        """Whether the words written about the items are indexed, so that :meth:`find` works."""
        with self._storage.database.reading() as connection:
            return not written.unavailable() and written.is_kept(connection)

    @property
    def columns(self) -> list[str]:
        """The columns of metadata beside the fixed ones."""
        with self._storage.database.reading() as connection:
            return db.columns(connection)

    @property
    def generation(self) -> int:
        """The number of the last commit: it rises with every change, whoever makes it."""
        with self._storage.database.reading() as connection:
            return db.generation(connection)

    @property
    def has_clusters(self) -> bool:
        """Whether the gallery keeps clusters, and some have members."""
        with self._opened.view() as view:
            return self._opened.clusters.are_there(view)

    def __len__(self) -> int:
        with self._opened.view() as view:
            return len(view.index)

    def __repr__(self) -> str:
        return f"Gallery({str(self.path)!r}, encoder={self.manifest.encoder!r}, items={len(self)})"

    def info(self) -> dict[str, Any]:
        """Facts about the gallery, for people and programs."""
        return facts.info(self._storage)

    def check(self, *, progress: bool | None = None) -> list[str]:
        """Read every byte and verify every checksum; returns what is wrong."""
        with progress_of("checking files", progress) as done:
            return checking.check(self._storage, done)

    def unreadable(self) -> list[Item]:
        """The items that could not be read; ``error`` says why."""
        return finding.unreadable(self._storage)

    # --- looking up -------------------------------------------------------------------------------

    def item(self, item_id: int) -> Item:
        """The item with this id."""
        return finding.item(self._storage, item_id)

    def items(
        self,
        where: Where = None,
        *,
        offset: int = 0,
        limit: int | None = None,
        within: Any = None,
    ) -> list[Item]:
        """Items in order of id: all of them, or ``limit`` after the first ``offset``; only the
        members of a cluster ``within`` it.
        """
        return finding.items(self._opened, where, offset=offset, limit=limit, within=within)

    def file_of(self, item: Item) -> Path:
        """Where the file of an item is: anywhere, or among the pictures that the gallery keeps."""
        return parts.item_file(self._storage.folder, item.path)

    def vectors(self, ids: Sequence[int] | None = None) -> NDArray[Any]:
        """The stored vectors of these items, or of all in order of id."""
        return finding.vectors(self._opened, ids)

    def directions(self) -> int:
        """In how many directions the vectors vary: the fewest that hold 95% of their variance.

        Many fewer than ``encoder.dim``: a smaller one would find as much, faster.
        """
        return finding.directions(self._opened)

    # --- asking -----------------------------------------------------------------------------------

    def search(
        self,
        query: Any = None,
        *,
        text: str | None = None,
        weight: float = WEIGHT,
        hybrid: bool = False,
        k: int = 12,
        where: Where = None,
        offset: int = 0,
        include_self: bool = False,
        imagine: Any = None,
        translate: Any = None,
        diversity: float = 0.0,
        region: Region | None = None,
        within: Any = None,
    ) -> Matches:
        """The ``k`` nearest items among those that meet the condition, exactly.

        ``query`` is a path, a PIL image, an array or tensor, the bytes of an image file, a
        sequence where the encoder takes sequences, or an item of the gallery or its id. In a
        gallery of texts a ``str`` is the words to search with, and a ``Path`` a file of one text.
        ``offset`` leaves out the first ones, to page through.

        ``text`` asks in words, alone or beside a query, if the encoder knows words
        (:attr:`knows_words`). ``weight`` is the words' share beside the query, 0 to 1: both
        vectors are mixed at unit length, and the sum gets the query's length. ``hybrid`` looks for
        the words in what is written, too (:meth:`find`, but some of the words are enough), and
        fuses both orders by reciprocal rank; ``match.found_in`` says which found an item.

        ``imagine``, an ``fr.Imagine`` or just a generator, searches with pictures like the query
        that a generator draws, too; ``match.found_by`` says which picture found an item.
        ``translate`` carries the query into the gallery's style before searching: the directory of
        a style, or ``fr.Translate(...)``. ``diversity`` between 0 and 1 makes the items differ from
        each other. ``region`` is the part of the query's picture to search with: (left, top, right,
        bottom) in pixels of it, upright. ``within="cluster"`` answers from the cluster nearest to
        the query alone, ``within=3`` from that one (:meth:`clusters`).

        They go together: the region is cut out first, then translated; pictures are imagined like
        what comes of that, words are mixed into the vector of each, and the query's own chooses
        the cluster.

        >>> import tempfile
        >>> gallery = Gallery.create(tempfile.mkdtemp() + "/my.gallery", encoder="pixels")
        >>> gallery.search(text="a red boot")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        fastretrieve.gallery.errors.GalleryError: ...its encoder 'pixels' knows no words, so it ...
        """
        return searching.search(
            self._opened,
            query,
            text=text,
            weight=weight,
            hybrid=hybrid,
            k=k,
            where=where,
            offset=offset,
            include_self=include_self,
            imagine=imagine,
            translate=translate,
            diversity=diversity,
            region=region,
            within=within,
        )

    def find(
        self,
        text: str,
        *,
        k: int = 12,
        where: Where = None,
        offset: int = 0,
        within: Any = None,
    ) -> Matches:
        """The ``k`` items whose written words fit a text best, among those that meet the condition.

        Written are labels, captions, file names and your own columns of text. All words of the
        text must be there, in any order; ``"rain boot"`` in quotes is a phrase, ``boo*`` a
        beginning, and ``AND``, ``OR``, ``NOT`` and parentheses mean what they say. What is no
        expression of these is searched as plain words. Scores are BM25: larger is better, and only
        those of one text can be compared.

        >>> import tempfile
        >>> gallery = Gallery.create(tempfile.mkdtemp() + "/my.gallery", encoder="pixels")
        >>> images = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
        >>> _ = gallery.add(images, labels=["rain boot", "boot of a child", "Gummistiefel"])
        >>> gallery.find("boot NOT child").ids, gallery.find("stiefel").ids
        ([1], [3])
        """
        return searching.find(self._opened, text, k=k, where=where, offset=offset, within=within)

    def clusters(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        progress: bool | None = None,
        wait: float = 0.0,
    ) -> Clustering:
        """The clusters that the gallery keeps; with ``n`` make that many first, by k-means of the
        vectors. Cluster 0 is the largest one at that time.

        They follow changes: what is added falls into the nearest cluster. Fewer than ``n`` come
        where fewer vectors differ. ``wait`` is as for :meth:`add`.

        >>> import tempfile
        >>> gallery = Gallery.create(tempfile.mkdtemp() + "/my.gallery", encoder="pixels")
        >>> shades = np.arange(20, dtype=np.uint8).reshape(-1, 1, 1, 1)
        >>> reds = np.concatenate([shades + 200, shades, shades], axis=3).repeat(8, 1).repeat(8, 2)
        >>> gallery.add(reds, labels=["red"] * 20).added
        20
        >>> gallery.add(reds[:5, :, :, ::-1], labels=["blue"] * 5).added
        5
        >>> gallery.clusters(2)
        2 clusters
           0  red                       20 items, 100% with this label
           1  blue                      5 items, 100% with this label
        >>> len(gallery.search(reds[0], k=50, within="cluster"))
        20
        """
        if n is not None:
            report, end = show_progress(progress)
            try:
                with self._storage.writing(wait=wait) as writer:
                    clustering.make(writer, n, seed=seed, report=report)
            finally:
                end()
        with self._opened.view() as view:
            found = self._opened.clusters.listed(view)
        return Clustering(found, modality=self.manifest.modality)

    def nearest_clusters(
        self, query: Any = None, *, text: str | None = None, weight: float = WEIGHT, k: int = 5
    ) -> Clustering:
        """The ``k`` clusters whose centres are nearest to a query, to words, or to both, which are
        as for :meth:`search`; each has the score of its centre.
        """
        return searching.nearest_clusters(self._opened, query, text=text, weight=weight, k=k)

    def explain(
        self,
        query: Any = None,
        item: Any = None,
        *,
        text: str | None = None,
        weight: float = WEIGHT,
        region: Region | None = None,
    ) -> Explanation:
        """Why an item matches a query, words or both: a heat map on each picture.

        ``query``, ``text``, ``weight`` and ``region`` are as for ``search``; ``item`` is an item,
        its id, or its path: ``explain(item=17, text="a red boot")``.

        >>> import tempfile
        >>> gallery = Gallery.create(tempfile.mkdtemp() + "/my.gallery", encoder="pixels")
        >>> images = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), np.uint8)
        >>> _ = gallery.add(images)
        >>> why = gallery.explain(images[2], 3)
        >>> why.method, why.item.heat.shape
        ('occlusion', (8, 8))
        """
        return explaining.explain(
            self._opened, query, item, text=text, weight=weight, region=region
        )

    def open_style(self, translate: Any) -> Style:
        """The style that ``translate`` names, if it suits this gallery; ``search`` takes it."""
        return translating.style_of(self._opened, translate)

    def fit_style(
        self,
        pictures: Any,
        *,
        how: str = "whiten",
        out: str | Path | None = None,
        progress: bool | None = None,
    ) -> VectorStyle:
        """Fit a style for ``search(..., translate=...)`` to pictures like the queries.

        ``pictures`` is what ``fr.open_dataset`` takes; no labels, no pairs. ``how`` is as in
        ``fr.Translate``. It fits this gallery's encoder; ``out`` is a directory to save it in.
        """
        style = translating.fit_style(self._opened, pictures, how=how, progress=progress)
        if out is not None:
            style.save(out)
        return style

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
        return searching.recommend(
            self._opened, like, unlike, k=k, diversity=diversity, where=where
        )

    def classify(
        self, query: Any, *, k: int = 10, where: Where = None, balanced: bool = False
    ) -> Label:
        """A label by vote of the ``k`` nearest labelled items, and what the encoder's head says.

        ``balanced`` divides a vote by the number of items of its label, so that labels of few
        items are not outvoted.
        """
        return searching.classify(self._opened, query, k=k, where=where, balanced=balanced)

    def duplicates(
        self, threshold: float = 0.98, *, progress: bool | None = None
    ) -> list[list[Item]]:
        """Groups of items that are linked by scores of at least ``threshold`` (at most, for a
        metric that is a distance), the largest group first.
        """
        with progress_of("comparing", progress) as done:
            return searching.duplicates(self._opened, threshold, done)

    def evaluate(self, queries: Any = None, *, split: str | None = None, **options: Any) -> Any:
        """How well labels are found again: of labelled queries, or of the gallery's own items.

        Takes the options of ``fastretrieve.evaluation.evaluate``; of queries with splits the
        held-out one, unless ``split`` says which.
        """
        return evaluating.evaluate_labels(self._opened, queries, options, split=split)

    # --- changing ---------------------------------------------------------------------------------

    def add(
        self,
        *sources: Any,
        labels: Any = None,
        split: str | None = None,
        recursive: bool = True,
        labels_from_folders: bool = True,
        batch_size: int = 128,
        workers: int | None = None,
        progress: bool | None = None,
        commit_seconds: float = 5.0,
        restore: bool = False,
        retry: bool = False,
        limits: DownloadLimits = DownloadLimits(),  # noqa: B008  (never changed)
        wait: float = 0.0,
        text_column: str | None = None,
    ) -> Added:
        """Add folders, files, tables (.csv, .jsonl), lists of URLs (.txt), or pictures in memory.
        Of files that hold many pictures (IDX, CIFAR, tar, ...) all splits are added, or ``split``;
        the gallery keeps copies of these pictures.

        A gallery of texts takes .txt with one text a line, folders of such files, tables with a
        column ``text``, else ``caption``, else ``text_column``, and a list of ``str``. It keeps
        the texts, so it needs their files no more.

        Only new and changed files are encoded. Finished items are committed every
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
            split=split,
            text_column=text_column,
        )
        if not sources:
            raise GalleryError("nothing to add; give folders, files, tables or pictures")
        listed = (listing.candidates(source, labels=labels) for source in sources)
        options = AddOptions(batch_size, workers, progress, commit_seconds, restore, retry, limits)
        found = chain.from_iterable(listed)
        result = adding.add(
            self._storage, lambda: self.encoder, found, options.checked(), wait=wait
        )
        result.unreadable += listing.skipped
        return result

    def update(self, *, progress: bool | None = None, wait: float = 0.0) -> Added:
        """Look at the file of every item again: changed ones are encoded, vanished ones removed,
        unreadable ones tried once more.
        """
        vanished: list[int] = []
        found = revisiting.candidates(self._storage, vanished)
        options = AddOptions(progress=progress, retry=True)
        result = adding.add(self._storage, lambda: self.encoder, found, options, wait=wait)
        if vanished:
            result.removed = self.remove(vanished, wait=wait)
        return result

    def remove(self, what: Any = None, *, where: Where = None, wait: float = 0.0) -> int:
        """Remove items: one or several items, ids, URLs or paths, or all that meet a condition.

        A folder means all items in it. Files stay where they are. Returns how many were removed.
        """
        if (what is None) == (where is None):
            raise GalleryError("remove(items) or remove(where=...): give one of them")
        ids = self._ids(what) if where is None else finding.ids_where(self._opened, where)
        if ids:
            changing.remove(self._storage, ids, wait=wait)
        return len(ids)

    def label(self, what: Any, label: str | None, *, wait: float = 0.0) -> int:
        """Give items another label. Returns how many."""
        ids = self._ids(what)
        changing.label(self._storage, ids, label, wait=wait)
        return len(ids)

    def rebuild_words(self, *, wait: float = 0.0) -> int:
        """Make the index of words anew, which :meth:`find` asks. Every change keeps it in step;
        this mends a damaged one. Returns the words of how many items it holds.
        """
        with self._storage.writing(wait=wait) as writer:
            return written.rebuilt(writer.connection)

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
        of them is left in the directory. Their ids are never used again; items added again are new.
        The files of items that lie elsewhere stay, and so do copies, exports and backups.
        """
        if (what is None) + (where is None) + (not removed) != 2:
            raise GalleryError(
                "forget(items), forget(where=...) or forget(removed=True): give one of them"
            )
        if where is not None:
            ids = finding.ids_where(self._opened, where)
        elif removed:
            ids = finding.hidden(self._storage)
        else:
            ids = finding.ids_of(self._storage, what, hidden=True)
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
        with self._opened.view() as view, progress_of("writing vectors", progress) as done:
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

    def refit(self, path: str | Path, *, progress: bool | None = None) -> Gallery:
        """Copy the gallery to a directory that is not there yet, its encoder fitted to the items
        that it holds by now, and all vectors made anew.

        Items whose files are gone are left out. This gallery stays as it is.
        """
        refitting.refuse_unfittable(self.encoder)
        change = partial(refitting.refit, given=None, progress=progress, device="cpu")
        copying.copy(self._storage, Path(path), lambda *_: None, change=change)
        return type(self).open(path)

    # --- inside -----------------------------------------------------------------------------------

    def _ids(self, what: Any) -> list[int]:
        return finding.ids_of(self._storage, what)
