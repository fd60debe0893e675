"""Damages tables, pictures and arrays: what the tests of the suite and ``tests/fuzz`` share.

A damaged file is read, or is a DataError; nothing else may happen, and nothing may hang.
"""

from __future__ import annotations

import functools
import io
import json
import random
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from fastretrieve.data import DataError, open_dataset, read_item
from fastretrieve.data.opening import open_picture
from fastretrieve.gallery.intake.listing import Listing

CORPUS = Path(__file__).parent / "fuzz" / "tables"
TABLES = (".csv", ".jsonl")
MAX_PIXELS = 4_000_000  # so that what is decoded stays far below the limit of memory
# fmt: off
WORDS = (
    b'"', b'""', b",", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xed\xa0\x80",
    b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b"[" * 3000, b'{"a":' * 2000, b":", b"null", b"true",
    b"NaN", b"Infinity", b"1e999", b"-0", b"007", b"9" * 400, b"9" * 5000, b"\\ud800", b"\\u0000",
    b"path", b"label", b"box", b"left", b"url", b"http://[", b"https://x/\xc3\xa9", b"," * 5000,
    b"x" * 200_000,
)
# fmt: on


@functools.cache
def seeds() -> tuple[tuple[str, bytes], ...]:
    """Whole files of every kind."""
    rows = [
        {"path": "a.png", "label": "x", "n": 5, "tags": ["a", {"b": None}], "box": [0, 0, 5, 5]},
        {"file": "b.png", "class": "y", "n": 2.5, "x": 1, "y": 2, "w": 3, "h": 4},
        {"url": "https://example.org/a.png", "note": "caf\u00e9 \U0001f600", "n": None},
    ]
    csv = "path,label,left,top,right,bottom,n,note\n"
    csv += 'a.png,x,0,0,5,5,007,"two\nlines"\nb.png,,,,,,1,"a""b"\n'
    found = [(".jsonl", "\n".join(map(json.dumps, rows)).encode()), (".csv", csv.encode() * 3)]
    first, *others = [Image.new("RGB", (40, 30), (9 * i, 255 - 9 * i, 7)) for i in range(4)]
    for suffix, many in (
        (".png", True), (".gif", True), (".webp", True), (".tif", True), (".jpg", False),
        (".bmp", False), (".ico", False), (".ppm", False), (".jp2", False), (".tga", False),
    ):  # fmt: skip
        file = io.BytesIO()
        kind = {".jpg": "JPEG", ".tif": "TIFF", ".jp2": "JPEG2000"}.get(suffix, suffix[1:].upper())
        first.save(file, kind, **({"save_all": True, "append_images": others} if many else {}))
        found.append((suffix, file.getvalue()))
    file = io.BytesIO()
    np.save(file, np.zeros((3, 4), np.float32))
    found.append((".npy", file.getvalue()))
    file = io.BytesIO()
    np.savez_compressed(file, images=np.zeros((3, 4, 4), np.uint8), labels=["a", "b", "a"])
    return (*found, (".npz", file.getvalue()))


def damaged(blob: bytes, chance: random.Random) -> bytes:
    """The file with one to four things wrong; most of them near its beginning."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        end = len(blob) if chance.random() < 0.5 else min(len(blob), 120)
        at = chance.randint(0, end)
        way = chance.randrange(6)
        if way == 0:
            blob = blob[:at]
        elif way == 1:
            blob = blob[:at] + chance.choice(WORDS) + blob[at:]
        elif way == 2:
            blob = blob[:at] + chance.randbytes(chance.randint(1, 8)) + blob[at + 4 :]
        elif way == 3:
            word = chance.choice((b"\xff" * 4, b"\x7f" * 4, bytes(4), b"\0\0\x40\0", b"\xff\xff"))
            blob = blob[:at] + word + blob[at + len(word) :]
        elif way == 4:
            to = chance.randint(at, min(at + 200, len(blob)))
            blob = blob[:to] + blob[at:to] * chance.choice((1, 2, 50)) + blob[to:]
        else:
            blob = blob[:at] + blob[at + chance.randint(1, 20) :]
    return blob[:2_000_000]


def survives(blob: bytes, suffix: str, folder: Path) -> str:
    """Read the file in every way: ``read``, or the error with which it was refused. Any other error
    is raised.
    """
    path = folder / f"damaged{suffix}"
    path.write_bytes(blob)
    outcome = "read"
    with mock.patch.object(Image, "MAX_IMAGE_PIXELS", MAX_PIXELS // 2):
        for modality in ("image", "sequence"):
            try:
                if suffix in (*TABLES, ".npy", ".npz"):
                    data = open_dataset(path, modality=modality)  # type: ignore[arg-type]
                    listing = Listing(
                        folder, modality="image", recursive=True, labels_from_folders=True
                    )
                    if suffix in TABLES:
                        kept = [one._asdict() for one in listing.candidates(path)]
                        json.dumps(kept, allow_nan=False).encode()
                    skipped = [one._asdict() for one in (*data.skipped, *listing.skipped)]
                    "".join(one["key"] + one["reason"] for one in skipped).encode()
                else:
                    with open_picture(path):
                        pass
                    read_item(path, modality=modality)
            except DataError as error:
                outcome = str(error).encode().decode()
    return outcome
