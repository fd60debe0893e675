"""The rights of a condition, and a process of its own for one that could take much memory or time.

The part that runs in that process needs Python's own library only, so that it starts in 30 ms; it
is run as a file. There the system counts: address space, seconds of a processor, next to no files.
"""

from __future__ import annotations

import json
import math
import resource
import sqlite3
import sys
import time
from typing import Any

STEPS = 20_000  # of SQLite's machine between two looks at the clock
MEMORY = 512 << 20  # bytes of address space, beside what the ids take
FILE = 1 << 20  # bytes of a file that it may write: what readers of a database share has 32 KiB
ID_BYTES = 64  # of text and copies of it, an item

# Functions whose time and result grow with what they are given and no faster. A condition of these
# alone, without a query inside, needs no process of its own.
PLAIN = frozenset(
    {
        *("abs", "ceil", "floor", "round", "sign", "max", "min"),
        *("coalesce", "ifnull", "iif", "nullif", "typeof"),
        *("date", "datetime", "julianday", "time"),
        *("glob", "length", "like", "lower", "substr", "substring", "unicode", "upper"),
        *("json_array_length", "json_extract", "json_type", "json_valid", "->", "->>"),
    }
)
# Functions that neither read files nor load code.
FUNCTIONS = PLAIN | {
    *("avg", "count", "sum", "total"),
    *("hex", "instr", "ltrim", "rtrim", "strftime", "trim"),
}

_NAMED = {
    sqlite3.SQLITE_RECURSIVE: "it may not be recursive",
    sqlite3.SQLITE_PRAGMA: "it may not use PRAGMA",
    sqlite3.SQLITE_ATTACH: "it may not attach files",
}


class Authorizer:
    """SQLite asks it about each action of a statement that it compiles."""

    def __init__(self) -> None:
        self.refused = ""
        self.functions: set[str] = set()
        self.n_selects = 0

    def __call__(
        self, action: int, first: str | None, second: str | None, where: str | None, via: str | None
    ) -> int:
        if self._allows(action, first, second, via):
            return sqlite3.SQLITE_OK
        self.refused = self.refused or _NAMED.get(action, "") or f"it may not use {first or second}"
        return sqlite3.SQLITE_DENY

    def _allows(self, action: int, first: str | None, second: str | None, via: str | None) -> bool:
        if action == sqlite3.SQLITE_SELECT:
            self.n_selects += 1
            return True
        if action == sqlite3.SQLITE_READ:
            # The table only through its view, so that what was deleted stays hidden.
            return first == "items" or (first == "item" and via == "items")
        if action == sqlite3.SQLITE_FUNCTION:
            # group_concat joins the ids; `conditions.py` refuses conditions that say its name.
            self.functions.add((second or "").lower())
            return (second or "").lower() in {*FUNCTIONS, "group_concat"}
        return False


def stop_late(connection: sqlite3.Connection, seconds: float, patience: float) -> None:
    """Interrupt what takes more seconds of a processor, or so many by the clock."""
    used, waited = time.thread_time() + seconds, time.monotonic() + patience
    connection.set_progress_handler(
        lambda: time.thread_time() > used or time.monotonic() > waited, STEPS
    )


def run(connection: sqlite3.Connection, job: dict[str, Any]) -> dict[str, Any]:
    """The ids as text, or the error, and the generation in which this was true."""
    guard = Authorizer()
    connection.execute("PRAGMA temp_store = MEMORY")  # under the limit, not on the disk
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("BEGIN")
    (generation,) = connection.execute("SELECT generation FROM state").fetchone()
    connection.set_authorizer(guard)
    stop_late(connection, job["seconds"], job["patience"])
    try:
        (text,) = connection.execute(job["statement"]).fetchone()
    except (MemoryError, sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        is_large = isinstance(error, (MemoryError, OverflowError, sqlite3.DataError))
        if is_large or "out of memory" in str(error) or "too big" in str(error):
            return {"kind": "memory"}
        kind = "time" if "interrupted" in str(error) else "error"
        return {"kind": kind, "reason": guard.refused or str(error)}
    return {"kind": "ids", "ids": text or "", "generation": generation}


def main() -> None:
    """Read a job from the input, write its answer to the output."""
    job = json.load(sys.stdin)
    seconds = math.ceil(job["seconds"]) + 1  # for what does not look at the clock
    for limit, value in (
        (resource.RLIMIT_AS, job["memory"]),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (least, least))
    try:
        connection = sqlite3.connect(job["uri"], uri=True, isolation_level=None)
        answer = run(connection, job)
    except sqlite3.Error as error:
        answer = {"kind": "error", "reason": str(error)}
    except MemoryError:
        answer = {"kind": "memory"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
