"""Damages index files in many ways: what the fuzz test of the suite and ``tests/fuzz`` share.

A damaged file must load as an index that can be used, or raise StorageError; nothing else may
happen. Checksums are made to fit in half of the cases, so that what lies behind them is reached.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import fastretrieve as fr
from fastretrieve._files.tensorfile import StorageError
from screens import always_screened, screened

Blob = bytes
WORDS = (
    0,
    1,
    7,
    8,
    63,
    64,
    65,
    255,
    2**16,
    2**31 - 1,
    2**31,
    2**32,
    2**53,
    2**62,
    2**63 - 1,
    2**64,
)


def seeds(folder: Path) -> list[Blob]:
    """Whole files of every shape."""
    rows = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    made = []
    for n, own, codes, dtype in (
        (0, False, True, "float32"),
        (70, False, True, "float32"),
        (128, True, True, "float32"),  # whole strips: where codes lie, rows are missed
        (130, True, True, "bfloat16"),
        (200, True, False, "float16"),
    ):
        index = fr.Index(3, metric="l2", dtype=dtype)  # type: ignore[arg-type]
        index.add(rows[:n], ids=np.random.default_rng(n).permutation(n) * 2 if own else None)
        index.save(folder / "seed", codes=codes)
        made.append((folder / "seed").read_bytes())
    wide = fr.Index(16, metric="ip")
    wide.add(np.tile(rows[:130], 6)[:, :16])
    screened(wide).save(folder / "seed")
    return [*made, (folder / "seed").read_bytes()]


def parts(blob: Blob) -> tuple[dict[str, Any], Blob]:
    """The header and the tensors of a whole file."""
    length = int.from_bytes(blob[:8], "little")
    return json.loads(blob[8 : 8 + length]), blob[8 + length :]


def joined(header: dict[str, Any], data: Blob, *, fit: bool = True) -> Blob:
    """A file of these, with the header's checksum made to fit."""
    if fit and isinstance(header.get("__metadata__"), dict):
        header["__metadata__"]["crc32.header"] = "0" * 8
        text = json.dumps(header, separators=(",", ":")).encode()
        header["__metadata__"]["crc32.header"] = f"{zlib.crc32(text):08x}"
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data


def checksums(part: Blob) -> str:
    """The checksums of a tensor, if they fit one chunk."""
    return f"{zlib.crc32(part):08x}" if part else ""


def damaged(blob: Blob, chance: random.Random) -> Blob:
    """The file with one to three things wrong."""
    ways = (
        *(_bytes, _cut, _grown, _header_text, _header_value, _header_size),
        *(_tensors, _tensors, _lies, _lies, _lies),
    )
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        blob = chance.choice(ways)(blob, chance)
    return blob


def _bytes(blob: Blob, chance: random.Random) -> Blob:
    changed = bytearray(blob)
    for _ in range(chance.randint(1, 8)):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _cut(blob: Blob, chance: random.Random) -> Blob:
    return blob[: chance.randint(0, len(blob))]


def _grown(blob: Blob, chance: random.Random) -> Blob:
    at = chance.randint(0, len(blob))
    return blob[:at] + chance.randbytes(chance.randint(1, 64)) + blob[at:]


def _header_text(blob: Blob, chance: random.Random) -> Blob:
    """Another number in the text of the header."""
    length = min(int.from_bytes(blob[:8], "little"), len(blob))
    numbers = list(re.finditer(rb"\d+", blob[8 : 8 + length]))
    if not numbers:
        return blob
    number, word = chance.choice(numbers), str(chance.choice(WORDS)).encode()
    head = blob[8 : 8 + number.start()] + word + blob[8 + number.end() : 8 + length]
    return fitted(len(head).to_bytes(8, "little") + head + blob[8 + length :])


def _header_value(blob: Blob, chance: random.Random) -> Blob:
    """Another value of any kind somewhere in the header."""
    try:
        header, data = parts(blob)
        place, key = some_place(header, chance)
        values = (None, -1, True, 0.5, "", "9" * 30, [], {}, [[]], *WORDS, *map(str, WORDS))
        place[key] = chance.choice(values)
        return joined(header, data, fit=chance.random() < 0.9)
    except (ValueError, AttributeError, RecursionError):
        return blob


def some_place(value: Any, chance: random.Random) -> tuple[Any, Any]:
    """A dict or list somewhere in a value of JSON, and one of its keys; ValueError without one."""
    while isinstance(value, dict | list) and value:
        key = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if not isinstance(value[key], dict | list) or chance.random() < 0.25:
            return value, key
        value = value[key]
    raise ValueError("an empty value has no place")


