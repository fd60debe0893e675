"""Changes that need no encoder: removing items, giving them another label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastretrieve.gallery.store.storage import Storage


def remove(storage: Storage, ids: Sequence[int], *, wait: float) -> None:
    """Hide these items, and merge the index files if much of them is unused now."""

    def change(connection: Any, generation: int) -> None:
        connection.executemany(
            "UPDATE item SET deleted = ? WHERE id = ? AND deleted = 0",
            [(generation, item_id) for item_id in ids],
        )

    with storage.writing(wait=wait) as writer:
        writer.commit(change)
        writer.merge(ended=True)


def label(storage: Storage, ids: Sequence[int], name: str | None, *, wait: float) -> None:
    """Give these items another label."""

    def change(connection: Any, generation: int) -> None:
        connection.executemany(
            "UPDATE item SET label = ? WHERE id = ?", [(name, item_id) for item_id in ids]
        )

    with storage.writing(wait=wait) as writer:
        writer.commit(change)
