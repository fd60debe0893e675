"""Damage index files for as long as you like: ``python tests/fuzz/fuzz_storage.py --minutes 10``.

Prints what it found and exits with 1 at the first outcome that is neither an index nor a
StorageError; that file is then in ``corpus``, where ``tests/test_storage.py`` tries it ever after.
``--keep`` adds one small file for every kind of error that the corpus does not have yet.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from campaign import Campaign  # first: it says where the modules below are

import storage_fuzz

CORPUS = Path(__file__).parent / "corpus"


def kind(outcome: str) -> str:
    """An outcome without its numbers and quotations."""
    return re.sub(r"checksum.*|'.*|\[.*|\(.*|\d+(\.\d+)?", "#", outcome)[:60]


def main() -> int:
    """Fuzz until the time is over; 1 where something else than an answer came."""
    campaign = Campaign(__doc__, kind, "files")
    campaign.start()
    with tempfile.TemporaryDirectory() as folder:
        path, last = Path(folder) / "damaged", Path(folder) / "last"
        blobs = storage_fuzz.seeds(Path(folder))
        blobs += [file.read_bytes() for file in sorted(CORPUS.glob("*"))]
        while campaign.goes_on():
            blob = storage_fuzz.damaged(campaign.chance.choice(blobs), campaign.chance)
            last.write_bytes(blob)
            try:
                outcome = storage_fuzz.survives(blob, path)
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            if not storage_fuzz.is_an_answer(outcome):
                CORPUS.mkdir(exist_ok=True)
                (CORPUS / campaign.crash_name()).write_bytes(blob)
                return campaign.fault(outcome)
            kept = CORPUS / campaign.file_name(outcome)
            if campaign.count(outcome) and len(blob) < 4096 and not kept.exists():
                kept.write_bytes(blob)
    return campaign.over()


if __name__ == "__main__":
    sys.exit(main())
