"""Damage galleries: bytes of the manifest, the database and its log, and values in its tables.

``outcomes`` does with a damaged gallery all that people do. Each call works, or says what is wrong
with an error of the house; anything else is a fault of ours.
"""

from __future__ import annotations

import contextlib
import json
import lzma
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastretrieve import StorageError
from fastretrieve.data import DataError
from fastretrieve.encoders import EncoderError
from fastretrieve.gallery import Gallery, GalleryError
from fastretrieve.gallery.store import manifest
from gallery_helpers import new_gallery, picture, write_pictures

SECONDS = 20.0  # for all calls; a hang takes longer
_VALUES: tuple[Any, ...] = (
    None, -1, 0, 1, 2**31, 2**53, 2**63 - 1, -(2**63), 0.5, float("inf"), "", "x", "../x",
    "pictures/../../x", "/dev/zero", "a\0b", "/a\0b", "0000000001.index",
    b"", b"\xff\x00", "\x1b[1m", "9" * 99,
)  # fmt: skip
_COLUMNS = {
    "item": ("id", "key", "path", "url", "left", "right", "width", "size", "mtime_ns", "hash",
             "label", "caption", "error", "deleted", "note"),
    "segment": ("last", "first", "file", "n_rows", "n_bytes", "sha256"),
    "state": ("generation",),
}  # fmt: skip
FILES = ("gallery.json", "items.sqlite", "items.sqlite-wal")


def seed(folder: Path) -> Path:
    """A small gallery with everything in it, and a log that a killed writer left."""
    write_pictures(folder / "many", 4)
    (folder / "table.csv").write_text(
        f"path,label,note\n{folder}/many/00000.png,a,x\n{folder}/many/00001.png,b,7\n"
    )
    with new_gallery(folder / "g") as made:
        made.add(folder / "table.csv")
        made.add(folder / "many")
        made.add([picture(50), picture(51)])
        made.remove(2)
    with made._storage.writing() as writer:  # of a killed writer: copied while it is there
        writer.commit(
            lambda c, n: c.execute("UPDATE item SET label = 'late' WHERE id = 3") and None
        )
        shutil.copytree(folder / "g", folder / "seed")
    return folder / "seed"


