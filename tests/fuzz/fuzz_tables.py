"""Damage tables, pictures and arrays: ``python tests/fuzz/fuzz_tables.py --minutes 10``.

Exits with 1 at the first outcome that is neither data nor a DataError, that takes more than a
second a megabyte (and one to spare), or memory beyond ten times the file and 256 MiB. That file is
then in ``tests/fuzz/tables``, where ``tests/test_data_hostile.py`` tries it ever after. ``--keep``
adds a small file for every kind of error that is not there yet.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import tables_fuzz


def kind(outcome: str) -> str:
    """An outcome without its path, numbers and quotations."""
    text = re.sub(r"/\S*?damaged\S*:? ?", "", outcome)
    return re.sub(r"'.*|\[.*|\d[\d,.]*|\\x..|[^\x20-\x7e]", "#", text)[:60]


def rss() -> int:
    """The most memory that this process has taken, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def fault(blob: bytes, suffix: str, folder: Path, base: int) -> tuple[str, str]:
    """The outcome, and what is wrong with it."""
    started = time.process_time()
    try:
        outcome = tables_fuzz.survives(blob, suffix, folder)
    except Exception as error:
        return "", f"{type(error).__name__}: {error}"
    seconds = time.process_time() - started
    if seconds > 1 + len(blob) / 1e6:
        return outcome, f"{seconds:.1f} s for {len(blob)} bytes: {outcome}"
    if rss() > base + 10 * len(blob) + (256 << 20):
        return outcome, f"{(rss() - base) >> 20} MiB for {len(blob)} bytes: {outcome}"
    return outcome, ""


def main() -> int:
    """Fuzz until the time is over; 1 where something else than an answer came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    chance, kinds = random.Random(options.seed), Counter[str]()
    tables_fuzz.CORPUS.mkdir(exist_ok=True)
    kept = {path.name for path in tables_fuzz.CORPUS.iterdir()}
    files = [(path.suffix, path.read_bytes()) for path in sorted(tables_fuzz.CORPUS.iterdir())]
    end, base = time.monotonic() + 60 * options.minutes, rss()
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            suffix, blob = chance.choice((*tables_fuzz.seeds(), *files))
            blob = tables_fuzz.damaged(blob, chance)
            outcome, wrong = fault(blob, suffix, Path(folder), base)
            if wrong:
                name = f"crash-{options.seed}-{sum(kinds.values())}{suffix}"
                (tables_fuzz.CORPUS / name).write_bytes(blob)
                print(f"after {sum(kinds.values())} files: {name}: {wrong[:500]!r}")
                return 1
            kinds[f"{suffix} {kind(outcome)}"] += 1
            name = re.sub(r"[^a-z]+", "-", kind(outcome).lower()).strip("-")[:40] + suffix
            if options.keep and len(blob) < 2048 and name not in kept:
                kept.add(name)
                (tables_fuzz.CORPUS / name).write_bytes(blob)
    print(f"{sum(kinds.values())} files, {len(kinds)} kinds of outcome, {rss() >> 20} MiB:")
    for outcome, n in kinds.most_common(40):
        print(f"{n:8}  {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
