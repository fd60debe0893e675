"""``where``: from a condition over the items to the ids that it allows.

A condition in SQL comes from the person who runs the program, yet it may come from a file or a
colleague, so it runs on a connection that can read the view ``items`` and call harmless functions,
and nothing else: SQLite's authorizer refuses the rest when the statement is compiled, and a time
limit stops what takes too long. The page sends ``Filter`` lists instead, which become a statement
with parameters here and hold no SQL at all.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from fastretrieve.arguments import shown
from fastretrieve.gallery import database as db
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.items import FIXED_COLUMNS, quoted
from fastretrieve.locks import ForkSafeLock

TIME_LIMIT = 5.0  # seconds of a processor
PATIENCE = (
    12  # times as long by the clock: on a busy machine an honest condition waits for its turn
)
MAX_LENGTH = 100_000
KEPT_MASKS = 32
_STEPS = 20_000  # of SQLite's machine between two looks at the clock

# Functions that neither read files, nor load code, nor make large values.
_FUNCTIONS = frozenset(
    {
        *("abs", "ceil", "floor", "round", "sign", "max", "min"),
        *("avg", "count", "sum", "total"),
        *("coalesce", "ifnull", "iif", "nullif", "typeof"),
        *("date", "datetime", "julianday", "strftime", "time"),
        *("glob", "instr", "length", "like", "lower", "ltrim", "rtrim", "substr", "substring"),
        *("trim", "unicode", "upper", "hex"),
        *("json_array_length", "json_extract", "json_type", "json_valid", "->", "->>"),
    }
)

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "contains", "in", "is empty", "is not empty"]
_COMPARISONS = {"=": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


class Filter(NamedTuple):
    """One structured condition; several are joined by and."""

    column: str
    operator: Operator
    value: Any = None


Where = str | Sequence[Filter] | None


class Conditions:
    """Answers conditions about one gallery, and remembers the last answers."""

    def __init__(self, *, time_limit: float = TIME_LIMIT) -> None:
        self._time_limit = time_limit
        self._lock = ForkSafeLock()
        self._masks: OrderedDict[Any, NDArray[np.bool_]] = OrderedDict()

    def mask(self, where: Where, view: Any) -> NDArray[np.bool_] | None:
        """Which rows of ``view.index.ids`` are allowed; None for all."""
        _refuse_other(where)
        if where is None or (isinstance(where, str) and not where.strip()) or len(where) == 0:
            return None
        key = (where if isinstance(where, str) else tuple(map(repr, where)), view.generation)
        with self._lock:
            if key in self._masks:
                self._masks.move_to_end(key)
                return self._masks[key]
        ids = view.index.ids
        allowed = np.zeros(int(ids.max()) + 1 if len(ids) else 0, bool)
        found = self.ids(where, view.connection)
        allowed[found[found < len(allowed)]] = True
        mask: NDArray[np.bool_] = allowed[ids]
        with self._lock:
            self._masks[key] = mask
            while len(self._masks) > KEPT_MASKS:
                self._masks.popitem(last=False)
        return mask

    def ids(self, where: Where, connection: sqlite3.Connection) -> NDArray[np.int64]:
        """The ids of the items that meet the condition."""
        _refuse_other(where)
        condition, values = (
            (where or "1", ())
            if isinstance(where, str)
            else compiled(where or (), db.columns(connection))
        )
        if len(condition) > MAX_LENGTH:
            raise GalleryError(f"where has {len(condition)} characters, at most {MAX_LENGTH} go")
        # One string for all ids is read ten times faster than one row for each.
        statement = f"SELECT group_concat(id) FROM items WHERE (\n{condition}\n)"
        with self._guarded(connection, condition):
            (text,) = connection.execute(statement, values).fetchone()
        return np.fromstring(text or "", np.int64, sep=",")

    @contextlib.contextmanager
    def _guarded(self, connection: sqlite3.Connection, condition: str) -> Iterator[None]:
        limit, guard = self._time_limit, _Guard()
        used, waited = time.thread_time() + limit, time.monotonic() + PATIENCE * limit
        connection.set_authorizer(guard)
        connection.set_progress_handler(
            lambda: time.thread_time() > used or time.monotonic() > waited, _STEPS
        )
        try:
            yield
        except sqlite3.Error as error:
            if "interrupted" in str(error):
                raise GalleryError(
                    f"where took more than {self._time_limit:g} s and was stopped; ask for less"
                ) from error
            reason = guard.refused or str(error)
            raise GalleryError(
                f"where is not a condition that works here: {reason}; it was {_short(condition)!r}"
                f"; columns: {', '.join(_shown(connection))}"
            ) from error
        finally:
            _unguard(connection)


def _refuse_other(where: Any) -> None:
    """Raise for what is no condition: masks and ids are for ``Index.search``."""
    is_filters = isinstance(where, (list, tuple)) and all(
        isinstance(each, (list, tuple)) and len(each) == 3 for each in where
    )
    if not (where is None or isinstance(where, str) or is_filters):
        raise GalleryError(
            "where is a condition in SQL, such as \"label = 'boot' AND width > 200\", or a list of "
            f"filters (column, operator, value); got {shown(where)}"
        )


class _Guard:
    """SQLite asks it about everything that a statement does, when it is compiled."""

    def __init__(self) -> None:
        self.refused = ""

    def __call__(
        self, action: int, first: str | None, second: str | None, where: str | None, via: str | None
    ) -> int:
        if self._allows(action, first, second, via):
            return sqlite3.SQLITE_OK
        self.refused = self.refused or _NAMED.get(action, "") or f"it may not use {first or second}"
        return sqlite3.SQLITE_DENY

    def _allows(self, action: int, first: str | None, second: str | None, via: str | None) -> bool:
        if action == sqlite3.SQLITE_SELECT:
            return True
        if action == sqlite3.SQLITE_READ:
            # The table only through its view, so that what was deleted stays hidden.
            return first == "items" or (first == "item" and via == "items")
        if action == sqlite3.SQLITE_FUNCTION:
            return (second or "").lower() in _FUNCTIONS or second == "group_concat"
        return False


_NAMED = {
    sqlite3.SQLITE_RECURSIVE: "it may not be recursive",
    sqlite3.SQLITE_PRAGMA: "it may not use PRAGMA",
    sqlite3.SQLITE_ATTACH: "it may not attach files",
}


def compiled(filters: Sequence[Filter], metadata: Sequence[str]) -> tuple[str, list[Any]]:
    """Filters as a condition with parameters.

    >>> compiled([Filter("label", "=", "boot"), Filter("width", ">", 200)], [])
    ('"label" = ? AND "width" > ?', ['boot', 200])
    """
    known = {name.lower(): name for name in (*FIXED_COLUMNS, *metadata)}
    parts: list[str] = []
    values: list[Any] = []
    for column, operator, value in filters:
        name = known.get(str(column).lower())
        if name is None:
            raise GalleryError(
                f"there is no column {column!r}; columns: {', '.join(known.values())}"
            )
        part, more = _condition(quoted(name), operator, value)
        parts.append(part)
        values += more
    return " AND ".join(parts) or "1", values


def _condition(column: str, operator: str, value: Any) -> tuple[str, list[Any]]:
    if operator in _COMPARISONS:
        return f"{column} {_COMPARISONS[operator]} ?", [_scalar(value)]
    if operator == "contains":
        pattern = str(value).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        return f"{column} LIKE ? ESCAPE '\\'", [f"%{pattern}%"]
    if operator == "in" and isinstance(value, (list, tuple)):
        return f"{column} IN ({', '.join('?' * len(value))})", [_scalar(each) for each in value]
    if operator in ("is empty", "is not empty"):
        is_empty = f"({column} IS NULL OR {column} = '')"
        return is_empty if operator == "is empty" else f"NOT {is_empty}", []
    raise GalleryError(
        f"a filter's operator is one of {', '.join(get_args(Operator))} ('in' with a list), got "
        f"{operator!r} with {type(value).__name__}"
    )


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise GalleryError(f"a filter compares with text or a number, got {type(value).__name__}")


def _unguard(connection: sqlite3.Connection) -> None:
    connection.set_progress_handler(None, 0)
    # None means no authorizer only from Python 3.11 on.
    allow: Callable[..., int] = lambda *_: sqlite3.SQLITE_OK  # noqa: E731
    connection.set_authorizer(allow)


def _shown(connection: sqlite3.Connection) -> list[str]:
    _unguard(connection)
    return [name for name in (*FIXED_COLUMNS, *db.columns(connection)) if name != "deleted"]


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."
