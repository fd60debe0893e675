"""Finds items by the words that are written about them, and says how well each fits: BM25.

Each leaf of an expression is asked for by itself; sets of ids are then joined, and the scores of
all leaves that are wanted add up, as BM25 does. So ``NOT`` can stand anywhere, and parts of words
and whole words answer together. ``ranking.py`` fuses the order with that of vectors.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arguments import shown
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup import sandbox
from fastretrieve.gallery.lookup.expressions import Asked, Expression, Joined, excluded, parsed
from fastretrieve.gallery.lookup.words import NoWords, WordsError
from fastretrieve.gallery.store import written
from fastretrieve.gallery.store.vectors import View

TIME_LIMIT = 5.0  # seconds of a processor
PATIENCE = 60.0  # seconds by the clock
PIECE = 0.5  # of the score that the same letters would have as a word of their own
SHORTEST_PIECE = 3  # letters
MANY, MANY_SHARE = 20_000, 0.2  # items and share of all, beyond which all with a word score alike
MATCHED_SHARE = 0.5  # of the parts of a long piece of Chinese that must be there, and two at least

Ids = NDArray[np.int64]


class Hits(NamedTuple):
    """Items and how well they fit."""

    ids: Ids
    scores: NDArray[np.float64]  # larger is better; 0 where nothing that is wanted is there


def ranked(view: View, text: str, *, mask: NDArray[np.bool_] | None, joined: Joined) -> Hits:
    """The items of a view that fit a text, and that a mask of its rows allows, best first."""
    expression = parsed(text, joined=joined)
    if not expression:
        raise NoWords(
            f"text is {shown(text)}, and holds no word; give words to find, such as red boot, or "
            "boot NOT child"
        )
    allowed = view.index.ids if mask is None else view.index.ids[mask]
    with _guarded(view.connection):
        found = _Reader(view.connection).hits(expression, allowed)
    order = np.lexsort((found.ids, -found.scores))
    return Hits(found.ids[order], found.scores[order])


def listed(view: View, text: str, *, mask: NDArray[np.bool_] | None) -> list[int]:
    """The items in which some words of a sentence are written, best first: one list of two."""
    if not parsed(text):
        return []  # signs alone; the vectors may answer them
    hits = ranked(view, text, mask=mask, joined="OR")
    found: list[int] = hits.ids[hits.scores > 0].tolist()
    return found


@contextlib.contextmanager
def _guarded(connection: sqlite3.Connection) -> Iterator[None]:
    """Refuse an index that is not there or not ours; stop what takes too long."""
    if reason := written.unavailable():
        raise GalleryError(f"words that are written cannot be found: {reason}")
    if not written.is_kept(connection):
        raise GalleryError(
            "the words of this gallery are not indexed yet, as it was made before there was such "
            "an index; any change makes it: gallery.update(), or `fastretrieve update GALLERY`"
        )
    sandbox.stop_late(connection, TIME_LIMIT, PATIENCE)
    try:
        with written.naming_damage():
            written.refuse_forged(connection)
            yield
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            raise WordsError(
                f"to find these words took more than {TIME_LIMIT:g} s and was stopped; give fewer, "
                "or longer beginnings"
            ) from error
        raise
    finally:
        connection.set_progress_handler(None, 0)


class _Reader:
    """Answers leaves from the index of words, each one once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._wide: dict[Asked, Hits] = {}
        self._n_items = written.count(connection) or 0

    def hits(self, expression: Expression, allowed: Ids) -> Hits:
        """The allowed items that an expression finds."""
        signs = excluded(expression)
        leaves = [step for step in expression if isinstance(step, Asked)]
        found = _joined(expression, [self._ids(*each) for each in zip(leaves, signs, strict=True)])
        if found.is_rest:
            ids = np.setdiff1d(allowed, found.ids)
        else:
            ids = found.ids[np.isin(found.ids, allowed)]
        scores = np.zeros(len(ids))
        for leaf in {leaf for leaf, is_out in zip(leaves, signs, strict=True) if not is_out}:
            scores += _scores_of(ids, self._wide[leaf])
        return Hits(ids, scores)

    def _ids(self, leaf: Asked, is_excluded: bool) -> Ids:
        """What a leaf stands for: what is excluded holds it as it is, not as a part of a word."""
        if is_excluded:
            return self._holding("words", _match(leaf))
        if leaf not in self._wide:
            self._wide[leaf] = self._loose(leaf) if leaf.is_loose else self._with_pieces(leaf)
        return self._wide[leaf].ids

    def _with_pieces(self, leaf: Asked) -> Hits:
        """Items with these words; for a single one, also items with longer words that hold it."""
        whole = self._matching("words", leaf)
        is_piece = len(leaf.words) == 1 and not (leaf.is_quoted or leaf.is_beginning)
        if not is_piece or len(leaf.words[0]) < SHORTEST_PIECE:
            return whole
        pieces = self._matching("pieces", leaf)
        most = whole.scores.min(initial=np.inf)  # a part is never better than the word
        return _sums([Hits(pieces.ids, PIECE * np.minimum(pieces.scores, most)), whole], np.maximum)

    def _loose(self, leaf: Asked) -> Hits:
        """Items with enough of the pairs of neighbouring characters."""
        pairs = [
            Asked(pair) for pair in dict.fromkeys(zip(leaf.words, leaf.words[1:], strict=False))
        ]
        each = [self._matching("words", pair) for pair in pairs]
        ids, counts = np.unique(np.concatenate([hits.ids for hits in each]), return_counts=True)
        enough = ids[counts >= max(MATCHED_SHARE * len(pairs), min(2, len(pairs)))]
        whole = self._matching("words", leaf)
        together = _sums([*each, whole], np.add)
        keeps = np.isin(together.ids, np.union1d(enough, whole.ids))
        return Hits(together.ids[keeps], together.scores[keeps])

    def _matching(self, table: str, leaf: Asked) -> Hits:
        """What FTS5 finds, and its BM25."""
        asked = _match(leaf)
        ids = self._holding(table, asked)
        n, n_all = len(ids), max(self._n_items, len(ids))
        rarity = math.log1p((n_all - n + 0.5) / (n + 0.5))
        if n > max(MANY, n_all * MANY_SHARE):  # a score for each would take long and say little
            return Hits(ids, np.full(n, rarity))
        rows = self._connection.execute(
            f"SELECT bm25({table}) FROM {table} WHERE {table} MATCH ? ORDER BY rowid", (asked,)
        ).fetchall()
        # FTS5 takes a logarithm that is below zero for what most items have, and then next to zero.
        own_rarity = max(math.log((n_all - n + 0.5) / (n + 0.5)), 1e-6)
        scores = -np.array(rows, np.float64).reshape(-1) / own_rarity * rarity
        if len(scores) != n or not np.isfinite(scores).all():
            raise written.damaged("it has scores that no words give")
        return Hits(ids, scores)

    def _holding(self, table: str, asked: str) -> Ids:
        """The items alone; one string is read faster than a row for each."""
        (text,) = self._connection.execute(
            f"SELECT group_concat(rowid) FROM {table} WHERE {table} MATCH ?", (asked,)
        ).fetchone()
        ids = np.fromstring(text or "", np.int64, sep=",")
        if (np.diff(ids) <= 0).any():
            raise written.damaged("an item is there twice")
        return ids


