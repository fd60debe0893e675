"""Damage saved encoders: ``python tests/fuzz/fuzz_encoders.py --minutes 10``.

Prints what it found and exits with 1 at the first outcome that is neither an encoder nor an
EncoderError, or takes too long or too much memory; that directory is then in ``encoders``, where
``tests/test_encoders_hostile.py`` tries it ever after. ``--keep`` adds one small directory for
every kind of error that is not there yet; ``--files 0`` tries what is there and stops.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
from campaign import Campaign  # first: it says where the modules below are

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
    campaign = Campaign(__doc__, kind, "directories")
    campaign.parser.add_argument(
        "--files", type=int, default=sys.maxsize, help="how many directories beside the kept ones"
    )
    options, chance, n_kept = campaign.start(), campaign.chance, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = encoder_fuzz.seeds(folder)
        for files in seeds:  # what is imported once and for all does not count
            encoder_fuzz.survives(files, folder / "whole")
        encoder_fuzz.limit_memory()
        kept = [encoder_fuzz.unpack(path) for path in sorted(CORPUS.glob("*.zip"))]
        waiting, most = list(kept), len(kept) + options.files
        while waiting or (campaign.goes_on() and campaign.n_tried < most):
            if waiting:
                files = waiting.pop()
            else:
                files = encoder_fuzz.damaged(chance.choice(seeds + kept), chance)
            outcome, is_right = tried(files, folder / "damaged")
            if not is_right:
                encoder_fuzz.pack(files, CORPUS / f"{campaign.crash_name()}.zip")
                return campaign.fault(outcome)
            small = sum(map(len, files.values())) < 4096
            if campaign.count(outcome) and small and files not in kept:
                encoder_fuzz.pack(files, CORPUS / f"{campaign.file_name(outcome)}.zip")
                n_kept += 1
    campaign.note = f", {n_kept} kept"
    return campaign.over()


if __name__ == "__main__":
    sys.exit(main())
