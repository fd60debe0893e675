"""Add items: only new and changed ones are encoded, and every few seconds what is done is kept.

Killed or interrupted at any moment, an addition goes on where it stopped when it is started again:
what was committed is recognised by path, size and time, and by the hash of the file where only the
time differs. What cannot be read is recorded with the reason and not tried again until it changes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve.data import Loader, Skipped
from fastretrieve.encoders.encoding import as_array
from fastretrieve.encoders.protocol import Encoder
from fastretrieve.gallery import database as db
from fastretrieve.gallery.database import Known
from fastretrieve.gallery.downloads import Limits
from fastretrieve.gallery.listing import Candidate
from fastretrieve.gallery.progress import Report
from fastretrieve.gallery.reading import Pending, Queue
from fastretrieve.gallery.storage import Rows, Storage, Writer

CHUNK = 5000  # candidates compared with the database at a time
COMMIT_ROWS = 20_000


@dataclass
class Added:
    """What an addition did."""

    added: int = 0
    updated: int = 0  # changed files, encoded anew
    relabelled: int = 0  # a new label, caption or metadata; the vector stays
    unchanged: int = 0
    left_out: int = 0  # were removed from the gallery before
    unreadable: list[Skipped] = field(default_factory=list)
    seconds: float = 0.0
    encode_seconds: float = 0.0  # spent in the encoder

    @property
    def encoder_share(self) -> float:
        """The share of the time in which the encoder was at work."""
        return self.encode_seconds / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "unreadable": [item._asdict() for item in self.unreadable],
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        counts = [f"{getattr(self, name):,} {text}" for name, text in _COUNTS.items()]
        counts = [text for text in counts if not text.startswith("0 ")] or ["nothing to add"]
        if self.unreadable:
            counts.append(f"{len(self.unreadable):,} could not be read")
        return f"{', '.join(counts)} in {self.seconds:.1f} s"


_COUNTS = {
    "added": "added",
    "updated": "updated",
    "relabelled": "with new metadata",
    "unchanged": "unchanged",
    "left_out": "left out because they were removed before",
}


class Options(NamedTuple):
    """How to add."""

    batch_size: int = 128
    workers: int | None = None
    progress: bool | None = None
    commit_seconds: float = 5.0
    restore: bool = False
    retry: bool = False
    limits: Limits = Limits()


class Addition:
    """One call of ``Gallery.add``: compare, encode, commit."""

    def __init__(
        self, storage: Storage, encoder: Callable[[], Encoder], options: Options, report: Report
    ) -> None:
        self._storage = storage
        self._encoder = encoder  # loaded when something has to be encoded
        self._options = options
        self._report = report
        self.result = Added()

    def run(self, writer: Writer, candidates: Iterable[Candidate]) -> Added:
        started = time.perf_counter()
        try:
            pending = self._compare(writer, candidates)
            if pending:
                self._encode(writer, pending)
                writer.merge(ended=True)
        finally:
            self.result.seconds = time.perf_counter() - started
        return self.result

    # --- comparing --------------------------------------------------------------------------------

    def _compare(self, writer: Writer, candidates: Iterable[Candidate]) -> list[Pending]:
        """What has to be encoded. New labels and metadata of unchanged items are written here."""
        pending: list[Pending] = []
        seen: set[str] = set()
        source = iter(candidates)
        n_listed = 0
        while chunk := list(islice(source, CHUNK)):
            relabelled: list[tuple[int, dict[str, Any]]] = []
            names = list(dict.fromkeys(name for one in chunk for name in one.metadata))
            present = {name.lower() for name in db.columns(writer.connection)}
            about = ["label", "caption", *(name for name in names if name.lower() in present)]
            found = db.known(writer.connection, [one.key for one in chunk], about)
            for candidate in chunk:
                if candidate.key in seen:
                    continue  # listed twice: the first line counts
                known = found.get(candidate.key)
                if known is None or self._has_changed(candidate, known):
                    seen.add(candidate.key)
                    pending.append(Pending(candidate, known))
                elif known.deleted == 0 and (values := _news(candidate, known, about)):
                    relabelled.append((known.id, values))
            if relabelled:
                _relabel(writer, relabelled)
                self.result.relabelled += len(relabelled)
            n_listed += len(chunk)
            self._report("looking", n_listed, None)
        return pending

    def _has_changed(self, candidate: Candidate, known: Known) -> bool:
        """Whether to encode a known item again; counts it if not."""
        is_same = (candidate.size, candidate.mtime_ns) == (known.size, known.mtime_ns)
        is_same = is_same or (candidate.url is not None and known.error is None)
        if known.deleted and known.error is None:
            if candidate.is_named or self._options.restore:
                return True
            self.result.left_out += 1
            return False
        if known.error is not None:
            if candidate.url is not None or not is_same or self._options.retry:
                return True  # a network may be better today; a file is as it was
            self.result.unreadable.append(Skipped(candidate.key, known.error))
            return False
        if is_same:
            self.result.unchanged += 1
        return not is_same

    # --- encoding ---------------------------------------------------------------------------------

    def _encode(self, writer: Writer, pending: list[Pending]) -> None:
        encoder = self._encoder()
        queue = Queue(self._storage.folder, encoder.modality, pending, self._options.limits)
        fetches = any(one.candidate.url for one in pending)
        options = self._options
        # Downloads wait for the network, not for a core; small batches, so that a stop is quick.
        workers = 16 if fetches and options.workers is None else options.workers
        loader = Loader(
            queue,
            encoder.preprocess,
            batch_size=min(options.batch_size, 16) if fetches else options.batch_size,
            workers=workers,
            size=max(getattr(encoder, "image_size", None) or (0,)) or None,
        )
        batch = Batch(self._storage, writer, queue, self.result)
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
                batch.commit(up_to=batch.next_row, skipped=[])  # what is encoded is kept
            raise


class Batch:
    """Encoded items that wait for the next commit."""

    def __init__(self, storage: Storage, writer: Writer, queue: Queue, result: Added) -> None:
        self._storage = storage
        self._writer = writer
        self._queue = queue
        self._result = result
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
        if any(not os.path.isabs(self._queue.pending[row].candidate.path) for row in rows):
            os.sync()  # pictures that were put into the gallery, all at once
        self.is_broken = True
        self._writer.commit(lambda c, n: self._write(c, n, rows, reasons, counts))
        self.is_broken = False
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
    ) -> Rows:
        ids: list[int] = []
        vectors: list[NDArray[np.float32]] = []
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
        return Rows(np.array(ids, np.int64), matrix)

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
        return values | _about(candidate, known)


def _about(candidate: Candidate, known: Known | None) -> dict[str, Any]:
    """Label, caption and metadata, as far as the source says something."""
    values = dict(candidate.metadata)
    has_label = known is not None and bool(known.about) and known.about[0] is not None
    if candidate.label is not None and (candidate.label_is_given or not has_label):
        values["label"] = candidate.label
    if candidate.caption is not None:
        values["caption"] = candidate.caption
    return values


def _news(candidate: Candidate, known: Known, about: list[str]) -> dict[str, Any]:
    """What a source says about an item that is not recorded yet."""
    recorded = {name.lower(): value for name, value in zip(about, known.about, strict=True)}
    said = _about(candidate, known)
    return {n: v for n, v in said.items() if v != recorded.get(n.lower()) and v is not None}


def _relabel(writer: Writer, items: list[tuple[int, dict[str, Any]]]) -> None:
    def change(connection: Any, generation: int) -> None:
        db.add_columns(connection, (n for _, values in items for n in values if not _is_fixed(n)))
        for item_id, values in items:
            db.put(connection, values, item_id)

    writer.commit(change)


def _is_fixed(name: str) -> bool:
    return name in ("label", "caption")