def _match(leaf: Asked) -> str:
    """What FTS5 is asked. The text between the quotes is words: letters and digits alone."""
    return '"' + " ".join(leaf.words) + '"' + "*" * leaf.is_beginning


def _scores_of(ids: Ids, hits: Hits) -> NDArray[np.float64]:
    """The scores of these items; 0 where an item was not hit."""
    if not len(hits.ids):
        return np.zeros(len(ids))
    places = np.minimum(np.searchsorted(hits.ids, ids), len(hits.ids) - 1)
    found: NDArray[np.float64] = np.where(hits.ids[places] == ids, hits.scores[places], 0.0)
    return found


class _Found(NamedTuple):
    """A set of items."""

    ids: Ids
    is_rest: bool = False  # all items but these


def _joined(expression: Expression, leaves: list[Ids]) -> _Found:
    """The set that an expression describes; ``leaves`` are those of its leaves, in order."""
    stack: list[_Found] = []
    given = iter(leaves)
    for step in expression:
        if isinstance(step, Asked):
            stack.append(_Found(next(given)))
        elif step == "NOT":
            stack[-1] = stack[-1]._replace(is_rest=not stack[-1].is_rest)
        else:
            second, first = stack.pop(), stack.pop()
            stack.append(_both(first, second) if step == "AND" else _either(first, second))
    (found,) = stack
    return found


def _both(first: _Found, second: _Found) -> _Found:
    if first.is_rest and second.is_rest:
        return _Found(np.union1d(first.ids, second.ids), is_rest=True)
    if first.is_rest:
        first, second = second, first
    inside = np.isin(first.ids, second.ids)
    return _Found(first.ids[inside != second.is_rest])


def _either(first: _Found, second: _Found) -> _Found:
    """By De Morgan: what is not outside of both."""
    one, two = (each._replace(is_rest=not each.is_rest) for each in (first, second))
    outside = _both(one, two)
    return outside._replace(is_rest=not outside.is_rest)


def _sums(hits: list[Hits], add: np.ufunc) -> Hits:
    """Each item once, its scores joined."""
    ids, places = np.unique(np.concatenate([each.ids for each in hits]), return_inverse=True)
    scores = np.zeros(len(ids))
    add.at(scores, places, np.concatenate([each.scores for each in hits]))
    return Hits(ids, scores)
