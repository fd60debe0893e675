"""``where``: from a condition over the items to the ids that it allows.

A condition in SQL comes from the person who runs the program, yet it may come from a file or a
colleague, so it can read the view ``items`` and call harmless functions, and nothing else: SQLite's
authorizer refuses the rest when the statement is compiled, and a time limit stops what takes too
long. What could make large values, such as a query inside, ``||`` or ``hex``, runs in a process
of its own with a limit of memory (``sandbox.py``). The page sends ``Filter`` lists instead,
which become a statement with parameters here and hold no SQL at all.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from fastretrieve._common.arguments import shown
from fastretrieve._common.locks import ForkSafeLock
from fastretrieve.gallery.errors import GalleryError
from fastretrieve.gallery.lookup import sandbox
from fastretrieve.gallery.store import database as db
from fastretrieve.gallery.store.items import FIXED_COLUMNS, quoted

TIME_LIMIT = 5.0  # seconds of a processor
PATIENCE = (
    12  # times as long by the clock: on a busy machine an honest condition waits for its turn
)
MAX_LENGTH = 100_000
KEPT_MASKS = 32
MAX_LINEAR = 500  # characters of patterns; their time is their length times that of the text
_STATEMENT = "SELECT group_concat(id) FROM items WHERE (\n{}\n)"
_LIKE = re.compile(r"\b(?:like|glob)\b", re.IGNORECASE)
_LIKE_TEXT = re.compile(r"\b(?:like|glob)\s*'(?:[^']|'')*'", re.IGNORECASE)
_GROWS = re.compile(r"\|\||\b(?:select|with|values)\b", re.IGNORECASE)
_JOINS = re.compile("group_concat|string_agg", re.IGNORECASE)

# Of a condition, and of what no statement can hold: half a surrogate pair, a number beyond 64 bits.
_FAULTS = (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError)

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
        mask = rows_of(self.ids(where, view.connection), view.index.ids)
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
        if isinstance(where, str) and _JOINS.search(where):
            raise GalleryError("where may not use group_concat or string_agg")
        # One string for all ids is read ten times faster than one row for each.
        statement = _STATEMENT.format(condition)
        text = None
        if isinstance(where, str) and not self._is_plain(statement, condition, connection):
            text = self._apart(statement, condition, connection)
        if text is None:
            with self._guarded(connection, condition, sandbox.Authorizer()):
                (text,) = connection.execute(statement, values).fetchone()
        return np.fromstring(text or "", np.int64, sep=",")

    def _is_plain(self, statement: str, condition: str, connection: sqlite3.Connection) -> bool:
        """Whether it can only take time and memory in proportion to what it reads."""
        if _GROWS.search(condition):  # to compile a query in queries may take for ever, too
            return False
        nothing, guard = sandbox.Authorizer(), sandbox.Authorizer()
        for each, text in ((nothing, _STATEMENT.format("1")), (guard, statement)):
            with self._guarded(connection, condition, each):
                connection.execute(f"EXPLAIN {text}").fetchall()
        patterns = _LIKE_TEXT.findall(condition)
        return (
            guard.n_selects == nothing.n_selects
            and guard.functions - {"group_concat"} <= sandbox.PLAIN
            and len(patterns) == len(_LIKE.findall(condition))
            and sum(map(len, patterns)) <= MAX_LINEAR
        )

    def _apart(self, statement: str, condition: str, connection: sqlite3.Connection) -> str | None:
        """The ids, found by a process with limits; None if a commit came between, where the answer
        is of another state but shows that the condition is harmless.
        """
        limit = self._time_limit
        (last,) = connection.execute("SELECT max(id) FROM item").fetchone()
        memory = sandbox.MEMORY + sandbox.ID_BYTES * int(last or 0)
        job = {
            "uri": _uri(connection),
            "statement": statement,
            "seconds": limit,
            "patience": PATIENCE * limit,
            "memory": memory,
        }
        command = [sys.executable, "-I", "-S", sandbox.__file__]
        try:
            done = subprocess.run(
                command,
                input=json.dumps(job).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=PATIENCE * limit + 10,
                check=False,
            )
            answer = json.loads(done.stdout) if done.returncode == 0 else {"kind": "time"}
        except subprocess.TimeoutExpired:
            answer = {"kind": "time"}
        except (OSError, ValueError) as error:
            raise GalleryError(f"where needs a process with limits: {error}") from error
        if answer["kind"] == "time":
            raise _too_long(limit)
        if answer["kind"] == "memory":
            raise GalleryError(
                f"where takes more than {memory >> 20:,} MiB of memory and was stopped; ask for "
                "less"
            )
        if answer["kind"] == "error":
            raise _refusal(answer["reason"], condition, connection)
        is_now = answer["generation"] == db.generation(connection)
        return str(answer["ids"]) if is_now else None

    @contextlib.contextmanager
    def _guarded(
        self, connection: sqlite3.Connection, condition: str, guard: sandbox.Authorizer
    ) -> Iterator[None]:
        limit = self._time_limit
        connection.set_authorizer(guard)
        sandbox.stop_late(connection, limit, PATIENCE * limit)
        try:
            yield
        except _FAULTS as error:
            if "interrupted" in str(error):
                raise _too_long(limit) from error
            raise _refusal(guard.refused or str(error), condition, connection) from error
        finally:
            _unguard(connection)


def rows_of(found: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """A mask over ``ids`` that says which of them were found."""
    allowed = np.zeros(int(ids.max()) + 1 if len(ids) else 0, bool)
    allowed[found[(found >= 0) & (found < len(allowed))]] = True
    mask: NDArray[np.bool_] = allowed[ids]
    return mask


def _too_long(limit: float) -> GalleryError:
    return GalleryError(f"where took more than {limit:g} s and was stopped; ask for less")


def _refusal(reason: str, condition: str, connection: sqlite3.Connection) -> GalleryError:
    return GalleryError(
        f"where is not a condition that works here: {reason}; it was {_short(condition)!r}"
        f"; columns: {', '.join(_shown(connection))}"
    )


def _uri(connection: sqlite3.Connection) -> str:
    """How another process opens the same file; as this one did, if the file is known not to
    change.
    """
    (file,) = (row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main")
    still = "&immutable=1" if getattr(connection, "watch", None) is not None else ""
    return f"{Path(file).as_uri()}?mode=ro{still}"


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
        if len(str(value)) > MAX_LINEAR:
            raise GalleryError(f"contains looks for at most {MAX_LINEAR} characters")
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
