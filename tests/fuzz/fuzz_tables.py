"""Damage tables, pictures and arrays: ``python tests/fuzz/fuzz_tables.py --minutes 10``.

Exits with 1 at the first outcome that is neither data nor a DataError, that takes more than a
second a megabyte (and one to spare), or memory beyond ten times the file and 256 MiB. That file is
then in ``tests/fuzz/tables``, where ``tests/test_data_hostile.py`` tries it ever after. ``--keep``
adds a small file for every kind of error that is not there yet.
"""

from __future__ import annotations

import re
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

from campaign import Campaign  # first: it says where the modules below are

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
    campaign = Campaign(__doc__, kind, "files")
    campaign.start()
    warnings.simplefilter("ignore")
    corpus = tables_fuzz.CORPUS
    corpus.mkdir(exist_ok=True)
    files = [(path.suffix, path.read_bytes()) for path in sorted(corpus.iterdir())]
    base = rss()
    with tempfile.TemporaryDirectory() as folder:
        while campaign.goes_on():
            suffix, blob = campaign.chance.choice((*tables_fuzz.seeds(), *files))
            blob = tables_fuzz.damaged(blob, campaign.chance)
            outcome, wrong = fault(blob, suffix, Path(folder), base)
            if wrong:
                (corpus / f"{campaign.crash_name()}{suffix}").write_bytes(blob)
                return campaign.fault(repr(wrong[:500]))
            kept = corpus / f"{campaign.file_name(outcome)}{suffix}"
            is_new = campaign.count(f"{suffix} {outcome}")
            if is_new and len(blob) < 2048 and not kept.exists():
                kept.write_bytes(blob)
    campaign.note = f", {rss() >> 20} MiB"
    return campaign.over()


if __name__ == "__main__":
    sys.exit(main())