def damaged(seed: Path, folder: Path, chance: random.Random) -> Path:
    """A copy of the gallery with one to three things wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(seed, folder)
    with contextlib.suppress(FileNotFoundError):
        (folder / "lock").unlink()  # it says that this is a copy
    for _ in range(chance.choice((1, 1, 2, 3))):
        with contextlib.suppress(sqlite3.Error, OSError, ValueError):
            chance.choice((_bytes, _bytes, _cut, _value, _value, _field, _schema))(folder, chance)
    return folder


def _bytes(folder: Path, chance: random.Random) -> None:
    path = folder / chance.choice(FILES)
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 4, 40))):
        # The first page of a database, and its headers, say more than the rest.
        end = chance.choice((100, 4096, len(data)))
        data[chance.randrange(min(end, len(data)))] = chance.randrange(256)
    path.write_bytes(data)


def _cut(folder: Path, chance: random.Random) -> None:
    path = folder / chance.choice((*FILES, "encoder/config.json"))
    data = path.read_bytes()
    at = chance.randint(0, len(data))
    path.write_bytes(data[:at] + chance.choice((b"", data[at // 2 :], bytes(5000))))


def _value(folder: Path, chance: random.Random) -> None:
    table = chance.choice(("item", "item", "segment", "state"))
    column, value = chance.choice(_COLUMNS[table]), chance.choice(_VALUES)
    taken = "cast(? AS TEXT)" if isinstance(value, bytes) and chance.random() < 0.5 else "?"
    where = chance.choice(("1", "rowid = 1", "rowid = 3"))
    _run(folder, f'UPDATE {table} SET "{column}" = {taken} WHERE {where}', (value,))


def _schema(folder: Path, chance: random.Random) -> None:
    statements = (
        "DROP TABLE segment", "DROP TABLE state", "DROP VIEW items", "DROP INDEX item_deleted",
        "ALTER TABLE item ADD COLUMN x AS (hex(zeroblob(1000000000)))", "DELETE FROM item",
        "ALTER TABLE item ADD COLUMN \"a'b\"", "DELETE FROM state", "DELETE FROM segment",
        "INSERT INTO segment SELECT last + 1, first, file, n_rows, n_bytes, sha256 FROM segment",
        "PRAGMA user_version = 7", "PRAGMA journal_mode = DELETE", "CREATE TABLE other (x)",
        "CREATE TRIGGER t AFTER UPDATE ON state BEGIN UPDATE state SET generation = -9; END",
        "INSERT INTO state VALUES (2, 1)", "DELETE FROM item WHERE id = 3",
        "UPDATE sqlite_sequence SET seq = 9223372036854775807", "DROP TABLE written",
        "UPDATE words_data SET block = randomblob(length(block))", "DELETE FROM pieces_idx",
        "UPDATE written SET long = randomblob(9)", "DELETE FROM words_config",
        "UPDATE pieces_data SET block = zeroblob(100000) WHERE id = 10", "DROP TABLE pieces_data",
    )  # fmt: skip
    _run(folder, chance.choice(statements), ())


def _run(folder: Path, statement: str, values: tuple[Any, ...]) -> None:
    with contextlib.closing(sqlite3.connect(folder / "items.sqlite")) as connection:
        connection.execute(statement, values)
        connection.commit()


def _field(folder: Path, chance: random.Random) -> None:
    """Another value in the manifest, whose checksum mostly fits."""
    fields = json.loads((folder / "gallery.json").read_bytes())
    value = chance.choice([v for v in _VALUES if not isinstance(v, bytes)] + [[], {}, [[[]]], True])
    fields[chance.choice(sorted(fields))] = value
    if chance.random() < 0.9:
        fields["sha256"] = manifest._checksum(fields)
    (folder / "gallery.json").write_text(json.dumps(fields))


def outcomes(path: Path) -> list[str]:
    """What each call comes to: ``done``, or the error with which it was refused."""
    started = time.monotonic()
    try:
        gallery = Gallery.open(path)
    except GalleryError as error:
        return [f"GalleryError: {error}"]
    except Exception as error:
        return [f"call open: {type(error).__name__}: {error}"]
    found = []
    calls: list[Callable[[], object]] = [
        lambda: gallery.check(),
        lambda: json.dumps(gallery.info()),
        lambda: gallery.search(picture(3), k=9).image(),
        lambda: json.dumps(gallery.search(picture(3), k=2, where="label = 'a'").to_dict()),
        lambda: json.dumps(gallery.search(3, k=3).to_dict()),
        lambda: [repr(item.name) + item.origin for item in gallery.items()],
        lambda: gallery.items([("width", ">", 3)]),
        lambda: gallery.unreadable(),
        lambda: json.dumps(gallery.find("a OR png NOT 00003").to_dict()),
        lambda: gallery.duplicates(0.5, progress=False),
        lambda: gallery.evaluate(),
        lambda: gallery.copy(path.with_name("copied"), progress=False).close(),
        lambda: gallery.export(path / "v.npy", path / "i.jsonl", progress=False),
        lambda: gallery.add([picture(51), picture(60)], progress=False),
        lambda: gallery.update(progress=False),
        lambda: gallery.remove(4),
        lambda: gallery.forget(3, progress=False),
        lambda: gallery.forget(removed=True, progress=False),
        lambda: gallery.check(),
    ]
    for number, call in enumerate(calls):
        try:
            result = call()
            faults = isinstance(result, list) and result and isinstance(result[0], str)
            found.append(
                f"faults: {result}" if faults and "items.sqlite" in str(result) else "done"
            )
        except (GalleryError, StorageError, EncoderError, DataError) as error:
            found.append(f"{type(error).__name__}: {error}")
        except Exception as error:
            if "so nothing can be measured" in str(error):  # of evaluate
                found.append("done")
                continue
            found.append(f"call {number}: {type(error).__name__}: {error}")
    shutil.rmtree(path.with_name("copied"), ignore_errors=True)
    with contextlib.suppress(GalleryError):
        gallery.close()
    if time.monotonic() - started > SECONDS:
        found.append(f"hang: {time.monotonic() - started:.0f} s")
    return found


def is_an_answer(outcome: str) -> bool:
    """Whether a call worked, or was refused as it should be."""
    return not outcome.startswith(("call ", "hang"))


# --- the corpus: of each damaged gallery the files that differ from the seed ----------------------

CORPUS = Path(__file__).parent / "fuzz" / "gallery"


def keep(folder: Path, seed: Path, name: str) -> None:
    """Keep the damaged files, compressed, if there are such and they are small."""
    files = {each: (folder / each) for each in FILES}
    changed = {
        each: path.read_bytes() if path.exists() else None
        for each, path in files.items()
        if not path.exists() or path.read_bytes() != (seed / each).read_bytes()
    }
    data = lzma.compress(as_json(changed))
    if changed and len(data) < 8192:
        CORPUS.mkdir(exist_ok=True)
        (CORPUS / f"{name}.xz").write_bytes(data)


def as_json(changed: dict[str, bytes | None]) -> bytes:
    """Files as JSON."""
    return json.dumps({n: None if d is None else d.hex() for n, d in changed.items()}).encode()


def kept(case: Path, seed: Path, folder: Path) -> Path:
    """A gallery of the corpus."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(seed, folder)
    (folder / "lock").unlink()
    (folder / "items.sqlite-shm").unlink(missing_ok=True)
    for name, data in json.loads(lzma.decompress(case.read_bytes())).items():
        (folder / name).unlink(missing_ok=True)
        if data is not None:
            (folder / name).write_bytes(bytes.fromhex(data))
    return folder
