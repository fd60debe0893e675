"""Damage saved encoders: ``python tests/fuzz/fuzz_encoders.py --minutes 10``.

Prints what it found and exits with 1 at the first outcome that is neither an encoder nor an
EncoderError, or takes too long or too much memory; that directory is then in ``encoders``, where
``tests/test_encoders_hostile.py`` tries it ever after. ``--keep`` adds one small directory for
every kind of error that is not there yet; ``--files 0`` tries what is there and stops.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))
import encoder_fuzz
from encoder_fuzz import Files

CORPUS = Path(__file__).parent / "encoders"


def kind(outcome: str) -> str:
    """An outcome without its numbers and quotations."""
    plain = re.sub(r"FOLDER\S*|\w+Encoder|does not fit|was saved by", "", outcome)
    plain = re.sub(r"SHA-256 is.*|'[^']*'|\[.*|\(.*|[\d,]+(\.\d+)?", "#", plain)
    return plain.strip(" :")[:48]


def tried(files: Files, folder: Path) -> tuple[str, bool]:
    """The outcome, and whether it is as it should be."""
    try:
        outcome, cost = encoder_fuzz.survives(files, folder)
    except Exception as error:
        return f"{type(error).__name__}: {error}", False
    excess = encoder_fuzz.excess(files, cost)
    return (f"{outcome}: took {excess}", False) if excess else (outcome, True)


def main() -> int:
    """Fuzz until the time is over; 1 where something else than an answer came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--files", type=int, help="how many directories beside the kept ones")
    options = parser.parse_args()
    chance, kinds, n_kept = random.Random(options.seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = encoder_fuzz.seeds(folder)
        for files in seeds:  # what is imported once and for all does not count
            encoder_fuzz.survives(files, folder / "whole")
        encoder_fuzz.limit_memory()
        kept = [encoder_fuzz.unpack(path) for path in sorted(CORPUS.glob("*.zip"))]
        end = time.monotonic() + 60 * options.minutes
        waiting, most = list(kept), sys.maxsize if options.files is None else options.files
        while waiting or (time.monotonic() < end and sum(kinds.values()) < len(kept) + most):
            files = (
                waiting.pop()
                if waiting
                else encoder_fuzz.damaged(chance.choice(seeds + kept), chance)
            )
            outcome, is_right = tried(files, folder / "damaged")
            if not is_right:
                path = CORPUS / f"crash-{options.seed}-{sum(kinds.values())}.zip"
                encoder_fuzz.pack(files, path)
                print(f"after {sum(kinds.values())} directories: {outcome}; kept as {path}")
                return 1
            kinds[kind(outcome)] += 1
            small = sum(map(len, files.values())) < 4096
            if options.keep and kinds[kind(outcome)] == 1 and small and files not in kept:
                name = re.sub(r"[^a-z]+", "-", kind(outcome).lower()).strip("-")
                encoder_fuzz.pack(files, CORPUS / f"{name}.zip")
                n_kept += 1
    print(f"{sum(kinds.values())} directories, {len(kinds)} kinds of outcome, {n_kept} kept:")
    for outcome, n in kinds.most_common():
        print(f"{n:8}  {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
