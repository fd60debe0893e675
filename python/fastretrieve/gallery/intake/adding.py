"""Add items: encode new and changed ones, and commit every few seconds.

Killed or interrupted at any moment, an addition goes on where it stopped when it is started again:
``comparing.py`` recognises committed items. Unreadable ones are recorded with the reason and not
tried again until they change.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data import Loader, Skipped, longest_side
from fastretrieve.encoders.encoding import as_array
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.gallery.intake import first_fit
from fastretrieve.gallery.intake.added import Added, AddOptions
from fastretrieve.gallery.intake.candidates import Candidate
from fastretrieve.gallery.intake.comparing import Comparison, about_item
from fastretrieve.gallery.intake.reading import Pending, Queue
from fastretrieve.gallery.progress import Report, in_megabytes, show_progress
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store import parts
from fastretrieve.gallery.store.fitting import is_fitted
from fastretrieve.gallery.store.items import Known
from fastretrieve.gallery.store.naming import ColumnNames
from fastretrieve.gallery.store.storage import Storage
from fastretrieve.gallery.store.writing import NewVectors, Writer

COMMIT_ROWS = 20_000


def add(
    storage: Storage,
    encoder: Callable[[], Encoder],
    candidates: Iterable[Candidate],
    options: AddOptions,
    *,
    wait: float,
) -> Added:
    """Add the new and changed candidates; ``encoder`` is called only if there are some."""
    report, end = show_progress(options.progress)
    try:
        with storage.writing(wait=wait) as writer:
            return Addition(storage, encoder, options, report).run(writer, candidates)
    finally:
        end()


class Addition:
    """One call of ``Gallery.add``: compare, encode, commit."""

    def __init__(
        self, storage: Storage, encoder: Callable[[], Encoder], options: AddOptions, report: Report
    ) -> None:
        self._storage = storage
        self._encoder = encoder  # loaded when something has to be encoded
        self._options = options
        self._report = report
        self.result = Added()

    def run(self, writer: Writer, candidates: Iterable[Candidate]) -> Added:
        started = time.perf_counter()
        try:
            comparison = Comparison(writer, self._options, self.result, self._report)
            pending = comparison.pending(candidates)
            if pending:
                self._encode(writer, pending, comparison.names)
                writer.merge(ended=True, progress=in_megabytes(self._report, "merging, MB"))
        finally:
            self.result.seconds = time.perf_counter() - started
        return self.result

    def _encode(self, writer: Writer, pending: list[Pending], names: ColumnNames) -> None:
        encoder = self._encoder()
        is_new = not is_fitted(encoder) and not db.index_files(writer.connection)
        if is_new or self._options.anew:
            self.result.fitted_to = first_fit.fit(
                self._storage, encoder, pending, self._options, self._report
            )
            encoder = self._encoder()
        options = self._options
        queue = Queue(
            self._storage.folder, encoder.modality, pending, options.limits, anew=options.anew
        )
        fetches = any(one.candidate.url for one in pending)
        # Downloads wait for the network, not for a core; small batches, so that a stop is quick.
        workers = 16 if fetches and options.workers is None else options.workers
        loader = Loader(
            queue,
            encoder.preprocess,
            batch_size=min(options.batch_size, 16) if fetches else options.batch_size,
            workers=workers,
            size=longest_side(encoder),
        )
        batch = Batch(self._storage, writer, queue, self.result, names)
        try:
            with loader:
                for loaded in loader:
                    started = time.perf_counter()
                    vectors = as_array(encoder.encode(loaded.batch))
                    self.result.encode_seconds += time.perf_counter() - started
                    batch.take(loaded.rows, vectors)
                    if batch.is_due(options.commit_seconds):
                        batch.commit(up_to=int(loaded.rows[-1]) + 1, skipped=loader.skipped)
                    self._report("encoding", int(loaded.rows[-1]) + 1, len(pending))
            batch.commit(up_to=len(pending), skipped=loader.skipped)
        except BaseException:
            queue.stopped = True
            loader.close()
            if not batch.is_broken:
                batch.commit(up_to=batch.next_row, skipped=[])  # keep what is encoded
            raise


class Batch:
    """Encoded items that wait for the next commit."""

    def __init__(
        self, storage: Storage, writer: Writer, queue: Queue, result: Added, names: ColumnNames
    ) -> None:
        self._storage = storage
        self._writer = writer
        self._queue = queue
        self._result = result
        self._names = names
        self._vectors: dict[int, NDArray[np.float32]] = {}
        self._since = time.monotonic()
        self.next_row = 0  # the first that is not committed
        self.is_broken = False  # a commit failed

    def take(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        self._vectors.update(zip(rows.tolist(), vectors, strict=True))

    def is_due(self, seconds: float) -> bool:
        waited = time.monotonic() - self._since
        return waited >= seconds or len(self._vectors) >= COMMIT_ROWS

    def commit(self, *, up_to: int, skipped: list[Skipped]) -> None:
        """Keep the rows before ``up_to``: vectors, and the reasons of those that have none."""
        rows = range(self.next_row, max(up_to, max(self._vectors, default=-1) + 1))
        if len(rows) == 0:
            return
        reasons = {item.key: item.reason for item in skipped}
        counts = Added()
        kept = f"{parts.PICTURES}/"
        if any(self._queue.pending[row].candidate.path.startswith(kept) for row in rows):
            os.sync()  # pictures that were put into the gallery, all at once
        self.is_broken = True
        self._writer.commit(lambda c, n: self._write(c, n, rows, reasons, counts))
        self.is_broken = False
        self._names.saved()
        for name in ("added", "updated", "unchanged"):
            setattr(self._result, name, getattr(self._result, name) + getattr(counts, name))
        self._result.unreadable += counts.unreadable
        self.next_row = rows.stop
        self._vectors.clear()
        for row in rows:
            self._queue.facts.pop(row, None)
        self._since = time.monotonic()

    def _write(
        self, connection: Any, generation: int, rows: range, reasons: dict[str, str], counts: Added
    ) -> NewVectors:
        ids: list[int] = []
        vectors: list[NDArray[np.float32]] = []
        self._names.save(connection)
        names = dict.fromkeys(n for r in rows for n in self._queue.pending[r].candidate.metadata)
        db.add_columns(connection, names)
        for row in rows:
            candidate, known = self._queue.pending[row]
            values = self._values(row, candidate, known)
            vector = self._vectors.get(row)
            if row in self._queue.same:
                counts.unchanged += 1
            elif vector is not None and np.isfinite(vector).all():
                values |= {"error": None, "deleted": 0}
                counts.updated += known is not None
                counts.added += known is None
            else:
                reason = reasons.get(candidate.key, "it could not be read")
                if vector is not None:
                    reason = "the encoder made a vector of it that is not finite"
                values |= {"error": reason, "deleted": generation}
                counts.unreadable.append(Skipped(candidate.key, reason))
            item_id = db.put(connection, values, known.id if known else None)
            if values.get("deleted", 1) == 0 and vector is not None:
                ids.append(item_id)
                vectors.append(vector)
        matrix = np.stack(vectors) if vectors else np.zeros((0, self._storage.manifest.dim))
        return NewVectors(np.array(ids, np.int64), matrix)

    def _values(self, row: int, candidate: Candidate, known: Known | None) -> dict[str, Any]:
        """The columns of an item, but for whether it is there."""
        fact = self._queue.facts.get(row)
        values: dict[str, Any] = {"key": candidate.key, "url": candidate.url}
        values |= (
            {name: getattr(fact, name) for name in ("path", "size", "mtime_ns", "hash")}
            if fact
            else {"path": candidate.path, "size": candidate.size, "mtime_ns": candidate.mtime_ns}
        )
        if fact and row not in self._queue.same:
            values |= {"width": fact.width, "height": fact.height}
        if candidate.box is not None:
            values |= dict(zip(("left", "top", "right", "bottom"), candidate.box, strict=True))
        return values | about_item(candidate, known)
