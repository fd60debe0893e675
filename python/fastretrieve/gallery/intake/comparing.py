"""Compare the listed candidates with the gallery: new and changed ones are to be encoded.

A file is recognised by path, size and time. New labels and metadata of unchanged items are written
at once, since no vector waits for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import islice
from typing import Any

from fastretrieve.data import Skipped
from fastretrieve.gallery.intake.added import Added, AddOptions
from fastretrieve.gallery.intake.candidates import Candidate
from fastretrieve.gallery.intake.reading import Pending
from fastretrieve.gallery.progress import Report
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store.items import Known
from fastretrieve.gallery.store.naming import ColumnNames
from fastretrieve.gallery.store.writing import Writer

CHUNK = 5000  # candidates compared with the database at a time


class Comparison:
    """Finds out what to encode; counts the rest in ``result``."""

    def __init__(self, writer: Writer, options: AddOptions, result: Added, report: Report) -> None:
        self._writer = writer
        self._options = options
        self._result = result
        self._report = report
        self.names = ColumnNames(writer.connection)

    def pending(self, candidates: Iterable[Candidate]) -> list[Pending]:
        """What has to be encoded. New labels and metadata of unchanged items are written here."""
        pending: list[Pending] = []
        seen: set[str] = set()
        source = iter(candidates)
        n_listed = 0
        while listed := list(islice(source, CHUNK)):
            chunk = [
                one._replace(metadata=self.names.renamed(one.metadata)) if one.metadata else one
                for one in listed
            ]
            relabelled: list[tuple[int, dict[str, Any]]] = []
            names = list(dict.fromkeys(name for one in chunk for name in one.metadata))
            present = {name.lower() for name in db.columns(self._writer.connection)}
            about = [
                "label",
                "caption",
                "path",
                *(name for name in names if name.lower() in present),
            ]
            found = db.known(self._writer.connection, [one.key for one in chunk], about)
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
                self._relabel(relabelled)
                self._result.relabelled += len(relabelled)
            n_listed += len(chunk)
            self._report("looking", n_listed, None)
        self._result.unreadable += self.names.left_out.values()
        return pending

    def _relabel(self, items: list[tuple[int, dict[str, Any]]]) -> None:
        def change(connection: Any, generation: int) -> None:
            self.names.save(connection)
            new = (name for _, values in items for name in values if not _is_fixed(name))
            db.add_columns(connection, new)
            for item_id, values in items:
                db.put(connection, values, item_id)

        self._writer.commit(change)
        self.names.saved()

    def _has_changed(self, candidate: Candidate, known: Known) -> bool:
        """Whether to encode a known item again; counts it if not."""
        if self._options.anew:
            return True
        is_same = (candidate.size, candidate.mtime_ns) == (known.size, known.mtime_ns)
        is_same = is_same and not _is_another_copy(candidate, known)
        is_same = is_same or (candidate.url is not None and known.error is None)
        if known.deleted and known.error is None:
            if candidate.is_named or self._options.restore:
                return True
            self._result.left_out += 1
            return False
        if known.error is not None:
            if candidate.url is not None or not is_same or self._options.retry:
                return True  # a network may be better today; a file is as it was
            self._result.unreadable.append(Skipped(candidate.key, known.error))
            return False
        if is_same:
            self._result.unchanged += 1
        return not is_same


def _is_another_copy(candidate: Candidate, known: Known) -> bool:
    """Whether the gallery keeps another picture of it: a kept picture is called by its digest."""
    is_kept = candidate.url is None and not os.path.isabs(candidate.path)
    return is_kept and len(known.about) > 2 and known.about[2] != candidate.path


def about_item(candidate: Candidate, known: Known | None) -> dict[str, Any]:
    """Label, caption and metadata, as far as the source says something."""
    values = dict(candidate.metadata)
    has_label = known is not None and bool(known.about) and known.about[0] is not None
    if candidate.label is not None and (candidate.label_is_given or not has_label):
        values["label"] = candidate.label
    if candidate.caption is not None:
        values["caption"] = candidate.caption
    return values


def _news(candidate: Candidate, known: Known, about: list[str]) -> dict[str, Any]:
    """The values that a source gives an item and the gallery does not have yet."""
    recorded = {name.lower(): value for name, value in zip(about, known.about, strict=True)}
    said = about_item(candidate, known)
    return {n: v for n, v in said.items() if v != recorded.get(n.lower()) and v is not None}


def _is_fixed(name: str) -> bool:
    return name in ("label", "caption")