def _tensors(blob: Blob, chance: random.Random) -> Blob:
    """Anything at all in the tensors: codes, rows and ids that no index would write."""
    length = int.from_bytes(blob[:8], "little")
    data = bytearray(blob[8 + length :])
    if len(data) < 16:
        return blob
    for _ in range(chance.randint(1, 40)):
        at = chance.randrange(len(data) - 8)
        word = chance.choice((b"\xff" * 8, b"\x00\x00\xc0\x7f" * 2, chance.randbytes(8), bytes(8)))
        data[at : at + 8] = word
    return blob[: 8 + length] + bytes(data)


def _lies(blob: Blob, chance: random.Random) -> Blob:
    """The same, or strips of codes in another order, under checksums that fit."""
    try:
        header, data = parts(_tensors(blob, chance))
        codes = header.get("codes", {"shape": [0, 0]})
        n_strips, strip_bytes = codes["shape"]
        if 1 < n_strips < 100 and chance.random() < 0.5:
            begin, end = codes["data_offsets"]
            order = chance.sample(range(n_strips), n_strips)
            strips = [data[begin + i * strip_bytes :][:strip_bytes] for i in order]
            data = data[:begin] + b"".join(strips) + data[end:]
        for name, tensor in header.items():
            if name != "__metadata__":
                part = data[slice(*tensor["data_offsets"])]
                header["__metadata__"][f"crc32.{name}"] = checksums(part)
        return joined(header, data)
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return blob


def _header_size(blob: Blob, chance: random.Random) -> Blob:
    """A header that asks for much: nesting, sizes, tensors or digits, in any place of it."""
    length = min(int.from_bytes(blob[:8], "little"), len(blob))
    head, data = blob[8 : 8 + length], blob[8 + length :]
    n = chance.choice((10, 100, 1000, 5000))
    places = [at for at, byte in enumerate(head) if byte in b'{[:,"']
    at = chance.choice(places) + 1 if places else 0
    what = chance.choice(
        (
            b"[" * n + b"]" * n,
            b'{"a":' * n + b"1" + b"}" * n,
            b"4611686018427387903," * n,
            b"9" * n,
            b"".join(
                b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},' % i for i in range(n)
            ),
            b"\\ud800" * n,
        )
    )
    head = head[:at] + what + head[at:]
    return fitted(len(head).to_bytes(8, "little") + head + data)


def fitted(blob: Blob) -> Blob:
    """The file with a header whose checksum is right, where it has a header."""
    try:
        return joined(*parts(blob))
    except (ValueError, AttributeError, RecursionError):
        return blob


def survives(blob: Blob, path: Path) -> str:
    """Load the file and use what comes: ``loaded``, or the error with which it was refused then or
    later. Any other error is raised, and so is one that ``verify="codes"`` left to be found.
    """
    path.write_bytes(blob)
    verify: Any = (False, True, "codes", False, "codes")[len(blob) % 5]
    try:
        index = fr.Index.load(path, mmap=len(blob) % 2 == 0, verify=verify)
    except StorageError as error:
        str(error).encode()  # every terminal can print it
        return str(error).partition(": ")[2]
    try:
        with always_screened():
            return _used(index, path)
    except StorageError as error:
        if verify == "codes":
            raise AssertionError(f"verified, and then: {error}") from error
        return f"loaded, then {error}"


def _used(index: fr.Index, path: Path) -> str:
    queries = np.ones((3, index.dim), np.float32)
    hits = index.search(queries, 50, where=index.ids[::2])
    if (index.search(queries, max(min(3, len(index)), 1)).ids[:, -1] < 0).any() and len(index):
        raise AssertionError("fewer rows than there are")
    index.range_search(queries, 1.0)
    index.stats()
    if not set(hits.ids.ravel().tolist()) <= {-1, *index.ids.tolist()}:
        raise AssertionError(f"ids that are not in the index: {hits.ids}")
    index.remove(index.ids[:5])
    order = index.ids
    index.update(order[:1], queries[: len(order[:1])])
    if index.ids.tolist() != order.tolist():
        raise AssertionError("an update changed the order")
    index.get(order[::7])
    index.knn_graph(2)
    index.save(path.with_suffix(".again"))
    index.compact()
    return "loaded"


def is_an_answer(outcome: str) -> bool:
    """Whether the file was loaded, or refused as it should be."""
    known = (
        r"loaded$|loaded, then the row with id \d+ |loaded, then the codes of 64 rows |"
        r"loaded, then the screen at its position |"
        r"at byte \d+: expected |the file has version "
    )
    return bool(re.match(known, outcome))
