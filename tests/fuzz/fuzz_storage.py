"""Damage index files for as long as you like: ``python tests/fuzz/fuzz_storage.py --minutes 10``.

Prints what it found and exits with 1 at the first outcome that is neither an index nor a
StorageError; that file is then in ``corpus``, where ``tests/test_storage.py`` tries it ever after.
``--keep`` adds one small file for every kind of error that the corpus does not have yet.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import storage_fuzz

CORPUS = Path(__file__).parent / "corpus"


def kind(outcome: str) -> str:
    """An outcome without its numbers and quotations."""
    return re.sub(r"checksum.*|'.*|\[.*|\(.*|\d+(\.\d+)?", "#", outcome)[:60]


def main() -> int:
    """Fuzz until the time is over; 1 where something else than an answer came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    chance, kinds = random.Random(options.seed), Counter[str]()
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        path, last = Path(folder) / "damaged", Path(folder) / "last"
        blobs = storage_fuzz.seeds(Path(folder))
        blobs += [file.read_bytes() for file in sorted(CORPUS.glob("*"))]
        while time.monotonic() < end:
            blob = storage_fuzz.damaged(chance.choice(blobs), chance)
            last.write_bytes(blob)
            try:
                outcome = storage_fuzz.survives(blob, path)
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            if not storage_fuzz.is_an_answer(outcome):
                CORPUS.mkdir(exist_ok=True)
                (CORPUS / f"crash-{options.seed}-{sum(kinds.values())}").write_bytes(blob)
                print(f"after {sum(kinds.values())} files: {outcome}")
                return 1
            kinds[kind(outcome)] += 1
            if options.keep and kinds[kind(outcome)] == 1 and len(blob) < 4096:
                name = re.sub(r"[^a-z]+", "-", kind(outcome).lower()).strip("-")[:48]
                if not (CORPUS / name).exists():
                    (CORPUS / name).write_bytes(blob)
    print(f"{sum(kinds.values())} files, {len(kinds)} kinds of outcome:")
    for outcome, n in kinds.most_common():
        print(f"{n:8}  {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
