"""What to call a cluster: its most common label, else the words that set it apart, else a number.

A label names a cluster if at least a fifth of the members have it. Words are those of captions and
labels. A word sets a cluster apart if it is more frequent there than in all clusters together.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fastretrieve.gallery.store import clusters

LEAST_SHARE = 0.2  # of the members that have the label, or the word
N_WORDS = 3
READ = 100_000  # items whose words are read, of all clusters together
READ_OF_EACH = (20, 500)  # at least and at most
TEXT = 500  # characters that are read of a caption
_WORD = re.compile(r"[^\W\d_]{3,40}")


class Named(NamedTuple):
    """The name of a cluster, and the share of its members of which it is the label."""

    name: str
    share: float | None


def names(connection: sqlite3.Connection, sizes: Mapping[int, int]) -> dict[int, Named]:
    """The name of each cluster; ``sizes`` are their members by number."""
    found = {}
    for number, (label, n) in _common_labels(connection).items():
        if n >= LEAST_SHARE * sizes[number]:
            found[number] = Named(label, n / sizes[number])
    if len(found) < len(sizes):
        words = _words(connection, sizes)
        every: Counter[str] = Counter()
        for each in words.values():
            every.update(each)
        for number in sizes.keys() - found.keys():
            apart = setting_apart(words[number], every)
            found[number] = Named(", ".join(apart) or f"cluster {number}", None)
    return found


def _common_labels(connection: sqlite3.Connection) -> dict[int, tuple[str, int]]:
    """The most common label of each cluster, and how many members have it; of equally common ones
    the first in the alphabet.
    """
    labels, places, labelled = clusters.grouped(
        connection,
        "SELECT label, count(*), group_concat(id) FROM item WHERE deleted = 0 "
        "AND label IS NOT NULL AND label != '' GROUP BY label ORDER BY label",
    )
    if not all(isinstance(label, str) for label in labels):
        raise sqlite3.DatabaseError("it has a label that is no text")
    ids, numbers = clusters.assignment(connection)
    if not len(labelled):
        return {}
    if not np.isin(labelled, ids).all():
        raise sqlite3.DatabaseError("it has clusters, and an item that is in none")
    pairs = numbers[np.searchsorted(ids, labelled)] * len(labels) + places
    pairs, counts = np.unique(pairs, return_counts=True)
    order = np.lexsort((pairs, -counts, pairs // len(labels)))
    pairs, counts = pairs[order], counts[order]
    owners, first = np.unique(pairs // len(labels), return_index=True)
    return {
        int(number): (labels[pairs[i] % len(labels)], int(counts[i]))
        for number, i in zip(owners, first, strict=True)
    }


def _words(connection: sqlite3.Connection, sizes: Mapping[int, int]) -> dict[int, Counter[str]]:
    """In how many of the members that were read each word occurs; "" counts these members."""
    least, most = READ_OF_EACH
    n_read = min(max(READ // max(len(sizes), 1), least), most)
    statement = (
        f"SELECT substr(label, 1, {TEXT}), substr(caption, 1, {TEXT}) FROM item WHERE id IN "
        "(SELECT c.item FROM cluster_of c WHERE c.number = ? AND c.item % ? = 0 LIMIT ?)"
    )
    counts = {}
    for number, size in sizes.items():
        step = max(size // n_read, 1)
        # Ids of one cluster need not be spread evenly: where the step leaves out too many, none is.
        rows = connection.execute(statement, (number, step, n_read)).fetchall()
        if step > 1 and len(rows) < n_read // 2:
            rows = connection.execute(statement, (number, 1, n_read)).fetchall()
        counts[number] = Counter({"": len(rows)})
        for texts in rows:
            text = " ".join(each for each in texts if isinstance(each, str))
            counts[number].update(set(_WORD.findall(text.lower())))
    return counts


def setting_apart(words: Counter[str], every: Counter[str]) -> list[str]:
    """The few words that tell most about one of several clusters. "" counts the members.

    >>> boots = Counter({"": 10, "a": 10, "boot": 9, "red": 5})
    >>> setting_apart(boots, boots + Counter({"": 10, "a": 10, "bag": 10, "red": 5}))
    ['boot']
    """
    value = {}
    for word, n in words.items():
        everywhere = every[word] / max(every[""], 1)
        share = n / max(words[""], 1)
        if word and share >= LEAST_SHARE and share > 1.5 * everywhere:
            value[word] = share * math.log(share / everywhere)
    return sorted(value, key=lambda word: (-value[word], word))[:N_WORDS]
